"""What every Flow with a handshake of TLS's kind shares: going on with it, judging the peer, and its outcome.

The record layer is an :class:`~neatpy.stacks._tls.engine.Engine`. This room knows the contract of stacks, but no TLS
library and nothing of what happens after the handshake.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from neatpy.errors import EstablishmentError, Reason
from neatpy.security import TrustVerification
from neatpy.stacks._tls.engine import Engine, TlsFailure
from neatpy.stacks.contract import Address, Flow, FlowObserver

if TYPE_CHECKING:
    from neatpy.security import SecurityParameters
    from neatpy.stacks.contract import Stack

HANDSHAKE, HELD, OPEN, OVER = range(4)
"""The states of a SecureFlow; it is held while the program's callback decides."""

NOBODY = FlowObserver()

F = TypeVar("F", bound="SecureFlow")
Outcome = Callable[[F, BaseException | None], None]
"""Told how the handshake of a Flow ended: None is well."""


class SecureFlow(Flow):
    """A Flow over another one, from the start of its handshake. ``outcome`` is called once, when the handshake
    (callbacks included) has succeeded or failed; a Flow that failed has ended itself."""

    __slots__ = ("_engine", "_lower", "_outcome", "_security", "_stack", "_state", "_task", "_trusted")

    def __init__(
        self,
        stack: Stack,
        security: SecurityParameters,
        engine: Engine,
        observer: FlowObserver,
        outcome: Outcome[Any],
    ) -> None:
        self._stack = stack
        self._security = security
        self._engine = engine
        self.observer = observer
        self._outcome: Outcome[Any] | None = outcome
        self._lower: Flow | None = None
        self._state = HANDSHAKE
        self._trusted = False
        self._task: asyncio.Future[bool] | None = None

    # What it is

    @property
    def stack(self) -> Stack:
        return self._stack

    @property
    def lower(self) -> Flow:
        """The Flow that carries the records."""
        assert self._lower is not None
        return self._lower

    @property
    def local_address(self) -> Address:
        return self.lower.local_address

    @property
    def remote_address(self) -> Address:
        return self.lower.remote_address

    @property
    def paths(self) -> Sequence[tuple[Address, Address]]:
        return self.lower.paths

    def apply(self, name: str, value: object) -> None:
        self.lower.apply(name, value)

    def statistics(self) -> dict[str, float]:
        return self.lower.statistics()

    def security(self) -> dict[str, object]:
        return self._engine.facts()

    def linger(self) -> None:
        self.lower.linger()

    # What the protocol does

    @abstractmethod
    def _flush(self) -> None:
        """Send what the engine has to say: its part of the handshake, alerts."""

    @abstractmethod
    def _read_leftover(self) -> None:
        """Hand on what came with the end of the handshake, or while reading was paused."""

    def _over(self) -> None:
        """Stop everything of its own; what is below is none of it."""
        self._state = OVER
        self._engine.release()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # The handshake

    def _shake(self) -> None:
        engine = self._engine
        try:
            complete = engine.handshake()
        except TlsFailure as failure:
            self._flush()
            self._fail(refused(str(failure), failure), abort=False)
            return
        # What would complete the handshake for the peer is not sent before the peer is trusted.
        if not self._trusted and (complete or engine.can_judge()):
            self._judge()
        elif complete:
            self._open()
        else:
            self._flush()

    def _judge(self) -> None:
        engine, security = self._engine, self._security
        text = engine.verdict()
        callback = security.trust_verification_callback
        if callback is None:
            self._judged(text is None, text)
            return
        trust = TrustVerification(engine.server_name, engine.peer_chain(), text)
        try:
            answer = callback(trust)
        except Exception as error:
            self._fail(_raised(error))
            return
        if not inspect.isawaitable(answer):
            self._judged(answer is True, "the trust verification callback does not trust the peer")
            return
        self._state = HELD
        self.lower.pause_receiving()
        self._task = asyncio.ensure_future(answer)
        self._task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Future[bool]) -> None:
        if self._state != HELD:
            return
        self._task = None
        self.lower.resume_receiving()
        if task.cancelled():
            self._fail(refused("the trust verification callback was cancelled"))
        elif (error := task.exception()) is not None:
            self._fail(_raised(error))
        else:
            self._judged(task.result() is True, "the trust verification callback does not trust the peer")

    def _judged(self, trusted: bool, text: str | None) -> None:
        if not trusted:
            self._fail(refused(text or "the peer is not trusted"))
            return
        self._trusted = True
        self._state = HANDSHAKE
        self._shake()

    def _open(self) -> None:
        alpn = self._security.alpn
        if alpn and self._engine.alpn() not in alpn:
            text = f"no application protocol (alpn) that both sides have; ours: {', '.join(alpn)}"
            self._fail(refused(text))
            return
        self._state = OPEN
        self._flush()
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome(self, None)
        # Data may have come with the last flight; by then the Flow has its observer.
        asyncio.get_running_loop().call_soon(self._read_leftover)

    def _fail(self, error: BaseException, *, abort: bool = True, lower_lives: bool = True) -> None:
        self._over()
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome(self, error)
        lower = self._lower
        if lower is not None and lower_lives:
            lower.observer = NOBODY
            if abort:
                lower.abort()
            else:
                lower.close()


class CallbackFailed(EstablishmentError):
    """The program's trust verification callback raised, which is its cause."""


def refused(text: str, cause: BaseException | None = None) -> EstablishmentError:
    """The handshake failed for this reason."""
    error = EstablishmentError(text, Reason.ESTABLISHMENT_FAILED)
    error.__cause__ = cause
    return error


def _raised(error: BaseException) -> CallbackFailed:
    text = f"the trust verification callback raised {type(error).__name__}: {error}"
    result = CallbackFailed(text, Reason.ESTABLISHMENT_FAILED)
    result.__cause__ = error
    return result
