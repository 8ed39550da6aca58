"""One QUIC connection: the engine driven by datagrams, timers and Flows.

What comes is given to the engine, what the engine makes of it goes to the Flows, and then everything that there is to
send leaves at once. The clock is ``time.monotonic``: the loop's own may be too coarse for pacing. This room knows the
engine's adapter, not the engine, and nothing of how connections begin.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import time
from typing import TYPE_CHECKING, Any

from neatpy.enumerations import Preference
from neatpy.errors import ConnectionError, EstablishmentError, PropertyError, Reason
from neatpy.security import TrustVerification
from neatpy.stacks._farewell import farewells
from neatpy.stacks._quic.carried import ABORTED, NO_ERROR, UNBOUND, CarriedFlow
from neatpy.stacks._quic.carrying import HANDSHAKE, HELD, OPEN, OVER, Carrier
from neatpy.stacks._quic.endings import (
    callback_failed,
    connection_error,
    ended_well,
    error_of,
    establishment_error,
)
from neatpy.stacks._quic.flow import QuicFlow, sibling_flow
from neatpy.stacks._quic.patience import Patience
from neatpy.stacks._quic.settings import IDLE_TIMEOUT, most_streams
from neatpy.stacks._tls.handshake import refused
from neatpy.system.turns import turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.properties import TransportProperties
    from neatpy.stacks._quic.engine import Closing, Engine
    from neatpy.stacks._quic.settings import QuicSettings
    from neatpy.stacks.quic import QuicStack

ANSWERING = 1.0
"""Seconds for which a connection that was closed still says so to a peer that has missed it."""

BAD_CERTIFICATE = 42
_HELD_UP = 1.0
"""Seconds after which a peer that gives no credit hears of us."""

_QUIET = 0.4
"""The part of the idle timeout after which the peer is asked whether it is there."""


class QuicTransport(Carrier):
    """The connection that carries Flows. ``outcome`` is called once, when the handshake (callbacks included) has
    succeeded or failed; one that failed has ended itself. ``retired`` is called when nothing is left of it."""

    __slots__ = (
        "__weakref__",
        "_answering",
        "_deadline",
        "_draining",
        "_goodbye",
        "_held_task",
        "_held_up",
        "_in_turn",
        "_keep_alive_after",
        "_outcome",
        "_retired",
        "_scheduled",
        "_settings",
        "_timer",
        "_timer_at",
        "_turn",
        "early",
        "handshaken",
        "patience",
        "server_name",
    )

    def __init__(
        self,
        stack: QuicStack,
        settings: QuicSettings,
        engine: Engine,
        properties: TransportProperties,
        loop: asyncio.AbstractEventLoop,
        *,
        server_name: str | None,
        outcome: Callable[[QuicTransport, BaseException | None], None],
        retired: Callable[[QuicTransport], None] | None = None,
    ) -> None:
        super().__init__(stack, engine, properties, loop)
        self.server_name = server_name
        self.patience = Patience(loop)
        self.early = self.handshaken = False
        self._keep_alive_after = properties.keep_alive_timeout
        self._settings = settings
        self._outcome: Callable[[QuicTransport, BaseException | None], None] | None = outcome
        self._retired = retired
        self._turn = turns.of(loop)
        self._in_turn = self._draining = self._held_up = False
        self._scheduled: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._answering: asyncio.TimerHandle | None = None
        self._goodbye: list[tuple[bytes, Any]] | None = None
        self._held_task: asyncio.Future[bool] | None = None

    @property
    def is_client(self) -> bool:
        """Whether we have opened the connection."""
        return self.server_name is not None

    @property
    def is_new(self) -> bool:
        return self._outcome is not None

    # The network's side

    def received(self, datagram: bytes, address: Any) -> None:
        """A datagram for this connection came; ``done`` follows."""
        if self._state == OVER:
            self._say_goodbye_again(datagram)
            return
        try:
            self.engine.take(datagram, address, time.monotonic())
        except (
            Exception
        ) as error:  # whatever the peer has made of the engine, it is this connection's end only
            self._engine_broke(error)

    def done(self) -> None:
        """Nothing more comes in this wake-up: act on what came."""
        if self._state == OVER:
            return
        if self._state == HELD:
            if self.engine.closing is not None:
                self._peer_closed(self.engine.closing)
            return  # nothing of what a peer says is told before it is trusted
        turn = self._turn
        self._in_turn = turn.active = True
        try:
            self.engine.tell(self)
        finally:
            turn.active = False
        closing = self.engine.closing
        if closing is not None:
            self._peer_closed(closing)
        if turn.waking:
            turn.end()
        self._in_turn = False
        self._flush()

    def failed(self, error: OSError) -> None:
        """The network reported an error of something that was sent."""
        if self._state in (HANDSHAKE, HELD):
            if error.errno == errno.ECONNREFUSED:
                self._fail(ConnectionRefusedError(error.errno, "nobody listens on that UDP port"))
            return
        for flow in list(self.flows.values()):
            flow.soft_error(error)
            if error.errno == errno.ECONNREFUSED:
                flow.peer_left()

    # Sending

    def schedule(self) -> None:
        """Something is to be sent: it leaves at the end of this turn, together with what is added until then."""
        if self._scheduled is None and not self._in_turn and self._state != OVER:
            self._scheduled = self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        scheduled, self._scheduled = self._scheduled, None
        if scheduled is not None:
            scheduled.cancel()
        if self._state in (HELD, OVER):
            return  # what would complete the handshake for the peer is not sent before the peer is trusted
        engine = self.engine
        while True:
            if self._writers:
                self._refill()
            try:
                datagrams = engine.datagrams(time.monotonic())
            except Exception as error:
                self._engine_broke(error)
                return
            if datagrams:
                self.path.send(datagrams)
            if not self._writers or not datagrams:
                break
        self._set_timer()
        if engine.held_up is not self._held_up:
            self._review_credit()

    def wants_to_write(self, flow: CarriedFlow) -> None:
        """The engine holds enough for this Flow, which has more."""
        self._writers[flow] = None

    def _refill(self) -> None:
        """Have the Flows that wait give more to the engine."""
        for flow in list(self._writers):
            if flow.over or (flow.has_room() and flow.write_on()):
                self._writers.pop(flow, None)

    # Time

    def start_clock(self, seconds: float) -> None:
        """The handshake must be complete in so many seconds."""
        self._deadline = self.loop.call_later(seconds, self._late, seconds)

    def _late(self, seconds: float) -> None:
        self._fail(
            EstablishmentError(
                f"the peer did not complete the QUIC handshake in {seconds:g} s", Reason.TIMEOUT
            )
        )

    def _set_timer(self) -> None:
        """Be woken in time. A timer that is set too early finds out then; only one that is too late is set anew."""
        at = self.engine.wake_at()
        if at is None or self._state == OVER:
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_later(max(0.0, at - time.monotonic()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._state == OVER:
            return
        now = time.monotonic()
        at = self.engine.wake_at()
        if at is None or at > now:
            self._set_timer()
            return
        self.engine.wake(now)
        self.done()

    def _keep_alive(self) -> None:
        """While Flows are open, have the peer hear of us before it thinks us gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self.properties.keep_alive in (Preference.AVOID, Preference.PROHIBIT):
            return
        seconds = self.engine.idle_timeout * _QUIET
        if self._keep_alive_after is not None:
            seconds = min(seconds, self._keep_alive_after)
        self._deadline = self.loop.call_later(seconds, self._ping)

    def _review_credit(self) -> None:
        """We have begun to wait for the peer's credit, or no longer do (RFC 9000 section 4.1). Who waits in silence is
        not found behind a NAT that has forgotten it."""
        self._held_up = not self._held_up
        if self._held_up:
            self.patience.begin(self, _HELD_UP, self._be_heard)
        else:
            self.patience.end(self)

    def _be_heard(self) -> None:
        self._held_up = False
        if self._state == OPEN and self.engine.held_up:
            self.engine.ping()
            self._flush()

    def _ping(self) -> None:
        if self._state == OPEN:
            if any(not flow.closing for flow in self.flows.values()):
                self.engine.ping()
                self._flush()
            self._keep_alive()

    # The handshake

    def handshake_complete(self, early_data_accepted: bool, resumed: bool) -> bool:
        self.early, self.handshaken = early_data_accepted, True
        if resumed or not self._judges:
            self._open()
        else:
            self._judge()
        return self._state == OPEN

    def _judge(self) -> None:
        chain = self.engine.peer_chain()
        trust_in = self._settings.trust
        failure = trust_in.verdict(chain, self.server_name)
        callback = self._settings.security.trust_verification_callback
        if callback is None or (not chain and trust_in.demands):
            self._judged(failure is None, None if failure is None else str(failure))
            return
        trust = TrustVerification(self.server_name, chain, None if failure is None else str(failure))
        try:
            answer = callback(trust)
        except Exception as error:
            self._refuse(callback_failed(error))
            return
        if not inspect.isawaitable(answer):
            self._judged(answer is True, None)
            return
        self._state = HELD
        self._held_task = asyncio.ensure_future(answer)
        self._held_task.add_done_callback(self._answered)

    @property
    def _judges(self) -> bool:
        return self._settings.trust.judges

    def _answered(self, task: asyncio.Future[bool]) -> None:
        if self._state != HELD:
            return
        self._held_task = None
        self._state = HANDSHAKE
        if task.cancelled():
            self._refuse(refused("the trust verification callback was cancelled"))
        elif (error := task.exception()) is not None:
            self._refuse(callback_failed(error))
        else:
            self._judged(task.result() is True, None)
        self.done()

    def _judged(self, trusted: bool, text: str | None) -> None:
        if trusted:
            self._open()
        else:
            self._refuse(refused(text or "the trust verification callback does not trust the peer"))

    def _refuse(self, error: BaseException) -> None:
        self.engine.refuse(BAD_CERTIFICATE, "the certificate is not trusted")
        self._fail(error)

    def _open(self) -> None:
        self._state = OPEN
        self.engine.try_mtu(self.path.mtu())
        self._keep_alive()
        farewells.add(self.loop, self)
        self._tell_outcome(None)
        for flow in list(self.flows.values()):
            flow.opened()

    def _tell_outcome(self, error: BaseException | None) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome(self, error)

    def _fail(self, error: BaseException) -> None:
        """The handshake came to nothing."""
        if self._state == OVER:
            return
        if self.engine.closing is None:
            self.engine.end(ABORTED)
        flows = list(self.flows.values())
        self._close_down()
        self._tell_outcome(error)
        for flow in flows:
            flow.ended(connection_error(error))

    # Ending

    def end(self, code: int) -> None:
        """Close the connection now; what was not delivered is lost."""
        if self._state == OVER:
            return
        self.engine.end(code, "" if code == NO_ERROR else "aborted")
        self._close_down()

    def say_goodbye(self) -> None:
        """The loop ends, and with it all that was not closed."""
        self.end(NO_ERROR if all(flow.closing or flow.over for flow in self.flows.values()) else ABORTED)

    def leave(self, flow: CarriedFlow) -> None:
        """This Flow has ended well, though the peer does not say so: the connection too if it was the last."""
        self.forget(flow)
        self.schedule()

    def _close_down(self) -> None:
        """Say goodbye if we are the ones who end it, and answer for a while."""
        was_held = self._state == HELD
        self._state = OVER
        farewells.discard(self.loop, self)
        if self._held_task is not None:
            self._held_task.cancel()
            self._held_task = None
        if was_held and self.engine.closing is None:
            self.engine.refuse(BAD_CERTIFICATE, "")
        datagrams = self.engine.datagrams(time.monotonic())
        if datagrams:
            self._goodbye = datagrams
            self.path.send(datagrams)
            self.path.linger()
        self._stop_timers()
        self._answering = self.loop.call_later(ANSWERING, self.retire)
        if not datagrams:
            self.retire()

    def _stop_timers(self) -> None:
        for handle in (self._timer, self._deadline, self._scheduled):
            if handle is not None:
                handle.cancel()
        self._scheduled = None
        self.patience.stop()

    def _say_goodbye_again(self, datagram: bytes) -> None:
        """The peer has not heard that it is over. Once for each burst is enough."""
        if self.engine.is_reset(datagram):
            self.retire()  # the peer does not need to hear it
            return
        goodbye, self._goodbye = self._goodbye, None
        if goodbye is not None:
            self.path.send(goodbye)
            self.loop.call_later(ANSWERING / 10, self._allow_goodbye, goodbye)

    def _allow_goodbye(self, goodbye: list[tuple[bytes, Any]]) -> None:
        self._goodbye = goodbye

    def retire(self) -> None:
        """Give everything back. Idempotent."""
        if self._answering is not None:
            self._answering.cancel()
        retired, self._retired = self._retired, None
        self.engine.end_log()
        self.path.close()
        if retired is not None:
            retired(self)

    def _engine_broke(self, cause: Exception) -> None:
        """The engine raised what it never should; nothing can be said to the peer any more."""
        if self._state == OVER:
            return
        error = ConnectionError(f"the QUIC engine failed: {cause!r}", Reason.PROTOCOL_FAILED)
        error.__cause__ = cause
        was_open = self._state == OPEN
        self._state = OVER
        self._stop_timers()
        flows = list(self.flows.values())
        self.forget_all()
        self.retire()
        if not was_open:
            self._tell_outcome(refused(str(error), cause))
        for flow in flows:
            flow.ended(error)

    def _peer_closed(self, closing: Closing) -> None:
        if self._state == OVER:
            return
        if self._state in (HANDSHAKE, HELD):
            self._fail(establishment_error(closing, self._settings.alpn))
            return
        error = error_of(closing)
        flows = list(self.flows.values())
        self.forget_all()
        self._close_down()
        for flow in flows:
            flow.connection_closed(error)

    # What Flows ask

    def make(self, kind: type[QuicFlow], stream: int) -> QuicFlow:
        return kind(self, stream, UNBOUND, self.properties)

    def open(self, properties: TransportProperties) -> QuicFlow:
        """A Flow on a new stream. Raises CloneError."""
        return sibling_flow(self, properties)

    def apply(self, stream: int, name: str, value: Any) -> None:
        """Make a Connection Property act."""
        if name == "conn_priority":
            self.prioritise(stream, value)
        elif name == "conn_scheduler":
            self.order.use(value)
            self._use_order()
        elif name == "conn_capacity_profile":
            self.path.set_capacity_profile(value)
        elif name == "conn_timeout":
            self.engine.use_idle_timeout(IDLE_TIMEOUT if value is None else value, time.monotonic())
            self._keep_alive()
            self._set_timer()
        elif name == "keep_alive_timeout":
            self._keep_alive_after = value
            self._keep_alive()
        elif name == "group_conn_limit":
            self.engine.raise_streams(most_streams(value, to_clients=not self.is_client))

    def change_paths(self, action: str, endpoint: LocalEndpoint | RemoteEndpoint) -> None:
        """See :meth:`Flow.change_paths`."""
        raise PropertyError(f"only the client's side of a QUIC connection can move: no {action}")

    @property
    def closed_well(self) -> bool:
        """Whether the connection was closed without an error, in the words of its application."""
        closing = self.engine.closing
        return closing is not None and ended_well(closing, self.engine.alpn())

    def statistics(self) -> dict[str, float]:
        """What the connection measures."""
        return {**self.engine.statistics(), "streams": float(len(self.flows))}

    def security(self) -> dict[str, object]:
        """What was negotiated."""
        chain = self.engine.peer_chain()
        return {
            "protocol": "QUIC",
            "ciphersuite": self.engine.ciphersuite(),
            "alpn": self.engine.alpn(),
            "peer_certificate": chain[0] if chain else None,
            "resumed": self.engine.resumed,
            "early_data_accepted": self.early,
        }
