"""The DTLS 1.2 engine: pyOpenSSL's Connection over memory BIOs, one datagram at a time.

A memory BIO knows no datagrams. So each datagram is written and read to its end before the next; what comes out is cut
at the records' headers elsewhere. Verification, certificates and ALPN are those of the TLS engine that this one is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from OpenSSL import SSL

from neatpy.stacks._dtls.cookies import Cookies
from neatpy.stacks._dtls.records import LARGEST
from neatpy.stacks._tls.engine import TlsFailure
from neatpy.stacks._tls.pyopenssl import PyOpenSslEngine, PyOpenSslSettings, configure

if TYPE_CHECKING:
    from neatpy.security import SecurityParameters
    from neatpy.stacks.contract import Data

_DTLS_1_2 = 0xFEFD
_COOKIE_EXCHANGE = 0x2000  # SSL.OP_COOKIE_EXCHANGE, which some builds do not name
_OVERHEAD = 256
_DEFAULT_MTU = 1200


class DtlsEngine(PyOpenSslEngine):
    """One DTLS association. Plaintext goes through ``seal`` and ``unseal``, a record at a time."""

    __slots__ = ("aborted", "address", "cookies")

    aborted: bool
    """Whether ``failure`` is a fatal alert of the peer."""
    address: bytes
    """Who is spoken to, and what says whether a cookie is for them; on a Listener's side."""
    cookies: Cookies

    def __init__(self, settings: DtlsSettings, server_name: str | None) -> None:
        super().__init__(settings, server_name)
        self.aborted = False
        self.address = b""
        self._tls.set_ciphertext_mtu(_DEFAULT_MTU)

    def set_mtu(self, mtu: int) -> None:
        """Keep what goes into one datagram, records included, to this many bytes."""
        self._tls.set_ciphertext_mtu(mtu)

    def largest(self) -> int:
        """Most bytes of plaintext that one datagram can carry; 0 before the handshake is complete."""
        return min(self._tls.get_cleartext_mtu(), LARGEST)

    def proves_address(self, hello: bytes) -> bool:
        """Take a client's first datagram. False: it had no good cookie, nothing is kept of it, and what is to be
        answered is in the output. True: the handshake can go on with it. Raises TlsFailure."""
        self.feed(hello)
        try:
            self._tls.DTLSv1_listen()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise self._explained(error) from error
        return True

    def timeout(self) -> float | None:
        """Seconds until ``handle_timeout`` is due; None if nothing waits for an answer."""
        return self._tls.DTLSv1_get_timeout()

    def handle_timeout(self) -> None:
        """Put what was not answered in time into the output again. Raises TlsFailure when it was too often."""
        try:
            self._tls.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise self._explained(error) from error

    def seal(self, data: Data) -> bytes:
        """The record with this plaintext. Raises TlsFailure if the protocol has failed."""
        try:
            self._tls.send(data)
        except SSL.Error as error:
            raise self._explained(error) from error
        return self._tls.bio_read(len(data) + _OVERHEAD)

    def unseal(self, size: int) -> bytes | None:
        """The next plaintext, of at most ``size`` bytes, from what was fed; None if there is none, and then ``ended``
        or ``failure`` may say why."""
        try:
            return self._tls.recv(size)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            self.failure = self._explained(error)
            self.failure.__cause__ = error
        return None

    def _explained(self, error: SSL.Error) -> TlsFailure:
        failure = super()._explained(error)
        self.aborted = str(failure).startswith("the peer refused")
        return TlsFailure(str(failure).replace("TLS", "DTLS"))


class DtlsSettings(PyOpenSslSettings):
    """One ``SSL.Context`` for DTLS. No session is kept or resumed."""

    __slots__ = ()

    def __init__(self, security: SecurityParameters, listening: bool) -> None:
        self.security = security
        self.context = context = SSL.Context(SSL.DTLS_SERVER_METHOD if listening else SSL.DTLS_CLIENT_METHOD)
        context.set_min_proto_version(_DTLS_1_2)
        context.set_max_proto_version(_DTLS_1_2)
        # Without NO_QUERY_MTU OpenSSL ignores what it is told and makes tiny fragments.
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if listening:
            context.set_options(_COOKIE_EXCHANGE)
            context.set_cookie_generate_callback(_make_cookie)
            context.set_cookie_verify_callback(_prove_cookie)
        configure(context, security, listening, [])

    def client(self, server_name: str, peer: tuple[str, int] | None) -> DtlsEngine:
        return DtlsEngine(self, server_name)

    def server(self) -> DtlsEngine:
        return DtlsEngine(self, None)


def _make_cookie(tls: SSL.Connection) -> bytes:
    engine: DtlsEngine = tls.get_app_data()
    return engine.cookies.make(engine.address, time.monotonic())


def _prove_cookie(tls: SSL.Connection, cookie: bytes) -> bool:
    engine: DtlsEngine = tls.get_app_data()
    return engine.cookies.prove(engine.address, cookie, time.monotonic())
