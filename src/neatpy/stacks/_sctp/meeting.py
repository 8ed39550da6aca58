"""Opening associations to a peer, and accepting those that come to a Listener's UDP port."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING

from neatpy.errors import ConnectionError, Reason, TransportServicesError
from neatpy.stacks._sctp.association import Association
from neatpy.stacks._sctp.carriers import TAGGED, SharedCarrier, UdpCarrier, prepare_shared, wants_soft_errors
from neatpy.stacks._sctp.engine import ENGINE
from neatpy.stacks._sctp.flow import unbound
from neatpy.stacks._sctp.listener import Listener as Port
from neatpy.stacks._sctp.options import Settings
from neatpy.stacks._sctp.packets import checksum_is_right, is_init
from neatpy.stacks._sctp.streams import Streams
from neatpy.stacks.contract import Accepted, Address, Candidate, FlowObserver, ListenRequest, StackListener
from neatpy.system import options
from neatpy.system.datagram_options import unbound_socket
from neatpy.system.open_ports import open_ports

if TYPE_CHECKING:
    from neatpy.stacks._sctp.flow import SctpFlow
    from neatpy.stacks.contract import Stack
    from neatpy.system.datagram_options import SocketAddress
    from neatpy.system.datagrams import DatagramPort

RECOGNISER_RANK = 30

HALF_OPEN = 1024
"""Peers at most that have asked for an association and have none yet; the oldest goes when one more asks."""


async def connect(stack: Stack, candidate: Candidate, observer: FlowObserver) -> SctpFlow:
    """One attempt over UDP. Raises OSError."""
    loop = asyncio.get_running_loop()
    ENGINE.acquire(loop)
    try:
        sock = _connected_socket(candidate)
    except BaseException:
        ENGINE.release()
        raise
    done: asyncio.Future[None] = loop.create_future()
    properties = candidate.properties

    def established(error: OSError | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def failed(error: OSError) -> None:
        if not done.done():
            done.set_exception(error)
        elif flow is not None and wants_soft_errors(properties) and not flow.over:
            flow.observer.soft_error(_soft(error))

    flow: SctpFlow | None = None
    carrier = UdpCarrier(loop, sock, properties, failed)
    streams = Streams(stack, carrier, properties, loop, initiator=True, established=established)
    try:
        streams.association = Association.connect(
            carrier.path,
            candidate.remote.port,
            streams,
            Settings(),
            local_port=0 if candidate.local is None else candidate.local.port,
        )
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


def _connected_socket(candidate: Candidate) -> socket.socket:
    remote = candidate.remote
    if candidate.local is not None:
        sock = open_ports.bind(candidate.local, candidate.interface, asyncio.get_running_loop())
    else:
        sock = unbound_socket(remote.family, candidate.interface)
    try:
        if candidate.hop_limit is not None:
            options.set_hop_limit(sock, candidate.hop_limit)
        udp_port = candidate.properties.neatpy_encapsulation_port or remote.port
        sock.connect(remote._replace(port=udp_port).sockaddr())
    except BaseException:
        sock.close()
        raise
    return sock


class SctpListener(StackListener):
    """Takes the associations that come to one UDP port, for the SCTP port of the same number (or, with an
    encapsulation port, of the endpoint's)."""

    __slots__ = (
        "_accepted",
        "_address",
        "_established",
        "_half_open",
        "_loop",
        "_open",
        "_port",
        "_request",
        "_sctp_port",
        "_stack",
    )

    def __init__(self, stack: Stack, request: ListenRequest, accepted: Accepted) -> None:
        self._stack = stack
        self._request = request
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._half_open: OrderedDict[SharedCarrier, None] = OrderedDict()
        self._established: dict[bytes, tuple[SharedCarrier, Streams]] = {}
        udp_port = request.properties.neatpy_encapsulation_port or request.local.port
        ENGINE.acquire(self._loop)
        try:
            self._port: DatagramPort = request.datagrams.open(
                request.local._replace(port=udp_port),
                request.interface,
                request.properties,
                request.hop_limit,
            )
            prepare_shared(self._port.socket)
            number = request.local.port or self._port.local_address.port
            try:
                self._sctp_port = Port.open(number, Settings())
            except BaseException:
                self._port.release()
                raise
        except BaseException:
            ENGINE.release()
            raise
        self._address = self._port.local_address
        self._open = True
        self._port.register(self._recognise, RECOGNISER_RANK)

    @property
    def local_address(self) -> Address:
        return self._address

    def close(self) -> None:
        if self._open:
            self._open = False
            self._port.unregister(self._recognise)
            for carrier in list(self._half_open):
                carrier.close()
            self._sctp_port.close()
            self._port.release()
            ENGINE.release()

    def _recognise(self, data: bytes, source: SocketAddress, destination: bytes) -> SharedCarrier | None:
        if not is_init(data):
            return self._moved(data, source)
        request = self._request
        if request.admits is not None and not request.admits(source[0]):
            return None
        if len(self._half_open) >= HALF_OPEN:
            next(iter(self._half_open)).close()

        def accept(association: Association) -> None:
            self._accept(carrier, association)

        ENGINE.acquire(self._loop)
        carrier = SharedCarrier(self._port, source, destination, accept, self._forget)
        self._half_open[carrier] = None
        return carrier

    def _moved(self, data: bytes, source: SocketAddress) -> SharedCarrier | None:
        """An association's packet from a port where it has not been: a NAT may have forgotten the peer."""
        known = self._established.get(data[:TAGGED])
        if known is None or not checksum_is_right(data) or not known[0].follow(source):
            return None
        carrier, streams = known
        self._loop.call_soon(streams.path_changed, True)
        return carrier

    def _forget(self, carrier: SharedCarrier) -> None:
        self._half_open.pop(carrier, None)
        self._established.pop(carrier.established_header, None)

    def _accept(self, carrier: SharedCarrier, association: Association) -> None:
        def established(error: OSError | None) -> None:
            if error is None:
                flow = streams.first(unbound())
                self._half_open.pop(carrier, None)
                carrier.established_header = carrier.header
                self._established[carrier.header] = (carrier, streams)
                self._accepted(flow)
                if not self._open and flow.observer is unbound():
                    flow.abort()

        streams = Streams(
            self._stack,
            carrier,
            self._request.properties,
            self._loop,
            initiator=False,
            established=established,
        )
        streams.association = association
        association.observer = streams


def _soft(error: OSError) -> TransportServicesError:
    return ConnectionError(str(error), Reason.PROTOCOL_FAILED)
