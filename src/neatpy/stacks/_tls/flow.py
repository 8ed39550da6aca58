"""TLS as a Flow that observes the Flow below it: records both ways, and the end.

The handshake is in :mod:`~neatpy.stacks._tls.handshake`; the record layer is an
:class:`~neatpy.stacks._tls.engine.Engine`. This room knows the contract of stacks and no TLS library, and does not
care what carries the bytes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from neatpy.errors import ConnectionError, Reason, TransportServicesError
from neatpy.stacks._tls.engine import Engine, TlsFailure
from neatpy.stacks._tls.handshake import HANDSHAKE, HELD, NOBODY, OPEN, OVER, Outcome, SecureFlow, refused
from neatpy.stacks.contract import Data, Flow, FlowObserver

if TYPE_CHECKING:
    from neatpy.message import MessageContext
    from neatpy.security import SecurityParameters
    from neatpy.stacks.contract import Stack

LINGER = 10.0
"""Seconds without progress after which ``close`` gives up on data that the stack below does not take."""

CHUNK = 1 << 18
"""How much plaintext is encrypted at once; a longer Message goes down in pieces, as the stack below takes them."""

_SESSION_TRIES = 8
_OURS = object()
"""The token of what is no Message's end: handshakes, alerts, the first pieces of a long Message."""


