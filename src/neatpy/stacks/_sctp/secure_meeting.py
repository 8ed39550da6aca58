"""Opening associations over DTLS (RFC 8261), and accepting those whose DTLS clients speak SCTP.

The stack below shakes hands first and gives a Flow of secure datagrams; the association is made through it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from neatpy.errors import EstablishmentError, Reason, TransportServicesError
from neatpy.stacks._sctp.association import Association
from neatpy.stacks._sctp.carriers import prepare_shared, wants_soft_errors
from neatpy.stacks._sctp.engine import ENGINE
from neatpy.stacks._sctp.flow import unbound
from neatpy.stacks._sctp.listener import Listener as Port
from neatpy.stacks._sctp.options import Settings
from neatpy.stacks._sctp.packets import is_init
from neatpy.stacks._sctp.secure_carrier import SecureCarrier
from neatpy.stacks._sctp.streams import Streams
from neatpy.stacks._tls.waiting import Waiting
from neatpy.stacks.contract import (
    Accepted,
    Address,
    Candidate,
    Flow,
    FlowObserver,
    ListenRequest,
    StackListener,
)

if TYPE_CHECKING:
    from neatpy.stacks._sctp.engine import Path
    from neatpy.stacks._sctp.flow import SctpFlow
    from neatpy.stacks.contract import Stack
    from neatpy.system.datagrams import DatagramPort

HALF_OPEN = 1024
"""Peers at most that have asked for an association and have none yet; the oldest goes when one more asks."""

ASSOCIATION_TIME = 15.0
"""Seconds that a client has, after its first packet, to establish its association."""


class SecureDatagrams(Protocol):
    """The stack below, as this room sees it: one that gives Flows of secure datagrams."""

    async def connect_above(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        """A Flow to the peer."""

    async def listen_above(
        self, request: ListenRequest, accepted: Accepted, recognises: Callable[[bytes], bool]
    ) -> StackListener:
        """Give the Flows whose first datagram is recognised."""


async def connect(
    stack: Stack, lower: SecureDatagrams, candidate: Candidate, observer: FlowObserver
) -> SctpFlow:
    """One attempt. Raises OSError or EstablishmentError."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    properties = candidate.properties
    flow: SctpFlow | None = None
    streams: Streams | None = None

    def established(error: OSError | None) -> None:
        if not done.done():
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(_refused(error, candidate.remote.port))

    def broken(error: OSError, reason: bytes) -> None:
        if not done.done():
            done.set_exception(_refused(error, candidate.remote.port))
        elif streams is not None:
            streams.closed(error, reason)

    def soft(error: TransportServicesError) -> None:
        if flow is not None and not flow.over and wants_soft_errors(properties):
            flow.observer.soft_error(error)

    ENGINE.acquire(loop)
    carrier = SecureCarrier(broken, soft)
    try:
        carrier.start(await lower.connect_above(_below(candidate), carrier))
        streams = Streams(stack, carrier, properties, loop, initiator=True, established=established)
        local_port = 0 if candidate.local is None else candidate.local.port
        streams.association = _begun(carrier.path, candidate.remote.port, local_port, streams)
        flow = streams.first(observer)
        await done
    except BaseException:
        if flow is not None:
            flow.abort()
        carrier.close()
        if done.done() and not done.cancelled():
            done.exception()
        raise
    return flow


