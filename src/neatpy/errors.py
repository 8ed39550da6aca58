"""The errors of the API and the reasons they carry (RFC 9622 throughout, RFC 9623 appendix B for the reasons).

Every error is a :class:`TransportServicesError` and has a :class:`Reason`. This room knows nothing but names.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neatpy.message import MessageContext


class Reason(Enum):
    """Why something failed: the names of RFC 9623's appendix, and two of ours for the ends a program causes itself."""

    INVALID_CONFIGURATION = "invalid configuration"
    NO_CANDIDATES = "no candidates"
    RESOLUTION_FAILED = "resolution failed"
    ESTABLISHMENT_FAILED = "establishment failed"
    POLICY_PROHIBITED = "policy prohibited"
    NOT_CLONEABLE = "not cloneable"
    MESSAGE_TOO_LARGE = "message too large"
    PROTOCOL_FAILED = "protocol failed"
    INVALID_MESSAGE_PROPERTIES = "invalid message properties"
    DEFRAMING_FAILED = "deframing failed"
    CONNECTION_ABORTED = "connection aborted"
    TIMEOUT = "timeout"
    CONNECTION_CLOSED = "connection closed"
    LOCAL_ABORT = "local abort"


class TransportServicesError(Exception):
    """The root of all errors of this library; ``reason`` says which kind of failure it was."""

    reason: Reason

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """So that an error can leave its process, as from a pool of them. A Message's context stays behind, since it
        belongs to a Connection."""
        more = {name: value for name, value in self.__dict__.items() if name != "context"}
        return _made_again, (type(self), str(self.args[0]), self.reason, more)


class _MessageError(TransportServicesError):
    """An error that belongs to one Message: ``context`` is that Message's context, where there is one."""

    context: MessageContext | None = None

    def __init__(self, message: str, reason: Reason, context: MessageContext | None = None) -> None:
        super().__init__(message, reason)
        self.context = context


class Attempted:
    """One attempt of a race that failed: which candidate, and with which error."""

    __slots__ = ("candidate", "error")

    def __init__(self, candidate: str, error: BaseException) -> None:
        self.candidate = candidate
        self.error = error

    def __repr__(self) -> str:
        return f"{self.candidate}: {self.error or type(self.error).__name__}"


class EstablishmentError(TransportServicesError):
    """A Connection or Listener could not be established (RFC 9622 sections 7.1 and 7.2).

    ``attempts`` holds every candidate that was tried, each with its own error; printing the error shows them all.
    """

    attempts: tuple[Attempted, ...]

    def __init__(self, message: str, reason: Reason, attempts: Sequence[Attempted] = ()) -> None:
        super().__init__(message, reason)
        self.attempts = tuple(attempts)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  {attempt!r}" for attempt in self.attempts)])


class SendError(_MessageError):
    """A Message could not be sent (RFC 9622 section 9.2.2.3)."""


class Expired(_MessageError):
    """A Message's lifetime ended before it could be sent (RFC 9622 section 9.2.2.2)."""

    def __init__(
        self, message: str, reason: Reason = Reason.TIMEOUT, context: MessageContext | None = None
    ) -> None:
        super().__init__(message, reason, context)


class ReceiveError(_MessageError):
    """No Message, or no more of one, will come for this receive (RFC 9622 section 9.3.2.3)."""


class CloneError(TransportServicesError):
    """A Connection could not be cloned (RFC 9622 section 7.4)."""


class ConnectionError(TransportServicesError, builtins.ConnectionError):  # noqa: A001 - the RFC's name
    """An established Connection broke (RFC 9622 section 10)."""


class PropertyError(TransportServicesError, ValueError):
    """A property could not be set on a Connection, which stands as it was (RFC 9622 section 8)."""

    def __init__(self, message: str, reason: Reason = Reason.INVALID_CONFIGURATION) -> None:
        super().__init__(message, reason)


def _made_again(
    kind: type[TransportServicesError], message: str, reason: Reason, more: dict[str, Any]
) -> TransportServicesError:
    """What was pickled."""
    error = kind.__new__(kind)
    TransportServicesError.__init__(error, message, reason)
    error.__dict__.update(more)
    return error