class TlsFlow(SecureFlow):
    """One TLS connection."""

    __slots__ = (
        "_batch",
        "_closing",
        "_context",
        "_corked",
        "_finishing",
        "_goodbye_said",
        "_linger",
        "_paused",
        "_peer_finished",
        "_pending",
        "_session_tries",
        "_talked_since_peer_finished",
        "writable",
    )

    def __init__(
        self,
        stack: Stack,
        security: SecurityParameters,
        engine: Engine,
        observer: FlowObserver,
        outcome: Outcome[TlsFlow],
    ) -> None:
        super().__init__(stack, security, engine, observer, outcome)
        self.writable = True
        self._paused = self._peer_finished = self._finishing = self._closing = self._goodbye_said = False
        self._talked_since_peer_finished = False
        self._session_tries = 0 if engine.server_name is None else _SESSION_TRIES
        self._corked: list[bytes] | None = None
        self._batch: list[object] | None = None
        self._pending: list[_Rest] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._context = cast("MessageContext", None)  # byte streams do not look at it

    def hello(self) -> bytes:
        """What a client's handshake begins with, for those that can send it before there is a Flow below."""
        self._engine.handshake()
        return self._engine.output()

    def start(self, lower: Flow, hello: bytes = b"") -> None:
        """Begin the handshake over this Flow, whose observer is a :class:`Below` of this one; ``hello`` is what has
        been asked for before."""
        self._lower = lower
        if hello:
            lower.send(hello, self._context, False, _OURS)
        self._shake()

    def read(self, name: str) -> object:
        return self.lower.read(name)

    # Sending

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        corked = self._corked
        if corked is not None:
            corked.append(data if type(data) is bytes else bytes(data))
            assert self._batch is not None
            self._batch.append(token)
            return False
        return self._send(data, context, token)

    @property
    def coalesces(self) -> bool:
        return True

    def cork(self) -> None:
        if self._corked is None:
            self._corked = []
            self._batch = []

    def uncork(self) -> None:
        corked, batch = self._corked, self._batch
        self._corked = self._batch = None
        if not corked or not batch:
            return
        token: object = batch[0] if len(batch) == 1 else _Batch(batch)
        # Joined before encryption: small Messages share records, and their cost.
        if self._send(corked[0] if len(corked) == 1 else b"".join(corked), self._context, token):
            for each in batch:
                self.observer.sent(each)

    def _send(self, data: Data, context: MessageContext, token: object) -> bool:
        lower = self._lower
        assert lower is not None
        if self._peer_finished:
            self._talked_since_peer_finished = True
        if len(data) > CHUNK or self._pending:
            return self._send_in_pieces(data, context, token)
        if not data:
            return lower.send(b"", context, False, token)
        try:
            self._engine.write(data)
        except TlsFailure as failure:
            asyncio.get_running_loop().call_soon(self._break, failure)
            return False
        done = lower.send(self._engine.output(), context, False, token)
        self.writable = lower.writable
        return done

    def _send_in_pieces(self, data: Data, context: MessageContext, token: object) -> bool:
        rest = _Rest(data, context, token)
        if self._pending is None:
            self._pending = []
        self._pending.append(rest)
        self._pump()
        if rest.taken_at_once is None and type(data) is not bytes:
            rest.keep()
        return rest.taken_at_once is True

    def _pump(self, *, report: bool = False) -> None:
        """Encrypt what waits for as long as the stack below takes it; ``report`` Sent of what it takes at once."""
        lower, pending = self._lower, self._pending
        assert lower is not None
        while pending and lower.writable:
            rest = pending[0]
            piece = rest.next_piece()
            last = rest.is_empty
            try:
                self._engine.write(piece)
            except TlsFailure as failure:
                self._pending = None
                asyncio.get_running_loop().call_soon(self._break, failure)
                return
            done = lower.send(self._engine.output(), rest.context, False, rest.token if last else _OURS)
            if last:
                del pending[0]
                rest.taken_at_once = done
                if done and report:
                    self._report_sent(rest.token)
        if not pending:
            self._pending = None
        self.writable = lower.writable and not pending

    def _report_sent(self, token: object) -> None:
        if type(token) is _Batch:
            for each in token.tokens:
                self.observer.sent(each)
        elif token is not _OURS:
            self.observer.sent(token)

    # Receiving

    def pause_receiving(self) -> None:
        self._paused = True
        self.lower.pause_receiving()

    def resume_receiving(self) -> None:
        if self._paused:
            self._paused = False
            self.lower.resume_receiving()
            asyncio.get_running_loop().call_soon(self._read_leftover)

    def _read_leftover(self) -> None:
        if self._state == OPEN and not self._paused and not self._closing:
            self._read()

    def _read(self, *, even_if_paused: bool = False) -> None:
        """Decrypt what has come and hand it on."""
        engine = self._engine
        if self._paused and not even_if_paused:
            return
        data = engine.read()
        if self._session_tries:
            self._session_tries = 0 if engine.remember() else self._session_tries - 1
        self._flush()
        if data and not self._peer_finished:
            self.observer.received(data, None, False)
        if engine.failure is not None:
            if self._state == OPEN:
                self._break(engine.failure)
        elif engine.ended and not self._peer_finished and self._state == OPEN:
            self._peer_finished = True
            if not self._closing:
                self.observer.finished()

    def _flush(self) -> None:
        lower = self._lower
        if lower is not None and lower.writable and (output := self._engine.output()):
            lower.send(output, self._context, False, _OURS)
            self.writable = not self._pending and lower.writable

    # Ending

    def finish(self) -> None:
        self.uncork()
        if not self._finishing and self._state == OPEN:
            self._finishing = True
            self._say_goodbye()

    def close(self) -> None:
        if self._closing or self._state != OPEN:
            return
        self.uncork()
        self._closing = self._finishing = True
        self._keep_session()
        self.lower.resume_receiving()
        if not self._say_goodbye():
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._linger_over)

    def abort(self) -> None:
        if self._state == OVER:
            return
        self._over()
        self._outcome = None
        self.observer = NOBODY
        if self._lower is not None:
            self._lower.abort()

    def _say_goodbye(self) -> bool:
        """Send close_notify, and end what is below, once everything before it is on its way; True if done."""
        lower = self.lower
        if not self._goodbye_said:
            if self._pending or not lower.writable:
                return False
            self._goodbye_said = True
            self._engine.shutdown()
            self._flush()
        if self._closing:
            self._stop_lingering()
            lower.close()
        else:
            lower.finish()
        return True

    def _linger_over(self) -> None:
        self._end_with(ConnectionError("the peer did not take the rest of the data in time", Reason.TIMEOUT))

    def _stop_lingering(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _keep_session(self) -> None:
        if self._session_tries:
            self._session_tries = 0
            self._engine.remember()

    def _break(self, failure: TlsFailure) -> None:
        if self._state == OPEN:
            error = ConnectionError(str(failure), Reason.PROTOCOL_FAILED)
            error.__cause__ = failure
            self._flush()
            self._end_with(error, abort=False)

    def _end_with(self, error: TransportServicesError, *, abort: bool = True) -> None:
        """Report a broken connection. What is below goes with it, after an alert gently so that it arrives."""
        self._over()
        lower = self.lower
        lower.observer = NOBODY
        if abort:
            lower.abort()
        else:
            lower.close()
        self.observer.closed(error)

    def _over(self) -> None:
        super()._over()
        self._pending = self._corked = self._batch = None
        self._stop_lingering()


class Below(FlowObserver):
    """Observes the Flow below a TlsFlow. An object of its own because a Flow is writable and an observer is told so,
    by the same name."""

    __slots__ = ("_flow",)

    def __init__(self, flow: TlsFlow) -> None:
        self._flow = flow

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        flow = self._flow
        state = flow._state
        if state == OPEN:
            if not flow._closing:
                flow._engine.feed(data)
                flow._read()
        elif state != OVER:
            flow._engine.feed(data)
            if state == HANDSHAKE and flow._lower is not None:
                flow._shake()

    def sent(self, token: object) -> None:
        self._flow._report_sent(token)

    def expired(self, token: object) -> None:
        if token is not _OURS:
            self._flow.observer.expired(token)

    def failed(self, token: object, error: TransportServicesError) -> None:
        if token is not _OURS:
            self._flow.observer.failed(token, error)

    def writable(self) -> None:
        flow = self._flow
        if flow._state != OPEN:
            return
        flow._flush()
        if flow._pending:
            flow._pump(report=True)
        if flow._linger is not None:
            flow._stop_lingering()
            flow._linger = asyncio.get_running_loop().call_later(LINGER, flow._linger_over)
        flow.writable = flow.lower.writable and not flow._pending
        if flow._finishing:
            if not flow._goodbye_said:
                flow._say_goodbye()
        elif flow.writable:
            flow.observer.writable()

    def soft_error(self, error: TransportServicesError) -> None:
        self._flow.observer.soft_error(error)

    def path_changed(self) -> None:
        self._flow.observer.path_changed()

    def finished(self) -> None:
        flow = self._flow
        if flow._state in (HANDSHAKE, HELD):
            flow._fail(refused("the peer ended the connection during the TLS handshake"))
        elif flow._state == OPEN and not flow._closing:
            flow._read(even_if_paused=True)
            if flow._state == OPEN and not flow._peer_finished:
                text = "the peer's data was cut off: its connection ended without TLS's close_notify"
                flow._end_with(ConnectionError(text, Reason.PROTOCOL_FAILED))

    def closed(self, error: TransportServicesError | None) -> None:
        flow = self._flow
        if flow._state in (HANDSHAKE, HELD):
            flow._fail(refused("the connection broke during the TLS handshake", error), lower_lives=False)
            return
        if flow._state == OVER:
            return
        if flow._closing and flow._peer_finished and not flow._talked_since_peer_finished:
            # The peer was done before us and may have gone without waiting for our close_notify (RFC 8446 6.1).
            error = None
        flow._over()
        flow.observer.closed(error)


class _Batch:
    """The tokens of Messages that were encrypted together."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: list[object]) -> None:
        self.tokens = tokens


class _Rest:
    """A long Message of which a part still waits to be encrypted."""

    __slots__ = ("_data", "_offset", "context", "taken_at_once", "token")

    def __init__(self, data: Data, context: MessageContext, token: object) -> None:
        self._data = memoryview(data)
        self._offset = 0
        self.context = context
        self.token = token
        self.taken_at_once: bool | None = None

    @property
    def is_empty(self) -> bool:
        return self._offset >= len(self._data)

    def next_piece(self) -> memoryview:
        start = self._offset
        self._offset = start + CHUNK
        return self._data[start : self._offset]

    def keep(self) -> None:
        """Copy what waits: the caller's buffer is only valid during its call."""
        if not self.is_empty:
            self._data = memoryview(bytes(self._data[self._offset :]))
            self._offset = 0
