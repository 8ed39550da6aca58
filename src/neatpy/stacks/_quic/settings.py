"""What one set of security parameters means for QUIC: certificates, ciphersuites, application protocols, sessions.

Dear to make, and kept for everybody who asks for the same. It makes engines, and knows no network.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from neatpy.enumerations import Preference
from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks._quic.engine import CONNECTION_ID_LENGTH, CONNECTION_WINDOW, STREAM_WINDOW, Engine
from neatpy.stacks._quic.logs import key_log, qlog
from neatpy.stacks._quic.parameters import suites
from neatpy.stacks._quic.trust import Trust
from neatpy.stacks._tls import plan
from neatpy.stacks._tls.names import ascii_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from neatpy.properties import TransportProperties
    from neatpy.security import SecurityParameters

DEFAULT_ALPN = ("neatpy",)
"""What is offered and accepted where the program names no application protocol: QUIC needs one (RFC 9001
section 8.1)."""

MOST_STREAMS = 4096
"""Streams of each kind that a peer may have open at once, where ``group_conn_limit`` says nothing."""

IDLE_TIMEOUT = 300.0
"""Seconds without any packet after which a connection is over, where ``conn_timeout`` says nothing."""

_SESSIONS_KEPT, _SESSIONS_AT_FIRST = 64, 8
_LARGEST_FRAME = 65535


class QuicSettings:
    """Makes the engines for one set of security parameters."""

    __slots__ = (
        "_certificate",
        "_chain",
        "_ciphers",
        "_groups",
        "_key",
        "_signatures",
        "alpn",
        "listening",
        "security",
        "sessions",
        "trust",
    )

    def __init__(self, security: SecurityParameters, listening: bool) -> None:
        self.security = security
        self.listening = listening
        self.trust = Trust(security, listening)
        self.sessions = Sessions(security)
        self.alpn = tuple(security.alpn or DEFAULT_ALPN)
        self._ciphers: list[Any] = [tls.CipherSuite[name.removeprefix("TLS_")] for name in suites(security)]
        self._groups: list[Any] = [tls.Group[name.upper()] for name in security.supported_group]
        self._signatures: list[Any] = [
            tls.SignatureAlgorithm[name.upper()] for name in security.signature_algorithm
        ]
        self._certificate, self._chain, self._key = _own_identity(security, listening)

    @property
    def keeps_sessions(self) -> bool:
        """Whether sessions are resumed. Who judges certificates by a callback, or asks clients for theirs, is to see
        each of them."""
        security = self.security
        return (
            security.max_cached_sessions != 0
            and security.trust_verification_callback is None
            and not (self.listening and self.trust.judges)
        )

    def client_engine(
        self,
        server_name: str,
        properties: TransportProperties,
        session: Any,
        keep: Callable[[Any], None] | None,
        datagrams: bool,
    ) -> Engine:
        """The engine of one attempt; ``session`` is one to resume, or None, and ``keep`` takes new ones.
        ``datagrams``: the peer may send some."""
        configuration = self._configuration(properties, datagrams)
        configuration.is_client = True
        configuration.server_name = ascii_name(server_name).partition("%")[0]
        configuration.session_ticket = session
        return self._made(configuration, properties, session_ticket_handler=keep)

    def server_engine(
        self,
        properties: TransportProperties,
        original_id: bytes,
        retry_id: bytes | None,
        datagrams: bool,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> Engine:
        """The engine for a client whose first packet was addressed to ``original_id``. ``reset_token``: what resets the
        connection with this id."""
        configuration = self._configuration(properties, datagrams)
        configuration.is_client = False
        more: dict[str, Any] = {
            "original_destination_connection_id": original_id,
            "retry_source_connection_id": retry_id,
            "reset_token": reset_token,
        }
        if self.keeps_sessions:
            more["session_ticket_fetcher"] = self.sessions.redeem
            more["session_ticket_handler"] = self.sessions.issue
        engine = self._made(configuration, properties, **more)
        engine.takes_early = wants_early_data(properties)
        if self.trust.judges:
            engine.ask_for_certificate()
        return engine

    def _made(self, configuration: QuicConfiguration, properties: TransportProperties, **more: Any) -> Engine:
        return Engine(
            configuration,
            streams=most_streams(properties.group_conn_limit, to_clients=not configuration.is_client),
            groups=self._groups,
            signatures=self._signatures,
            **more,
        )

    def _configuration(self, properties: TransportProperties, datagrams: bool) -> QuicConfiguration:
        timeout = properties.conn_timeout
        return QuicConfiguration(
            alpn_protocols=list(self.alpn),
            cipher_suites=self._ciphers or None,
            congestion_control_algorithm="cubic",
            connection_id_length=CONNECTION_ID_LENGTH,
            idle_timeout=IDLE_TIMEOUT if timeout is None else max(timeout, 0.001),
            max_data=CONNECTION_WINDOW,
            max_stream_data=STREAM_WINDOW,
            max_datagram_frame_size=_LARGEST_FRAME if datagrams else None,
            certificate=self._certificate,
            certificate_chain=self._chain,
            private_key=self._key,
            quic_logger=qlog(),
            secrets_log_file=key_log(),
            verify_mode=ssl.CERT_NONE,  # the driver judges, so that a callback can hold the handshake
        )


class Sessions:
    """The sessions of one set of parameters. A client's are for one use each, so that nobody can link two connections
    by them; a Listener's too, so that early data cannot be replayed."""

    __slots__ = ("_issued", "_kept", "_lifetime", "_most")

    def __init__(self, security: SecurityParameters) -> None:
        most = security.max_cached_sessions
        self._most = _SESSIONS_KEPT if most is None else most
        self._lifetime = security.cached_session_lifetime_seconds
        self._kept: OrderedDict[tuple[str, int], list[tuple[float, Any]]] = OrderedDict()
        self._issued: OrderedDict[bytes, tuple[float, Any]] = OrderedDict()

    # A client's side

    def keep(self, peer: tuple[str, int], ticket: Any) -> None:
        """The server has given us a session to resume."""
        if not self._most:
            return
        tickets = self._kept.setdefault(peer, [])
        tickets.append((time.monotonic(), ticket))
        self._kept.move_to_end(peer)
        while sum(map(len, self._kept.values())) > self._most:
            oldest = next(iter(self._kept.values()))
            oldest.pop(0)
            if not oldest:
                self._kept.popitem(last=False)

    def take(self, peer: tuple[str, int]) -> Any:
        """A session with this server that is still good, which is nobody else's from now on; or None."""
        tickets = self._kept.get(peer)
        while tickets:
            since, ticket = tickets.pop()
            if not tickets:
                del self._kept[peer]
            if self._is_fresh(since) and ticket.is_valid:
                return ticket
        return None

    # A Listener's side

    def issue(self, ticket: Any) -> None:
        """Remember a session that a client has been given."""
        self._issued[ticket.ticket] = (time.monotonic(), ticket)
        while len(self._issued) > 16 * self._most:
            self._issued.popitem(last=False)

    def redeem(self, label: bytes) -> Any:
        """The session that a client names, for once; or None."""
        since, ticket = self._issued.pop(label, (0.0, None))
        return ticket if ticket is not None and self._is_fresh(since) else None

    def _is_fresh(self, since: float) -> bool:
        return self._lifetime is None or time.monotonic() - since < self._lifetime


