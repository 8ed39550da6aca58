"""The data path of one Connection: Messages down to its Flow and up from it.

Sends go straight to the Flow when nothing stands in the way (the hot path, kept short) and through the
:class:`~neatpy.send_queue.SendQueue` otherwise: before Ready, while the Flow is blocked, inside a batch, behind a
partial send. What became of them is told by :class:`~neatpy.answers.SendAnswers`. What arrives goes to the
:class:`~neatpy.receiving.ReceiveQueue`. The room knows neither protocols nor the life of the Connection, which it tells
of ends through its ``owner``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neatpy.answers import NOBODY, SendAnswers, caused
from neatpy.enumerations import Direction, Preference
from neatpy.errors import (
    CloneError,
    ConnectionError,
    EstablishmentError,
    Reason,
    ReceiveError,
    SendError,
    TransportServicesError,
)
from neatpy.hook import hook
from neatpy.message import MessageContext, last_context
from neatpy.sending import (
    OWN_REFERENCES,
    SendFuture,
    bytes_like,
    check_context,
    contradiction,
    getrefcount,
)
from neatpy.stacks.contract import Data, Flow

if TYPE_CHECKING:
    from neatpy.answers import Owner
    from neatpy.group_sending import Turns
    from neatpy.intent import Intent
    from neatpy.outgoing import Outgoing

# ruff: noqa: D102 - the contract documents the methods of a FlowObserver

_SEND_ONLY, _RECEIVE_ONLY = Direction.UNIDIRECTIONAL_SEND, Direction.UNIDIRECTIONAL_RECEIVE

_NO_PROPERTIES: Mapping[str, Any] = {}

_UNDELIVERED = 64 * 1024
"""Bytes that are read of a Connection that waits for the application to take it."""

_ENDED_WELL = ConnectionError("the connection is closed", Reason.CONNECTION_CLOSED)
"""Why what comes after a good end fails; never raised itself."""


class DataPath(SendAnswers):
    """Sending and receiving on one Connection. Its receiving half is the queue that it is."""

    __slots__ = (
        "_context",
        "_defaults",
        "_defaults_refused",
        "_direct",
        "_direction",
        "_final_accepted",
        "_outgoing",
        "_over",
        "_properties",
        "_receipt",
        "_token",
        "batches",
        "draining",
        "final_sent",
        "flow",
        "peer_finished",
        "together",
    )

    flow: Flow | None

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, intent: Intent) -> None:
        SendAnswers.__init__(self, owner, loop, intent.receive_limit)
        self.flow = None
        self._direct: Flow | None = None
        self._outgoing: Outgoing | None = None
        self.batches = 0
        self.together: list[tuple[bytes, SendFuture]] | None = None
        self._token: SendFuture | None = None
        self._receipt: asyncio.Future[MessageContext] | None = None
        self._context: MessageContext | None = None
        self._final_accepted = self.final_sent = self.draining = False
        self.peer_finished = self._defaults_refused = False
        self._over: TransportServicesError | None = None
        self.use(intent)

    def use(self, intent: Intent) -> None:
        """Message defaults and the receive limit from now on."""
        self._properties = intent.properties
        self._direction = intent.direction
        if self._direction is _SEND_ONLY:
            self._deaf = True
            self.end_receiving(_only_sends)
        self._limit = intent.receive_limit
        self._defaults = intent.message_defaults
        self._ahead = intent.receive_limit
        if self.flow is not None:
            self.read_ahead()
            self._review_defaults(self.flow)
        if self._waiters and self._arrived:
            self._loop.call_soon(self.wake)  # what is there may do under a lower limit

    def bind(self, flow: Flow) -> None:
        """The Connection is established: what waits goes out over this Flow."""
        self.flow = flow
        ahead = flow.reads_ahead
        if ahead < self._limit:
            self._ahead = ahead
        if self._outgoing is not None:
            self._outgoing.refuse(flow)
        self._review_defaults(flow)

    def _review_defaults(self, flow: Flow) -> None:
        """Whether each Message has to be looked at since the defaults are not for this Flow."""
        defaults = self._defaults
        self._defaults_refused = defaults is not None and contradiction(flow, defaults) is not None
        if self._outgoing is None and self.together is None and not (self.draining or self.batches):
            self._direct = flow if self.can_send and not self._defaults_refused else None
        else:
            self.flush()

    def read_little(self) -> None:
        """Nobody has the Connection yet: what comes waits with the peer, but for its first bytes."""
        self._ahead = min(self._ahead, _UNDELIVERED)

    def read_ahead(self) -> None:
        """As much may wait here from now on as the Flow likes."""
        self._ahead = self._limit if self.flow is None else min(self._limit, self.flow.reads_ahead)
        if self._paused:
            self._perhaps_resume()

    # What the application asks

    @property
    def can_send(self) -> bool:
        """Whether a send would be accepted, as far as the sending direction goes."""
        return not (
            self._final_accepted
            or self.draining
            or self._over
            or self._direction is _RECEIVE_ONLY
            or (self.flow is not None and not self.flow.can_send)
        )

    @property
    def can_receive(self) -> bool:
        """Whether more may come."""
        return not (self.peer_finished or self.draining or self._over or self._direction is _SEND_ONLY)

    def send_plain(self, data: bytes) -> asyncio.Future[MessageContext]:
        """Send a whole Message, not empty, without properties of its own: the quick way."""
        flow = self._direct
        if flow is None or not flow.writable:
            if self.together is not None:
                future = SendFuture(loop=self._loop)
                future.context, future.size, future.end_of_message = MessageContext(), len(data), True
                self.together.append((data, future))
                return future
            return self.send(data, None, True, _NO_PROPERTIES)
        # Most programs drop the future of a send. One that nobody has kept, with a context that nobody has kept or
        # changed, answers the next send as well; so does a token that the Flow had no use for.
        context = self._context
        if (
            context is None
            or getrefcount(context) + getrefcount(self._receipt) > OWN_REFERENCES
            or context._values is not None
            or context._metadata is not None
        ):
            context = MessageContext() if self._defaults is None else self._defaults.copy()
            self._context = context
            self._receipt = None
        token = self._token
        if token is None:
            token = self._token = SendFuture(loop=self._loop)
        try:
            taken = flow.send(data, context, True, token)
        except SendError as error:
            self._take_token(context, data)
            self.failed(token, error)
            return token
        if taken and self.messages_sent < self._loops_after:
            self.messages_sent += 1
            self.bytes_sent += len(data)
            if hook.active:
                hook.emit(hook.events.MessageSent(self._owner, size=len(data)))
            receipt = self._receipt
            if receipt is None:
                receipt = self._receipt = self._loop.create_future()
                receipt.set_result(context)
            return receipt
        self._take_token(context, data)
        if taken:
            self.complete(token)
        else:
            self.await_taking(token)
            if not flow.writable:
                self._direct = None
        return token

    def _take_token(self, context: MessageContext, data: bytes) -> None:
        """The token is the answer to its own send after all."""
        token = self._token
        assert token is not None
        token.context, token.size, token.end_of_message = context, len(data), True
        self._token = self._context = self._receipt = None

    def start_batch(self) -> None:
        """Hold sends back until ``end_batch``, at the latest until the end of this turn of the loop."""
        if self.batches == 0:
            self._loop.call_soon(self._end_batches)
            # As long as only plain Messages are sent nothing has to be sorted: they leave in one piece.
            if self._direct is not None and self._direct.coalesces and self._defaults is None:
                self.together = []
        self.batches += 1
        self._direct = None

    def end_batch(self) -> None:
        """Let what was held back go, coalesced."""
        if self.batches:
            self.batches -= 1
            if not self.batches:
                self.flush()

    # Ending

    def drain(self) -> None:
        """No more sends and receives; what waits to be sent is delivered, then the Flow closes."""
        self.draining = self._deaf = True
        if self._arrived is not None or self._open is not None:
            self.discard_arrived()
        self.end_receiving(_closed_here)
        if self._paused:
            self._perhaps_resume()
        self.batches = 0
        if self._outgoing is not None or self.together is not None or self.flow is None:
            self.flush()
        elif self._over is None:
            self._direct = None
            self.flow.close()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be sent."""
        return self._outgoing is not None and bool(self._outgoing.queue)

    @property
    def undelivered(self) -> tuple[int, int]:
        """A measure of what is not delivered yet: as long as it changes, there is progress."""
        return self.bytes_sent, 0 if self.flow is None else self.flow.backlog()

    def end(self, why: TransportServicesError | None, *, discard: bool = False) -> None:
        """The Connection is over, well if there is no reason: everything that waits fails, in order."""
        self._over = error = why or _ENDED_WELL
        self._deaf = True
        self._direct = None
        outgoing = self._outgoing
        if outgoing is not None:
            outgoing.end()
        if self._in_flight is not None:
            in_flight, self._in_flight = self._in_flight, None
            for token in in_flight:
                self.failed(token, SendError(str(error), error.reason))
        self.batches = 0
        together, self.together = self.together, None
        for _, token in together or ():
            self.failed(token, SendError(str(error), error.reason, token.context))
        if outgoing is not None:
            for part in outgoing.queue.clear():
                self.failed(part.token, SendError(str(error), error.reason, part.token.context))
            self._outgoing = None
        if discard:
            self.discard_arrived()
        self.end_receiving(DataPath._is_over)
        if not hook.active:  # who traces hears of what is sent in vain, too
            self._owner = self._origin = NOBODY

    def _is_over(self) -> BaseException:
        error = self._over
        assert error is not None
        return caused(ReceiveError(str(error), error.reason, self.partial_context), error)

    # Sending

    def send(
        self,
        data: Data,
        context: MessageContext | None,
        end_of_message: bool,
        message_properties: Mapping[str, Any],
    ) -> asyncio.Future[MessageContext]:
        """Send a Message or part of one; see ``Connection.send``."""
        if type(data) is not bytes:
            data = bytes_like(data)
        size = len(data)
        check_context(context)
        given = _context_with(message_properties) if context is None else context
        future = SendFuture(loop=self._loop)
        future.context, future.size, future.end_of_message = given, size, end_of_message
        outgoing = self._outgoing
        plain = context is None and not message_properties and end_of_message
        if plain and not size and self._direct is not None and not self._direct.preserves_boundaries:
            self.complete(future)  # nothing on a raw stream
            return future
        if outgoing is not None and outgoing.queue.was_given_up(given):
            if end_of_message:
                outgoing.queue.end_given_up(given)
            self.expired(future)
            return future
        direct = self._direct  # if there is one, then nothing waits, is begun or has ended
        properties = given
        try:
            if context is not None or self._defaults is not None:
                properties = self._effective(context, given, message_properties)
            if direct is None or not end_of_message:
                self._check(future, partial_without_context=context is None and not end_of_message)
            explicit = properties._values
            if explicit and not _MAY_CONTRADICT.isdisjoint(explicit):
                self._check_against_connection(properties, given)
        except SendError as error:
            self.failed(future, error)
            return future
        final = end_of_message and explicit is not None and explicit.get("final") is True
        if final:
            self._final_accepted = True
        flow = self.flow if direct is None else direct
        if (
            end_of_message
            and flow is not None
            and flow.writable
            and (direct is not None or self._nothing_stands_before)
        ):
            if not size and not final and not flow.preserves_boundaries:
                self.complete(future)  # nothing on a raw stream
            else:
                self.transmit(flow, data, properties, future, final=final)
        else:
            self._direct = None
            self.outgoing.hold(data if type(data) is bytes else bytes(data), properties, future)
            self.flush()
        return future

    @property
    def _nothing_stands_before(self) -> bool:
        """Whether a whole Message may leave at once."""
        return not self.batches and (self._outgoing is None or not self._outgoing.stands_before)

    def _effective(
        self, context: MessageContext | None, given: MessageContext, overrides: Mapping[str, Any]
    ) -> MessageContext:
        """The Message Properties that act: the Connection's defaults, the context's, those of this call; a copy, so
        that a later change of the context has no effect on this Message."""
        if self._defaults is None:
            properties = given.copy()
        else:
            properties = self._defaults.copy()
            properties.update(given)
        if context is not None:
            for name, value in overrides.items():
                properties.set(name, value)
        return properties

    def _check(self, token: SendFuture, *, partial_without_context: bool) -> None:
        """Refuse what cannot be sent, with the reason (RFC 9622 sections 9.1.3 and 9.2.2.3)."""
        context = token.context
        if self._over is not None:
            over = self._over
            plainly = over.reason is Reason.CONNECTION_CLOSED
            text = str(over) if plainly else f"the connection is closed: {over}"
            raise SendError(text, over.reason, context)
        if self.draining:
            raise SendError("the connection is closing", Reason.CONNECTION_CLOSED, context)
        if self._direction is _RECEIVE_ONLY:
            raise SendError("the connection only receives", Reason.INVALID_CONFIGURATION, context)
        outgoing = self._outgoing
        if self._final_accepted and not (
            outgoing is not None and outgoing.queue.belongs_to_open_message(context)
        ):
            raise SendError("a Final Message has been sent before", Reason.CONNECTION_CLOSED, context)
        if partial_without_context:
            raise SendError(
                "a partial send needs a MessageContext, which says to which Message it belongs",
                Reason.INVALID_MESSAGE_PROPERTIES,
                context,
            )

    def _check_against_connection(self, properties: MessageContext, context: MessageContext) -> None:
        reliable = (properties._values or {}).get("msg_reliable")
        if reliable is not None and self._properties.per_msg_reliability not in _WANTED:
            inherited = self._properties.reliability in _WANTED
            if reliable is not inherited:
                raise SendError(
                    f"msg_reliable={reliable} needs a connection with per_msg_reliability preferred or required",
                    Reason.INVALID_MESSAGE_PROPERTIES,
                    context,
                )
        refused = None if self.flow is None else contradiction(self.flow, properties)
        if refused is not None:
            raise SendError(refused, Reason.INVALID_MESSAGE_PROPERTIES, context)

    def send_first(self, data: Data, context: MessageContext | None) -> asyncio.Future[MessageContext]:
        """Send the Message that the Connection is established with: it goes first."""
        future = self.send(data, context, True, _NO_PROPERTIES)
        if self._outgoing is not None:
            self._outgoing.queue.put_first()
        return future

    @property
    def outgoing(self) -> Outgoing:
        """What waits to be sent, made when something has to."""
        outgoing = self._outgoing
        if outgoing is None:
            from neatpy.outgoing import Outgoing

            outgoing = self._outgoing = Outgoing(self, self._loop)
        return outgoing

    def flush(self) -> None:
        """Send what waits, as far as the Flow takes it, and find out whether sends may go straight from now on."""
        flow = self.flow
        if flow is None or self.batches or self._over is not None:
            return
        outgoing = self._outgoing if self.together is None else self.outgoing
        straight = outgoing is None or outgoing.flush(flow)
        self._direct = flow if straight and self.can_send and not self._defaults_refused else None
        self.close_if_drained()

    def close_if_drained(self) -> None:
        """Everything has left that was to be sent before the end."""
        if self.draining and not self.has_unsent and self._over is None and self.flow is not None:
            self.flow.close()

    def take_turns(self, turns: Turns | None) -> int:
        """From now on Messages leave when it is our turn, or (None) at once again; how many parts wait."""
        outgoing = self._outgoing if turns is None else self.outgoing
        if outgoing is None or turns is outgoing.turns:
            return 0
        outgoing.turns = turns
        if turns is None:
            if self._over is None:
                self.flush()
            return 0
        if self.together is not None:
            outgoing.take_apart()
        self._direct = None
        return len(outgoing.queue)

    def transmit(
        self,
        flow: Flow,
        data: Data,
        properties: MessageContext,
        token: SendFuture,
        *,
        final: bool,
        corked: bool = False,
    ) -> bool:
        """Give a part of a Message to the Flow; False if it was refused."""
        try:
            if final and not corked:
                taken = flow.send_last(data, properties, token)
            else:
                taken = flow.send(data, properties, token.end_of_message, token)
        except SendError as error:
            self.will_not_leave(final)
            self.failed(token, error)
            return False
        if taken:
            self.complete(token)
        else:
            self.await_taking(token)
        if final:
            self.final_sent = True
            self._direct = None
        return True

    def will_not_leave(self, final: bool) -> None:
        """What was accepted was refused, or has expired: if it was the last Message, another one can be."""
        if final:
            self._final_accepted = False

    def _end_batches(self) -> None:
        if self.batches:
            self.batches = 0
            self.flush()

    # Receiving

    def _end_of_iteration(self, error: BaseException) -> BaseException:
        if isinstance(error, ReceiveError) and error.reason is Reason.CONNECTION_CLOSED:
            return StopAsyncIteration()
        over = self._over
        if isinstance(over, EstablishmentError | CloneError | ConnectionError) and over is not _ENDED_WELL:
            return over
        reason = error.reason if isinstance(error, ReceiveError) else Reason.PROTOCOL_FAILED
        return caused(ConnectionError(str(error), reason), error)

    def _pause(self) -> None:
        if self.flow is not None:
            self.flow.pause_receiving()

    def _resume(self) -> None:
        if self.flow is not None:
            self.flow.resume_receiving()

    def _trace_arrival(self, size: int, end_of_message: bool) -> None:
        hook.emit(hook.events.DataReceived(self._owner, size=size, end_of_message=end_of_message))

    # What the Flow tells

    def writable(self) -> None:
        self.flush()

    def sibling(self, flow: Flow) -> None:
        self._owner.flow_sibling(flow)

    def soft_error(self, error: TransportServicesError) -> None:
        self._owner.flow_soft_error(error)

    def path_changed(self) -> None:
        self._owner.flow_path_changed()

    def finished(self) -> None:
        if hook.active:
            hook.emit(hook.events.PeerFinished(self._owner))
        flow = self.flow
        self.peer_finished = True
        if self._over is None:
            self.finish_receiving(as_end_of_message=flow is not None and not flow.preserves_boundaries)

    def finished_with(self, data: bytes, context: MessageContext | None) -> None:
        flow = self.flow
        if flow is None or flow.preserves_boundaries or self._over is not None:
            self.received(data, context, False)
            self.finished()
            return
        self.peer_finished = True
        self.received_last(data, context)
        if hook.active:
            hook.emit(hook.events.PeerFinished(self._owner))

    def closed(self, error: TransportServicesError | None) -> None:
        self._owner.flow_closed(error)


_WANTED = (Preference.REQUIRE, Preference.PREFER)
_MAY_CONTRADICT = frozenset({"msg_reliable", "msg_ordered", "safely_replayable"})


def _context_with(properties: Mapping[str, Any]) -> MessageContext:
    if properties.get("final") is True and len(properties) == 1:
        return last_context()
    return MessageContext(**properties)


def _only_sends(_: DataPath) -> ReceiveError:
    return ReceiveError("the connection only sends", Reason.INVALID_CONFIGURATION)


def _closed_here(_: DataPath) -> ReceiveError:
    return ReceiveError("the connection was closed here", Reason.CONNECTION_CLOSED)
