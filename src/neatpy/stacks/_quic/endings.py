"""What to make of the end of a QUIC connection: in which words it is told, and whether it is one at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.packet import QuicErrorCode

from neatpy.errors import ConnectionError, EstablishmentError, Reason
from neatpy.stacks._quic.carried import NO_ERROR
from neatpy.stacks._tls.handshake import CallbackFailed, refused

if TYPE_CHECKING:
    from neatpy.errors import TransportServicesError
    from neatpy.stacks._quic.engine import Closing

_NO_ERRORS = {"h3": 0x100}
"""By application protocol, without the number of a draft, what it closes well with beside our own code (RFC 9114
section 8.1)."""


def ended_well(closing: Closing, alpn: str | None) -> bool:
    """Whether a connection was closed without an error, in the words of the application protocol."""
    if not closing.application:
        return False
    application = (alpn or "").partition("-")[0]
    return closing.code in (NO_ERROR, _NO_ERRORS.get(application))


def error_of(closing: Closing) -> TransportServicesError:
    """Why a connection broke."""
    if closing.idle:
        return ConnectionError("nothing was heard of the peer for too long", Reason.TIMEOUT)
    if closing.lost:
        return ConnectionError(f"{_NO_STATE} (stateless reset)", Reason.CONNECTION_ABORTED)
    detail = f": {closing.reason}" if closing.reason else ""
    if closing.application:
        return ConnectionError(
            f"the peer closed the connection with code {closing.code}{detail}", Reason.CONNECTION_ABORTED
        )
    return ConnectionError(f"QUIC failed with {_named(closing.code)}{detail}", Reason.PROTOCOL_FAILED)


def establishment_error(closing: Closing, alpn: tuple[str, ...]) -> EstablishmentError:
    """Why a handshake came to nothing; ``alpn`` is what was offered."""
    if closing.idle:
        return EstablishmentError("the peer did not answer", Reason.TIMEOUT)
    if closing.lost:
        return refused(f"{_NO_STATE} (stateless reset)")
    alert = closing.alert
    if alert is None:
        if closing.code == QuicErrorCode.CONNECTION_REFUSED:
            return refused("the peer takes no new connections")
        return refused(
            f"the QUIC handshake failed with {_named(closing.code)}: {closing.reason or 'no reason given'}"
        )
    if alert == 120:
        ours = f"; ours: {', '.join(alpn)}" if alpn else ""
        return refused(f"no application protocol (alpn) that both sides have{ours}")
    return refused(
        f"the QUIC handshake failed: {_ALERTS.get(alert, f'TLS alert {alert}')} ({closing.reason or alert})"
    )


def _named(code: int) -> str:
    """A transport error by its name (RFC 9000 section 20.1), if it has one."""
    try:
        return f"{QuicErrorCode(code).name} ({code:#x})"
    except ValueError:
        return f"code {code:#x}"


_NO_STATE = "the peer knows nothing of the connection any more"
_ALERTS = {
    40: "nothing that both sides support, or the peer wants a client_certificate",
    42: "the peer does not accept our certificate, or wants a client_certificate",
    45: "our certificate has expired, says the peer",
    48: "the peer does not know the issuer of our certificate",
    70: "no protocol version that both sides allow",
    116: "the peer wants a client_certificate",
}


def callback_failed(error: BaseException) -> CallbackFailed:
    """What to tell when the program's own callback raised."""
    text = f"the trust verification callback raised {type(error).__name__}: {error}"
    result = CallbackFailed(text, Reason.ESTABLISHMENT_FAILED)
    result.__cause__ = error
    return result


def connection_error(error: BaseException) -> TransportServicesError:
    """The same for Connections that were there already, with early data."""
    result = ConnectionError(str(error), getattr(error, "reason", Reason.ESTABLISHMENT_FAILED))
    result.__cause__ = error
    return result