class NewSessions:
    """The sessions that one server gives us: kept from the moment on when it is trusted, for a session that is resumed
    spares the server from being judged again."""

    __slots__ = ("_keep", "_untrusted")

    def __init__(self, keep: Callable[[Any], None]) -> None:
        self._keep = keep
        self._untrusted: list[Any] | None = []

    def add(self, ticket: Any) -> None:
        """The server has given us one."""
        if self._untrusted is None:
            self._keep(ticket)
        elif len(self._untrusted) < _SESSIONS_AT_FIRST:
            self._untrusted.append(ticket)

    def trust(self) -> None:
        """The server is who it should be."""
        untrusted, self._untrusted = self._untrusted, None
        for ticket in untrusted or ():
            self._keep(ticket)


def most_streams(limit: float, *, to_clients: bool) -> int:
    """How many streams of each kind ``group_conn_limit`` lets the peer have open: new members of the group, beside the
    first, which is the client's."""
    return MOST_STREAMS if limit > MOST_STREAMS else int(limit) + to_clients


def wants_early_data(properties: TransportProperties) -> bool:
    """Whether 0-RTT is not ruled out (``zero_rtt_msg``, RFC 9622 section 6.2.5)."""
    return properties.zero_rtt_msg not in (Preference.AVOID, Preference.PROHIBIT)


def _own_identity(security: SecurityParameters, listening: bool) -> tuple[Any, list[Any], Any]:
    own = plan.own_certificates(security, listening)
    if not own:
        return None, [], None
    certificate = own[0]
    try:
        leaf, *chain = x509.load_pem_x509_certificates(certificate.certificate_chain)
        key = load_pem_private_key(certificate.private_key, certificate.password)
    except (ValueError, TypeError) as error:
        name = "server_certificate" if listening else "client_certificate"
        text = f"the {name} or its private key cannot be used: {error}"
        raise EstablishmentError(text, Reason.INVALID_CONFIGURATION) from error
    return leaf, chain, key
