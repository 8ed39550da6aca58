"""DTLS as a Flow that observes a Flow of datagrams: each Message is one record in one datagram.

The handshake is TLS's, in :mod:`~neatpy.stacks._tls.handshake`, with timers for what the network loses. This room
knows the contract of stacks and asks the engine for everything that is cryptography.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from neatpy.errors import ConnectionError, EstablishmentError, Reason, SendError, TransportServicesError
from neatpy.message import MessageContext
from neatpy.stacks._dtls.records import HEADER, LARGEST, REFUSAL, is_client_hello, is_single, packed
from neatpy.stacks._tls.engine import TlsFailure
from neatpy.stacks._tls.handshake import HANDSHAKE, HELD, NOBODY, OPEN, OVER, Outcome, SecureFlow, refused
from neatpy.stacks.contract import Data, Flow, FlowObserver

if TYPE_CHECKING:
    from neatpy.security import SecurityParameters
    from neatpy.stacks._dtls.engine import DtlsEngine
    from neatpy.stacks.contract import Stack

LINGER = 5.0
"""Seconds that ``close`` waits for the kernel to take what was sent."""

HANDSHAKE_TIME = 60.0
"""Seconds after which a client gives up on its handshake: its flights have then been sent six times."""

SMALL_MTU = 548
"""Bytes of a datagram that every path carries, used when larger ones seem to get lost (RFC 6347 section 4.1.1.1)."""

_UNANSWERED = 2
_OURS = object()


class DtlsFlow(SecureFlow):
    """One DTLS association. ``soft_errors`` says whether the observer wants to hear of them, ``fragments`` whether a
    Message that does not fit one datagram of the path is sent all the same, and not refused, for an observer that then
    wants to hear of the path's MTU.

    ``begins_anew`` is called when the peer says hello once more; while a ``successor`` shakes hands it hears what this
    one hears, since only their keys can tell whose a datagram is."""

    __slots__ = (
        "_closing",
        "_context",
        "_deadline",
        "_finishing",
        "_goodbye_said",
        "_largest",
        "_linger",
        "_mtu",
        "_parts",
        "_peer_finished",
        "_size_of_parts",
        "_soft_errors",
        "_timeouts",
        "_timer",
        "_unsent",
        "begins_anew",
        "fragments",
        "successor",
        "writable",
    )

    preserves_boundaries = True
    _engine: DtlsEngine

    def __init__(
        self,
        stack: Stack,
        security: SecurityParameters,
        engine: DtlsEngine,
        observer: FlowObserver,
        outcome: Outcome[DtlsFlow],
        soft_errors: bool,
    ) -> None:
        super().__init__(stack, security, engine, observer, outcome)
        self.writable = True
        self.fragments = False
        self.begins_anew: Callable[[DtlsFlow, bytes], None] | None = None
        self.successor: DtlsFlow | None = None
        self._soft_errors = soft_errors
        self._context = MessageContext()
        self._mtu = self._largest = self._size_of_parts = self._timeouts = 0
        self._closing = self._finishing = self._goodbye_said = self._peer_finished = False
        self._parts: list[bytes] | None = None
        self._unsent: deque[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def start(self, lower: Flow) -> None:
        """Begin the handshake over this Flow of datagrams, whose observer is a :class:`Below` of this one."""
        self._lower = lower
        self._use_mtu(self._path_mtu())
        if self._engine.server_name is not None:
            self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_TIME, self._late)
        self._shake()

    @property
    def in_handshake(self) -> bool:
        """Whether it has neither succeeded nor failed."""
        return self._state in (HANDSHAKE, HELD)

    def read(self, name: str) -> object:
        if name in ("send_msg_max_len", "singular_transmission_msg_max_len"):
            if self._state == OPEN:
                self._measure()
            return self._largest
        return LARGEST if name == "recv_msg_max_len" else None

    def backlog(self) -> int:
        return self.lower.backlog()

    # Sending

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        if self._parts is not None or not end_of_message:
            whole = self._assembled(data, context, end_of_message)
            if whole is None:
                return True
            data = whole
        size = len(data)
        if size > self._largest:
            self._measure()
            if size > (LARGEST if self.fragments else self._largest):
                raise self._too_large(size, context)
        if not size:
            if context.final:
                return True  # the close_notify that follows says it
            raise SendError("DTLS here has no empty Messages", Reason.PROTOCOL_FAILED, context)
        try:
            record = self._engine.seal(data)
        except TlsFailure as failure:
            asyncio.get_running_loop().call_soon(self._break, failure)
            return False
        lower = self._lower
        assert lower is not None
        try:
            return lower.send(record, context, True, token)
        finally:
            self.writable = lower.writable

    def _assembled(self, data: Data, context: MessageContext, end_of_message: bool) -> bytes | None:
        """The whole Message once its last part has come: one record cannot leave in parts."""
        if self._parts is None:
            self._parts, self._size_of_parts = [], 0
        self._size_of_parts += len(data)
        size = self._size_of_parts
        if size > self._largest:
            self._measure()
        fits = size <= self._largest
        parts = self._parts
        if fits:
            parts.append(bytes(data))
        else:
            parts.clear()  # and every later part is refused too
        if end_of_message:
            self._parts = None
        if not fits:
            raise self._too_large(size, context)
        return b"".join(parts) if end_of_message else None

    def _too_large(self, size: int, context: MessageContext) -> SendError:
        text = f"{size} bytes do not fit one DTLS record on this path, which takes at most {self._largest}"
        return SendError(text, Reason.MESSAGE_TOO_LARGE, context)

    # What a datagram carries

    def _path_mtu(self) -> int:
        mtu = self.lower.read("singular_transmission_msg_max_len")
        return mtu if isinstance(mtu, int) else SMALL_MTU

    def _use_mtu(self, mtu: int) -> None:
        self._mtu = mtu
        self._engine.set_mtu(mtu)

    def _measure(self) -> None:
        """The path's MTU may have changed."""
        mtu = self._path_mtu()
        if mtu != self._mtu or not self._largest:
            self._use_mtu(mtu)
            self._largest = self._engine.largest()

    # Receiving

    def pause_receiving(self) -> None:
        self.lower.pause_receiving()

    def resume_receiving(self) -> None:
        self.lower.resume_receiving()

    def _take(self, datagram: bytes, context: MessageContext | None) -> None:
        """Decrypt a datagram and hand on what it holds; whatever is forged, replayed or garbled is dropped."""
        engine = self._engine
        engine.feed(datagram)
        size = max(len(datagram), HEADER)
        message = engine.unseal(size)
        if message is None:
            self._heed()
        elif is_single(datagram):
            self._deliver(message, context)
        else:
            self._deliver(message, context)
            self._read_rest(size, context)

    def _another_handshake(self, datagram: bytes, context: MessageContext | None) -> bool:
        """Whether a datagram was none of this association's."""
        successor = self.successor
        if successor is not None:
            successor.lower.observer.received(datagram, context, True)
        if is_client_hello(datagram):
            if successor is None and self.begins_anew is not None:
                self.begins_anew(self, datagram)
            return True
        return self._state != OPEN

    def _read_leftover(self) -> None:
        if self._state == OPEN:
            self._read_rest(LARGEST, None)

    def _read_rest(self, size: int, context: MessageContext | None) -> None:
        while self._state == OPEN:
            message = self._engine.unseal(size)
            if message is None:
                self._heed()
                return
            self._deliver(message, context.copy() if context is not None else None)

    def _deliver(self, message: bytes, context: MessageContext | None) -> None:
        if not self._peer_finished and not self._closing:
            self.observer.received(message, MessageContext() if context is None else context, True)

    def _heed(self) -> None:
        """There was no Message in it: the peer ended, or broke off, or asks for something again."""
        engine = self._engine
        self._flush()
        if engine.failure is not None:
            self._break(engine.failure)
        elif engine.ended and not self._peer_finished and self._state == OPEN:
            self._peer_finished = True
            if not self._closing:
                self.observer.finished()
                self._end_if_both_finished()

    def _flush(self) -> None:
        output = self._engine.output()
        if output:
            if self._unsent is None:
                self._unsent = deque()
            self._unsent.extend(packed(output, self._mtu))
            self._send_unsent()

    def _send_unsent(self) -> None:
        lower, unsent = self._lower, self._unsent
        if lower is None:
            return
        while unsent and lower.writable:
            self._try_send(unsent.popleft())
        if not unsent:
            self._unsent = None
        self.writable = lower.writable and not unsent

    def _try_send(self, datagram: bytes) -> None:
        try:
            self.lower.send(datagram, self._context, True, _OURS)
        except SendError:
            return  # as good as lost on the way, which timers care for

    # The handshake

    def _shake(self) -> None:
        super()._shake()
        self._stop(self._timer)
        self._timer = None
        if self._state == HANDSHAKE:
            seconds = self._engine.timeout()
            if seconds is not None:
                self._timer = asyncio.get_running_loop().call_later(seconds + 0.001, self._timed_out)

    def _timed_out(self) -> None:
        if self._state != HANDSHAKE:
            return
        self._timeouts += 1
        if self._timeouts == _UNANSWERED:
            self._use_mtu(min(self._mtu, SMALL_MTU))
        try:
            self._engine.handle_timeout()
        except TlsFailure as failure:
            self._fail(_late(failure))
            return
        self._flush()
        self._shake()

    def _late(self) -> None:
        self._fail(_late(None))

    def _open(self) -> None:
        self._stop(self._deadline)
        self._largest = 0
        self._measure()
        super()._open()

    def _fail(self, error: BaseException, *, abort: bool = True, lower_lives: bool = True) -> None:
        if abort and lower_lives:
            self._say_refused()
        super()._fail(error, abort=abort, lower_lives=lower_lives)

    def _say_refused(self) -> None:
        """Tell the peer that nothing will come of it. OpenSSL sends no alert but for what it found itself."""
        if self._largest:  # it is too late for what is not encrypted
            self._close_notify()
        elif self._state in (HANDSHAKE, HELD) and self._lower is not None and self._lower.writable:
            self._try_send(REFUSAL)

    # Ending

    def finish(self) -> None:
        if not self._finishing and self._state == OPEN:
            self._finishing = True
            self._say_goodbye()

    def close(self) -> None:
        if self._closing or self._state != OPEN:
            return
        self._closing = self._finishing = True
        self._parts = None
        self.lower.resume_receiving()
        if not self._say_goodbye():
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._linger_over)

    def abort(self) -> None:
        if self._state == OVER:
            return
        # OpenSSL lets us send no alert of our own, so that the best is close_notify: without a word the peer would
        # wait for ever.
        self._say_refused()
        self._over()
        self._outcome = None
        self.observer = NOBODY
        if self._lower is not None:
            self._lower.abort()

    def _say_goodbye(self) -> bool:
        """Send close_notify, and end what is below if we are closing, once everything before it is on its way."""
        lower = self.lower
        if not lower.writable or self._unsent:
            return False
        self._close_notify()
        if self._closing:
            self._stop(self._linger)
            lower.close()
        else:
            self._end_if_both_finished()
        return True

    def _close_notify(self) -> None:
        if not self._goodbye_said:
            self._goodbye_said = True
            self._engine.shutdown()
            self._flush()

    def _end_if_both_finished(self) -> None:
        if self._goodbye_said and self._peer_finished:
            asyncio.get_running_loop().call_soon(self.close)

    def _linger_over(self) -> None:
        if self.lower.backlog():
            self._end_with(ConnectionError("the kernel did not take what was sent in time", Reason.TIMEOUT))
        else:
            self.lower.close()  # only a rate limit keeps us from saying goodbye

    def give_way(self) -> None:
        """The peer has proven that it is there with another association, and has lost this one."""
        self._end_with(ConnectionError("the peer has begun anew", Reason.CONNECTION_ABORTED))

    def _break(self, failure: TlsFailure) -> None:
        if self._state == OPEN:
            reason = Reason.CONNECTION_ABORTED if self._engine.aborted else Reason.PROTOCOL_FAILED
            error = ConnectionError(str(failure), reason)
            error.__cause__ = failure
            self._end_with(error)

    def _end_with(self, error: TransportServicesError) -> None:
        self._over()
        self.lower.observer = NOBODY
        self.lower.close()
        self.observer.closed(error)

    def _over(self) -> None:
        super()._over()
        self.writable = False
        self._parts = self._unsent = None
        self.begins_anew = None
        successor, self.successor = self.successor, None
        if successor is not None and successor.in_handshake:
            successor._fail(refused("what it was to replace is over"))
        for timer in (self._timer, self._linger, self._deadline):
            self._stop(timer)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class Below(FlowObserver):
    """Observes the Flow of datagrams below a DtlsFlow."""

    __slots__ = ("_flow",)

    def __init__(self, flow: DtlsFlow) -> None:
        self._flow = flow

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        flow = self._flow
        state = flow._state
        if state == OPEN:
            if flow.begins_anew is None or not flow._another_handshake(data, context):
                flow._take(data, context)
        elif state == HANDSHAKE and data:
            flow._engine.feed(data)
            flow._shake()

    def sent(self, token: object) -> None:
        if token is not _OURS:
            self._flow.observer.sent(token)

    def failed(self, token: object, error: TransportServicesError) -> None:
        if token is not _OURS:
            self._flow.observer.failed(token, error)

    def writable(self) -> None:
        flow = self._flow
        flow._send_unsent()
        if flow._state != OPEN or not flow.writable:
            return
        if flow._finishing:
            if not flow._goodbye_said:
                flow._say_goodbye()
        else:
            flow.observer.writable()

    def soft_error(self, error: TransportServicesError) -> None:
        flow = self._flow
        cause = error.__cause__
        if flow._state == OPEN:
            if isinstance(cause, OSError) and cause.errno == errno.EMSGSIZE:
                flow._measure()
            if flow._soft_errors or flow.fragments:
                flow.observer.soft_error(error)
        elif isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            flow._fail(ConnectionRefusedError(cause.errno, "nobody listens on that UDP port"))

    def path_changed(self) -> None:
        self._flow.observer.path_changed()

    def closed(self, error: TransportServicesError | None) -> None:
        flow = self._flow
        if flow._state in (HANDSHAKE, HELD):
            flow._fail(refused("the path ended during the DTLS handshake", error), lower_lives=False)
        elif flow._state == OPEN:
            flow._over()
            flow.observer.closed(error)


def _late(cause: BaseException | None) -> EstablishmentError:
    error = EstablishmentError("the peer did not complete the DTLS handshake in time", Reason.TIMEOUT)
    error.__cause__ = cause
    return error