def _begun(path: Path, port: int, local_port: int, streams: Streams) -> Association:
    """Begin the association, from the local port or, if that is 0, from the one of the same number as the peer's where
    it is free: there are peers, those of WebRTC among them, that know one number for both sides."""
    settings = Settings()
    try:
        return Association.connect(path, port, streams, settings, local_port=local_port or port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or local_port:
            raise
        return Association.connect(path, port, streams, settings)


def _below(candidate: Candidate) -> Candidate:
    udp_port = candidate.properties.neatpy_encapsulation_port or candidate.remote.port
    assert candidate.stack.lower is not None
    return Candidate(
        candidate.stack.lower,
        candidate.remote._replace(port=udp_port),
        candidate.properties,
        candidate.security,
        local=candidate.local,
        interface=candidate.interface,
        server_name=candidate.server_name,
        hop_limit=candidate.hop_limit,
        label=candidate.label,
    )


def _refused(error: OSError, port: int) -> EstablishmentError:
    if isinstance(error, ConnectionRefusedError):
        text, reason = f"refuses an SCTP association with port {port}", Reason.ESTABLISHMENT_FAILED
    elif isinstance(error, TimeoutError):
        text, reason = "does not answer SCTP", Reason.TIMEOUT
    else:
        text, reason = f"gives no SCTP association: {error.strerror or error}", Reason.ESTABLISHMENT_FAILED
    result = EstablishmentError(f"the peer speaks DTLS but {text}", reason)
    result.__cause__ = error
    return result


class SecureListener(StackListener):
    """Takes the associations of DTLS clients of one UDP port, for the SCTP port of the same number (or, with an
    encapsulation port, of the endpoint's). Made by :meth:`open`."""

    __slots__ = (
        "_accepted",
        "_below",
        "_half_open",
        "_loop",
        "_open",
        "_port",
        "_request",
        "_sctp_port",
        "_stack",
    )

    _below: StackListener
    _port: DatagramPort
    _sctp_port: Port

    def __init__(self, stack: Stack, request: ListenRequest, accepted: Accepted) -> None:
        self._stack = stack
        self._request = request
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._half_open = Waiting(HALF_OPEN, self._given_up)
        self._open = True

    @classmethod
    async def open(
        cls, stack: Stack, lower: SecureDatagrams, request: ListenRequest, accepted: Accepted
    ) -> SecureListener:
        """Bind and accept. Raises OSError or EstablishmentError."""
        listener = cls(stack, request, accepted)
        ENGINE.acquire(listener._loop)
        try:
            await listener._bind(lower)
        except BaseException:
            ENGINE.release()
            raise
        return listener

    async def _bind(self, lower: SecureDatagrams) -> None:
        request = self._request
        udp_port = request.properties.neatpy_encapsulation_port or request.local.port
        below = ListenRequest(
            request.local._replace(port=udp_port),
            request.interface,
            request.properties,
            request.security,
            request.datagrams,
            request.admits,
            hop_limit=request.hop_limit,
            refused=request.refused,
        )
        self._below = await lower.listen_above(below, self._begin, is_init)
        try:
            self._port = request.datagrams.open(
                below.local, request.interface, request.properties, request.hop_limit
            )
            try:
                prepare_shared(self._port.socket)
                number = request.local.port or self._below.local_address.port
                self._sctp_port = Port.open(number, Settings())
            except BaseException:
                self._port.release()
                raise
        except BaseException:
            self._below.close()
            raise

    @property
    def local_address(self) -> Address:
        return self._below.local_address

    def close(self) -> None:
        if self._open:
            self._open = False
            self._half_open.give_up_all()
            self._sctp_port.close()
            self._below.close()
            self._port.release()
            ENGINE.release()

    def _begin(self, below: Flow) -> None:
        """A DTLS client whose first datagram asks for an association, which it is about to be given."""
        streams: Streams | None = None

        def accept(association: Association) -> None:
            nonlocal streams
            carrier.path.accept = None  # one association for each DTLS client
            streams = self._accept(carrier, association)

        def broken(error: OSError, reason: bytes) -> None:
            if streams is not None:
                streams.closed(error, reason)
            else:
                self._half_open.forget(carrier)
                self._request.refused(self._stack, below.remote_address, error)
                carrier.close()

        def soft(error: TransportServicesError) -> None:
            """Nobody has asked for those of a Listener's peers."""

        ENGINE.acquire(self._loop)
        carrier = SecureCarrier(broken, soft)
        carrier.start(below, accept)
        self._half_open.add(carrier, ASSOCIATION_TIME)

    def _accept(self, carrier: SecureCarrier, association: Association) -> Streams:
        def established(error: OSError | None) -> None:
            self._half_open.forget(carrier)
            if error is not None:
                self._request.refused(self._stack, carrier.remote_address, error)
                return
            flow = streams.first(unbound())
            self._accepted(flow)
            if not self._open and flow.observer is unbound():
                flow.abort()

        properties = self._request.properties
        streams = Streams(
            self._stack, carrier, properties, self._loop, initiator=False, established=established
        )
        streams.association = association
        association.observer = streams
        return streams

    def _given_up(self, carrier: SecureCarrier, error: EstablishmentError) -> None:
        self._request.refused(self._stack, carrier.remote_address, error)
