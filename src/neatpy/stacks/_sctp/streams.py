"""The streams of one association and the Flows on them (RFC 9623 section 10.6).

Stream 0 is the first Connection; who initiated opens even numbers, who accepted odd ones, always the lowest that is
free. The same number is used in both directions. A stream is reset to end it, and is free again when both directions
are. All this needs interleaving (RFC 8260): without it one long Message would block every other stream, so that the
peer's streams are then taken for one, and clones become associations of their own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from neatpy.errors import CloneError, ConnectionError, Reason
from neatpy.stacks._farewell import farewells
from neatpy.stacks._sctp import options
from neatpy.stacks._sctp.flow import Rest, SctpFlow, is_bound, unbound
from neatpy.stacks._sctp.leaving import Leaving
from neatpy.stacks._sctp.lifetimes import Lifetimes
from neatpy.stacks._sctp.observer import AssociationObserver
from neatpy.stacks._sctp.order import in_turn, scheduler_for
from neatpy.stacks._sctp.supply import Supply
from neatpy.stacks._sharing import UNREAD_BY_ALL
from neatpy.stacks.contract import Flow, FlowObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from neatpy.properties import TransportProperties
    from neatpy.stacks._sctp.association import Association
    from neatpy.stacks._sctp.carriers import Carrier
    from neatpy.stacks.contract import Stack

HELD_BY_ONE = 4 * 1024 * 1024
"""Bytes that one stream holds before the association stops reading: all streams share one receive window, so that one
that is not received from may stop the others, but only after this."""

_NOBODY = AssociationObserver()


class Streams(AssociationObserver):
    """Everything on one association."""

    __slots__ = (
        "__weakref__",
        "_enough",
        "_established",
        "_flows",
        "_held",
        "_initiator",
        "_interleaving",
        "_leaving",
        "_lifetimes",
        "_over",
        "_reset_under_way",
        "_resetting",
        "_scheduler",
        "_stalled",
        "_supply",
        "_to_reset",
        "_writers",
        "association",
        "carrier",
        "heard_at",
        "loop",
        "properties",
        "stack",
        "unasked",
    )

    association: Association
    heard_at: float
    """The loop's time of the latest data."""
    unasked: int
    """How many pieces of data have come since we last said something; the peer's first word is one too many."""

    def __init__(
        self,
        stack: Stack,
        carrier: Carrier,
        properties: TransportProperties,
        loop: asyncio.AbstractEventLoop,
        *,
        initiator: bool,
        established: Callable[[OSError | None], None],
    ) -> None:
        self.stack = stack
        self.carrier = carrier
        self.properties = properties
        self.loop = loop
        self._initiator = initiator
        self._established: Callable[[OSError | None], None] | None = established
        self._flows: dict[int, SctpFlow] = {}
        self._resetting: dict[int, SctpFlow | None] = {}
        """Streams whose end is on its way: until both directions are reset their numbers are not free."""
        self._writers: dict[SctpFlow, None] = {}
        self._stalled: set[SctpFlow] = set()
        self._leaving: Leaving | None = None
        self._held = 0
        self._enough = False
        self._lifetimes = Lifetimes(loop)
        self._supply = Supply(loop)
        self._to_reset: list[int] = []
        self._interleaving = self._over = self._reset_under_way = False
        self._scheduler: options.Scheduler | None = None
        self.heard_at = 0.0
        self.unasked = 1

    def first(self, observer: FlowObserver) -> SctpFlow:
        """The Flow on stream 0."""
        flow = SctpFlow(self, 0, observer, self.properties)
        self._flows[0] = flow
        self._apply_all(flow)
        return flow

    # The Flows' side

    @property
    def count(self) -> int:
        """How many Flows there are."""
        return len(self._flows)

    def pass_down(self, stream: int, rest: Rest) -> int:
        """Give the association part of a Message; how many bytes it took."""
        options = rest.options
        if self._over:
            return 0
        self.unasked = 0
        if stream >= self._supply.count:
            self._supply.ask(stream)
            return 0
        try:
            return self.association.send(
                stream,
                rest.data,
                eor=rest.end_of_message,
                unordered=options.unordered,
                ppid=options.payload_protocol_id,
                context=options.context,
                lifetime_ms=options.lifetime,
                max_retransmissions=options.retransmissions,
            )
        except OSError:
            return 0  # it is ending, which is told in its turn

    def pass_whole(self, stream: int, data: bytes) -> int:
        """Like ``pass_down`` of a whole Message without properties."""
        if self._over:
            return 0
        self.unasked = 0
        if stream >= self._supply.count:
            self._supply.ask(stream)
            return 0
        try:
            return self.association.send_whole(stream, data)
        except OSError:
            return 0  # it is ending, which is told in its turn

    def wants_to_write(self, flow: SctpFlow) -> None:
        """The association was full for this Flow."""
        self._writers[flow] = None

    def watch(self, flow: SctpFlow, token: object, lifetime: float) -> int:
        """A number by which the association tells of a Message that it gives up."""
        if not self._lifetimes.asked:
            self._lifetimes.asked = True
            self.loop.call_soon(self._ask_dry)
        return self._lifetimes.watch(flow, token, lifetime)

    def _ask_dry(self) -> None:
        if not self._over:
            self.association.ask_dry()

    def end_stream(self, flow: SctpFlow) -> None:
        """Everything of this Flow is with the association: tell the peer that no more comes on its stream."""
        others = [one for one in self._flows.values() if one is not flow and not one.closing]
        if flow.closing and not others and not self._resetting:
            self._leave()
        elif self._interleaving and flow.stream not in self._resetting:
            endless = self.association.amid(flow.stream)  # a Message without an end ends with the association
            self._resetting[flow.stream] = None if endless else flow
            if not endless:
                self._reset_later(flow.stream)

    def _reset_later(self, stream: int) -> None:
        """One reset at a time is allowed, of as many streams as there are by then."""
        self._to_reset.append(stream)
        if not self._reset_under_way:
            self._reset_now()

    def _reset_now(self) -> None:
        streams, self._to_reset = tuple(self._to_reset), []
        self._reset_under_way = bool(streams)
        if not streams or self._over:
            return
        try:
            self.association.reset(streams)
        except OSError:
            self.loop.call_soon(self._reset_came_to_nothing, streams)

    def _reset_came_to_nothing(self, streams: tuple[int, ...]) -> None:
        """The peer cannot: the streams have ended all the same as far as we are concerned."""
        self.stream_reset((), streams)

    def close_stream(self, flow: SctpFlow) -> None:
        """This Flow is closing; the last one takes the association along."""
        if flow.unsent:
            return
        if all(one.closing for one in self._flows.values()):
            self._leave()
        elif flow.stream not in self._resetting:
            self.end_stream(flow)
            if flow.stream not in self._resetting:
                self._forget(flow)
                self.loop.call_soon(flow.ended, None)

    def _leave(self) -> None:
        """Nobody speaks here any more; once the association has taken all that was said, it is to end."""
        unsent = any(one.unsent for one in (*self._flows.values(), *self._writers))
        if self._leaving is None and not self._over and not unsent:
            self._leaving = Leaving(self)

    def shut_down(self) -> None:
        """The peer has all that was said, and has nothing more to say. A Message without an end cannot be shut down:
        usrsctp would wait for the rest for ever."""
        if self.association.amid_any:
            self.association.abort(b"a message was not ended")
            self.closed(None, b"")
        else:
            self.association.close()

    def end_flows(self) -> None:
        """The peer has all that was said."""
        for flow in list(self._flows.values()):
            self.end_flow(flow)

    def end_flow(self, flow: SctpFlow) -> None:
        """The peer has all that was said on this one."""
        self._forget(flow)
        flow.ended(None)

    def abandon(self, flow: SctpFlow) -> None:
        """This Flow is aborted: the association too if it was the last, else its stream is reset."""
        self._forget(flow)
        if self._over:
            return
        if all(one.over for one in self._flows.values()):
            self._abort()
            return
        if flow.stream not in self._resetting and self._interleaving:
            self._resetting[flow.stream] = None
            # usrsctp resets none amid a Message, nor any other then.
            if not self.association.amid(flow.stream):
                self._reset_later(flow.stream)
            elif flow.unsent:
                self.wants_to_write(flow)
        self._leave_if_closing()

    def given_up(self, flow: SctpFlow) -> None:
        """The Message that an aborted Flow had begun has ended."""
        self._reset_later(flow.stream)
        self._leave_if_closing()

    def _leave_if_closing(self) -> None:
        if all(one.closing for one in self._flows.values()):
            self._leave()

    def say_goodbye(self) -> None:
        """The loop ends, and with it all that was not closed. Who only waits for the peer's goodbye says no more."""
        if self._leaving is None or not self._leaving.polite:
            self._abort()
        else:
            self.carrier.linger()

    def _abort(self) -> None:
        self._end()
        self.association.abort()
        self.carrier.close()

    def _end(self) -> None:
        """The association is over; what held each other lets go."""
        self._over = True
        self.association.observer = _NOBODY
        farewells.discard(self.loop, self)
        if self._leaving is not None:
            self._leaving.over()
        self._lifetimes.forget()
        self._supply.over()

    def hold(self, flow: SctpFlow, size: int, more: int) -> None:
        """This Flow holds so many bytes that nobody receives, ``more`` than before. The streams share one receive
        window, so that all stop when one holds too much, or all together do."""
        self._held += more
        if size >= HELD_BY_ONE:
            self._stalled.add(flow)
        elif self._stalled:
            self._stalled.discard(flow)
        enough = bool(self._stalled) or self._held >= UNREAD_BY_ALL
        if enough is not self._enough and not self._over:
            self._enough = enough
            if enough:
                self.association.pause()
            else:
                self.association.resume()

    def open(self, properties: TransportProperties) -> Flow | Coroutine[Any, Any, Flow]:
        """A new stream, or how to get one if the peer must be asked for more. Raises CloneError."""
        if not self._interleaving:
            raise CloneError("the peer's SCTP cannot interleave messages", Reason.NOT_CLONEABLE)
        flow = self._open_now(properties)
        return self._open_later(properties) if flow is None else flow

    def _open_now(self, properties: TransportProperties) -> Flow | None:
        if self._over or self._leaving is not None:
            raise CloneError("the association has ended", Reason.CONNECTION_CLOSED)
        stream = self._free_number()
        if stream >= self._supply.count:
            return None
        flow = SctpFlow(self, stream, unbound(), properties)
        self._flows[stream] = flow
        self._apply_all(flow)
        return flow

    async def _open_later(self, properties: TransportProperties) -> Flow:
        while (flow := self._open_now(properties)) is None:
            await self._supply.more(self._free_number())
        return flow

    def _free_number(self) -> int:
        stream = 0 if self._initiator else 1
        while stream in self._flows or stream in self._resetting or self.association.amid(stream):
            stream += 2
        return stream

    def apply(self, flow: SctpFlow, name: str, value: Any, properties: TransportProperties) -> None:
        """Make a Connection Property act."""
        if name == "conn_priority":
            self._use_scheduler()
            self._prioritise(flow)
        elif name == "conn_scheduler":
            self.properties = properties
            self._use_scheduler()
        elif name == "conn_capacity_profile":
            self.carrier.set_capacity_profile(value)
        elif name == "keep_alive_timeout":
            self.association.set_heartbeat(value)
        elif name == "conn_timeout":
            self.association.set_timeout(value)

    def _apply_all(self, flow: SctpFlow) -> None:
        for name, value in flow.properties.explicit().items():
            self.apply(flow, name, value, flow.properties)

    def _use_scheduler(self) -> None:
        if not self._interleaving or self._over:
            return
        chosen = scheduler_for(self.properties.conn_scheduler, self._flows.values())
        changed, self._scheduler = chosen != self._scheduler, chosen
        if changed:
            self.association.set_scheduler(chosen)
        if changed and chosen is options.Scheduler.PRIORITY:
            for flow in self._flows.values():
                self._prioritise(flow)

    def _prioritise(self, flow: SctpFlow) -> None:
        if self._scheduler is options.Scheduler.PRIORITY and flow.stream < self._supply.count:
            self.association.set_stream_value(flow.stream, min(int(flow.properties.conn_priority), 0xFFFF))

    def largest_unfragmented(self) -> int:
        """Bytes of a Message that fit one packet."""
        status = self.association.status() if not self._over else None
        return self.carrier.path.mtu if status is None else status.fragmentation_point

    def undelivered(self) -> int:
        """Bytes that the association has and the peer has not acknowledged."""
        return 0 if self._over else self.association.undelivered()

    def statistics(self) -> dict[str, float]:
        """What the association measures; ``rtt`` comes in whole milliseconds."""
        status = None if self._over else self.association.status()
        if status is None:
            return {}
        return {
            "rtt": status.rtt,
            "retransmission_timeout": status.rto,
            "congestion_window": float(status.congestion_window),
            "path_mtu": float(status.mtu),
            "unacknowledged": float(status.unacknowledged),
            "streams": float(len(self._flows)),
        }

    # The association's side

    def connected(self, streams_out: int, streams_in: int, interleaving: bool) -> None:
        self._supply.begin(self.association, streams_out)
        self._interleaving = interleaving
        established, self._established = self._established, None
        if established is not None:
            farewells.add(self.loop, self)
            established(None)
            self._use_scheduler()

    def data(self, stream: int, payload: bytes, unordered: bool, ppid: int, complete: bool) -> None:
        self.heard_at = self.loop.time()
        self.unasked += 1
        if self._leaving is not None:
            self._leaving.heard()
            return
        flow = self._flows.get(stream if self._interleaving else 0)
        if flow is None:
            if stream in self._resetting:
                return  # on its way while we ended the stream
            flow = self._offer(stream)
            if flow is None:
                return
        flow.take(payload, unordered, ppid, complete)

    def data_abandoned(self, stream: int) -> None:
        flow = self._flows.get(stream if self._interleaving else 0)
        if flow is not None:
            flow.give_up_arriving()

    def _offer(self, stream: int) -> SctpFlow | None:
        """The peer opened a stream: it is the business of the oldest Flow that is left."""
        parent = next((flow for flow in self._flows.values() if not flow.over and not flow.closing), None)
        flow = SctpFlow(self, stream, unbound(), self.properties)
        self._flows[stream] = flow
        if parent is not None:
            parent.observer.sibling(flow)
        if parent is None or not is_bound(flow):
            flow.abort()
            return None
        return flow

    def send_failed(self, context: int, error: int) -> None:
        self._lifetimes.expired(context)

    def dry(self) -> None:
        self._lifetimes.dry()
        if self._leaving is not None:
            self._leaving.dry()

    def stream_reset(self, incoming: tuple[int, ...], outgoing: tuple[int, ...]) -> None:
        everything = tuple({*self._flows, *self._resetting})
        for stream in everything if incoming == (-1,) else incoming:
            flow = self._flows.get(stream)
            if flow is not None:
                flow.peer_finished()
            elif self._resetting.get(stream, False) is None:
                del self._resetting[stream]  # ended by both
        for stream in everything if outgoing == (-1,) else outgoing:
            flow = self._resetting.get(stream)
            if flow is not None and flow.closing:
                self._forget(flow)
                flow.ended(None)
            if flow is not None and flow._peer_finished:
                self._resetting.pop(stream, None)
            elif stream in self._resetting:
                self._resetting[stream] = None
        if outgoing:
            self._reset_now()
        if not self._flows:
            self._leave()

    def stream_reset_failed(self, denied: bool) -> None:
        self.stream_reset((), tuple(stream for stream, flow in self._resetting.items() if flow is not None))

    def streams_added(self, streams_in: int, streams_out: int) -> None:
        self._supply.added(streams_out)
        if self._writers:
            self.writable()

    def streams_denied(self) -> None:
        self._supply.denied()

    def writable(self) -> None:
        for flow in in_turn(self._writers):
            del self._writers[flow]
            if flow.over and not flow.unsent:
                continue
            if not flow.write_on():
                self._writers[flow] = None
                return  # full again
            if flow.closing and not flow.over:
                self.close_stream(flow)

    def peer_shutdown(self) -> None:
        for flow in list(self._flows.values()):
            flow.peer_finished()

    def path_changed(self, reachable: bool) -> None:
        for flow in list(self._flows.values()):
            if not flow.over:
                flow.observer.path_changed()

    def closed(self, error: OSError | None, reason: bytes) -> None:
        established, self._established = self._established, None
        self._end()
        flows, self._flows = list(self._flows.values()), {}
        self._resetting.clear()
        if self._leaving is not None and self._leaving.delivered:
            error = None
        self._leaving = None
        if error is None:
            self.carrier.linger()  # the peer may have missed the last packet
        else:
            self.carrier.close()
        if established is not None:
            established(error or ConnectionRefusedError("the peer closed the association"))
            return
        broken = None if error is None else _broken(error, reason)
        for flow in flows:
            if error is None:
                flow.peer_finished()
            flow.ended(broken)

    def _forget(self, flow: SctpFlow) -> None:
        if self._flows.get(flow.stream) is flow:
            del self._flows[flow.stream]
        self._writers.pop(flow, None)


def _broken(error: OSError, reason: bytes) -> ConnectionError:
    if isinstance(error, ConnectionResetError):
        text, why = "the peer aborted the association", Reason.CONNECTION_ABORTED
    elif isinstance(error, TimeoutError | ConnectionAbortedError):
        text, why = "the peer does not answer any more", Reason.TIMEOUT
    else:
        text, why = f"the association broke: {error}", Reason.PROTOCOL_FAILED
    if reason:
        text = f"{text}: {reason.decode('utf-8', 'replace')}"
    result = ConnectionError(text, why)
    result.__cause__ = error
    return result
