"""UDP (RFC 768): each Message is one datagram, with no promise that it arrives, in which order, or only once."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from neatpy.stacks.contract import (
    Accepted,
    Address,
    Candidate,
    Flow,
    FlowObserver,
    ListenRequest,
    Stack,
    StackListener,
)
from neatpy.stacks.features import Features, Provision
from neatpy.system import options

if TYPE_CHECKING:
    from neatpy.properties import TransportProperties
    from neatpy.stacks._datagram import UdpFlow
    from neatpy.system.datagram_options import SocketAddress
    from neatpy.system.datagrams import DatagramPort

RECOGNISER_RANK = 100
"""Plain UDP takes what no other UDP-borne stack of the Listener wants."""

_UNBOUND = FlowObserver()


class UdpStack(Stack):
    """The stack ``udp``."""

    name = "udp"
    carrier = "udp"
    features = Features(
        rank=70,
        selection={
            "preserve_msg_boundaries": Provision.INTRINSIC,
            "full_checksum_send": Provision.INTRINSIC,
            "full_checksum_recv": Provision.INTRINSIC,
            "soft_error_notify": Provision.OPTIONAL,
            "use_temporary_local_address": Provision.OPTIONAL,
        },
        effects={
            "conn_capacity_profile": "DSCP of all datagrams",
            "max_send_rate": "datagrams are spaced so that their payload keeps the rate",
            "msg_capacity_profile": "DSCP of the datagram",
            "msg_lifetime": "a Message still in our queue expires",
            "msg_priority": "order of what waits in our queue",
            "final": "nothing on the wire; no Message can be sent after it",
            "no_fragmentation": "DF on the datagram; one larger than the path's MTU is a SendError",
            "no_segmentation": "always so: a Message is one datagram",
        },
        handshake=False,
        may_duplicate=True,
        preserves_boundaries=True,
    )

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        # What only runs when the stack is used is loaded then: every program loads these rows.
        from neatpy.stacks._datagram import UdpFlow
        from neatpy.system.datagram_options import unbound_socket
        from neatpy.system.open_ports import open_ports

        remote = candidate.remote
        if candidate.local is not None:
            sock = open_ports.bind(candidate.local, candidate.interface, asyncio.get_running_loop())
        else:
            sock = unbound_socket(remote.family, candidate.interface)
        try:
            if candidate.hop_limit is not None:
                options.set_hop_limit(sock, candidate.hop_limit)
            _choose_source(sock, candidate.properties)
            sock.connect(remote.sockaddr())
            loop = asyncio.get_running_loop()
            flow = UdpFlow(self, observer, candidate.properties, loop, sock.family)
            flow.start_alone(sock)
        except BaseException:
            sock.close()
            raise
        return flow

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        port = request.datagrams.open(request.local, request.interface, request.properties, request.hop_limit)
        return UdpListener(self, request, accepted, port)


class UdpListener(StackListener):
    """Makes a Flow of each peer from which a first datagram comes, on the Listener's shared socket."""

    __slots__ = ("_accepted", "_loop", "_open", "_port", "_request", "_stack")

    def __init__(self, stack: Stack, request: ListenRequest, accepted: Accepted, port: DatagramPort) -> None:
        self._stack = stack
        self._request = request
        self._accepted = accepted
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._open = True
        port.register(self._recognise, RECOGNISER_RANK)

    @property
    def local_address(self) -> Address:
        return self._port.local_address

    def close(self) -> None:
        if self._open:
            self._open = False
            self._port.unregister(self._recognise)
            self._port.release()

    def _recognise(self, data: bytes, source: SocketAddress, destination: bytes) -> UdpFlow | None:
        from neatpy.stacks._datagram import UdpFlow

        request = self._request
        if request.admits is not None and not request.admits(source[0]):
            return None
        flow = UdpFlow(self._stack, _UNBOUND, request.properties, self._loop, request.local.family)
        flow.start_shared(self._port, source, destination)
        self._accepted(flow)
        return None if flow.over else flow


def _choose_source(sock: socket.socket, properties: TransportProperties) -> None:
    from neatpy.enumerations import Preference

    temporary = properties.use_temporary_local_address
    if temporary in (Preference.REQUIRE, Preference.PREFER, None):  # preferred by default
        options.prefer_temporary_address(sock, True)
    elif temporary in (Preference.AVOID, Preference.PROHIBIT):
        options.prefer_temporary_address(sock, False)
