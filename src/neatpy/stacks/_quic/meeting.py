"""Opening QUIC connections to a peer: one attempt, its socket and its session."""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from typing import TYPE_CHECKING, Any

from neatpy.enumerations import CapacityProfile, Preference
from neatpy.stacks._quic.datagram_flow import datagram_flow, no_datagrams
from neatpy.stacks._quic.flow import QuicFlow, first_flow
from neatpy.stacks._quic.moving import MovingTransport, Place
from neatpy.stacks._quic.settings import NewSessions, wants_early_data
from neatpy.stacks.contract import Address
from neatpy.system import options
from neatpy.system.datagram_options import bound_socket, unbound_socket
from neatpy.system.open_ports import open_ports

if TYPE_CHECKING:
    from neatpy.stacks._quic.carried import CarriedFlow
    from neatpy.stacks._quic.settings import QuicSettings
    from neatpy.stacks.contract import Candidate, FlowObserver
    from neatpy.stacks.quic import QuicStack

HANDSHAKE_TIME = 30.0
"""Seconds after which an attempt gives up on its handshake."""


async def connect(
    stack: QuicStack, settings: QuicSettings, candidate: Candidate, observer: FlowObserver
) -> CarriedFlow:
    """One attempt. Raises OSError or EstablishmentError; nothing is left of it then."""
    loop = asyncio.get_running_loop()
    properties = candidate.properties
    server_name = candidate.server_name or candidate.remote.ip
    peer = (server_name, candidate.remote.port)
    resumes = settings.keeps_sessions and not properties.isolate_session
    session = settings.sessions.take(peer) if resumes and wants_early_data(properties) else None
    sessions = NewSessions(functools.partial(settings.sessions.keep, peer))
    keep = sessions.add if resumes else None
    engine = settings.client_engine(server_name, properties, session, keep, stack.takes_datagrams)
    shaken: asyncio.Future[None] = loop.create_future()

    def outcome(_: object, error: BaseException | None) -> None:
        if error is None:
            sessions.trust()
        if not shaken.done():
            if error is None:
                shaken.set_result(None)
            else:
                shaken.set_exception(error)

    transport = MovingTransport(
        stack, settings, engine, properties, loop, server_name=server_name, outcome=outcome
    )
    transport.dial = functools.partial(_connected_socket, candidate)
    transport.begin_at(Place(candidate.local.ip if candidate.local else None, candidate.interface))
    path = transport.path
    if properties.conn_capacity_profile is not CapacityProfile.DEFAULT:
        path.set_capacity_profile(properties.conn_capacity_profile)
    flow: CarriedFlow | None = None
    try:
        engine.send_to(path.peer, time.monotonic())
        begin = datagram_flow if stack.carries_datagrams else first_flow
        flow = begin(transport, observer, properties)
        if candidate.early is not None and engine.may_send_early and isinstance(flow, QuicFlow):
            flow.send_early(candidate.early)
        transport.start_clock(HANDSHAKE_TIME)
        transport.schedule()
        await shaken
        if stack.carries_datagrams and not engine.largest_datagram():
            raise no_datagrams()
    except BaseException:
        if flow is not None:
            flow.abort()
        else:
            transport.retire()
        if shaken.done() and not shaken.cancelled():
            shaken.exception()  # seen, even if the attempt was cancelled at the same time
        raise
    return flow


def _connected_socket(candidate: Candidate, place: Place) -> socket.socket:
    """A socket to the candidate's peer from this place. Raises OSError."""
    remote, local = candidate.remote, candidate.local
    if local is not None and local.ip == place.ip:
        sock = open_ports.bind(local, place.interface, asyncio.get_running_loop())
    elif place.ip is not None:
        sock = bound_socket(Address(place.ip, 0), place.interface)
    else:
        sock = unbound_socket(remote.family, place.interface)
    try:
        if candidate.hop_limit is not None:
            options.set_hop_limit(sock, candidate.hop_limit)
        _choose_source(sock, candidate.properties.use_temporary_local_address)
        sock.connect(remote.sockaddr())
    except BaseException:
        sock.close()
        raise
    return sock


def _choose_source(sock: socket.socket, temporary: Any) -> None:
    if temporary in (Preference.REQUIRE, Preference.PREFER, None):  # preferred by default
        options.prefer_temporary_address(sock, True)
    elif temporary in (Preference.AVOID, Preference.PROHIBIT):
        options.prefer_temporary_address(sock, False)
