"""A Listener's UDP port: finds the connection that a datagram is for by its connection id, and begins new ones.

A client whose address is not proven costs little: handshakes in progress are bounded in number and time, above a number
of them clients must prove their address first (Retry, RFC 9000 section 8.1.2), and what is not understood is answered
by nothing, by the versions that are, or by a stateless reset where it can only be of a connection that is lost.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from neatpy.enumerations import CapacityProfile
from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks._quic.carried import ABORTED, NO_ERROR, UNBOUND, is_bound
from neatpy.stacks._quic.connection import QuicTransport
from neatpy.stacks._quic.datagram_flow import datagram_flow
from neatpy.stacks._quic.engine import CONNECTION_ID_LENGTH
from neatpy.stacks._quic.flow import QuicFlow, first_flow
from neatpy.stacks._quic.packets import (
    SHORT_HEADERS_ID,
    Header,
    RetryTokens,
    is_initial,
    read_header,
    refusal,
    retry,
    version_negotiation,
)
from neatpy.stacks._quic.paths import SharedPath, enlarge_buffers
from neatpy.stacks._quic.resets import Resets, ending
from neatpy.stacks._tls.waiting import Waiting, tell_loop
from neatpy.stacks.contract import Accepted, Address, ListenRequest, StackListener
from neatpy.system.datagram_socket import DatagramObserver
from neatpy.system.datagrams import TAKEN

if TYPE_CHECKING:
    from neatpy.stacks._quic.carried import CarriedFlow
    from neatpy.stacks._quic.settings import QuicSettings
    from neatpy.stacks.quic import QuicStack
    from neatpy.system.datagram_options import SocketAddress
    from neatpy.system.datagrams import DatagramPort

RECOGNISER_RANK = 10
"""Before DTLS, SCTP and plain UDP."""

UNPROVEN = 64
"""Handshakes in progress above which clients have to prove their address first."""

HANDSHAKES = 1024
"""Handshakes in progress at most; one more, and the oldest is given up."""

SPARE_TIME = 30.0
"""Seconds that a client may go without any stream before its connection is closed."""

HANDSHAKE_TIME = 15.0
"""Seconds that a client has for its handshake."""


class QuicListener(StackListener, DatagramObserver):
    """Everything of QUIC on one UDP port. It goes on to find accepted connections when it listens no more."""

    __slots__ = (
        "_accepted",
        "_by_id",
        "_by_reset",
        "_handshakes",
        "_loop",
        "_open",
        "_port",
        "_request",
        "_resets",
        "_settings",
        "_stack",
        "_tokens",
        "_touched",
    )

    batches = True

    def __init__(
        self, stack: QuicStack, settings: QuicSettings, request: ListenRequest, accepted: Accepted
    ) -> None:
        self._stack = stack
        self._settings = settings
        self._request = request
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._by_id: dict[bytes, ServedTransport] = {}
        self._by_reset: dict[bytes, ServedTransport] = {}
        self._touched: dict[QuicTransport, None] = {}
        self._handshakes = Waiting(HANDSHAKES, self._given_up)
        self._tokens = RetryTokens()
        self._open = True
        self._port: DatagramPort = request.datagrams.open(
            request.local, request.interface, request.properties, request.hop_limit
        )
        self._resets = Resets((self._port.local_address, request.interface))
        enlarge_buffers(self._port.socket)
        self._port.register(self._recognise, RECOGNISER_RANK, claims=False)

    @property
    def local_address(self) -> Address:
        return self._port.local_address

    @property
    def is_open(self) -> bool:
        """Whether it still listens."""
        return self._open

    def close(self) -> None:
        if self._open:
            self._open = False
            self._handshakes.give_up_all(spared=_is_accepted)
            for transport in set(self._by_id.values()):
                transport.end_if_unused()
            self._port.retire(self._recognise)
            self._port.release()
            self._unregister_if_unused()

    def _unregister_if_unused(self) -> None:
        if not self._open and not self._by_id:
            self._port.unregister(self._recognise)

    # Datagrams

    def _recognise(self, data: bytes, source: SocketAddress, destination: bytes) -> DatagramObserver | None:
        transport = self._by_id.get(data[SHORT_HEADERS_ID])  # that of nearly all
        if transport is None:
            header = read_header(data)
            if header is None:
                return None
            transport = self._by_id.get(header.destination_id) or self._by_reset.get(ending(data))
            if transport is None:
                if not header.is_long:
                    return self._reset(data, header.destination_id, source, destination)
                if not self._admits(source):
                    return None
                if not self._open:
                    return self._refuse(header, data, source, destination)
                if not header.is_known_version:
                    return self._offer_versions(header, data, source, destination)
                if not is_initial(header, data):
                    return None
                transport = self._begin(header, source, destination)
                if transport is None:
                    return TAKEN
        transport.received(data, (source, destination))
        if transport not in self._touched:
            self._touched[transport] = None
            self._port.touch(self)
        return TAKEN

    def datagrams_done(self) -> None:
        touched, self._touched = self._touched, {}
        for transport in touched:
            transport.done()

    def _admits(self, source: SocketAddress) -> bool:
        admits = self._request.admits
        return admits is None or admits(source[0])

    def _refuse(
        self, header: Header, data: bytes, source: SocketAddress, destination: bytes
    ) -> DatagramObserver | None:
        """Tell who would begin a connection that nobody listens any more, if that is so for all protocols."""
        if not (self._port.is_left and header.is_known_version and is_initial(header, data)):
            return None
        self._answer(refusal(header), source, destination)
        return TAKEN

    def _offer_versions(
        self, header: Header, data: bytes, source: SocketAddress, destination: bytes
    ) -> DatagramObserver | None:
        answer = version_negotiation(header, data)
        if answer is None:
            return None
        self._answer(answer, source, destination)
        return TAKEN

    def _reset(
        self, data: bytes, unknown: bytes, source: SocketAddress, destination: bytes
    ) -> DatagramObserver | None:
        """Tell the peer that there is no such connection. Nothing in clear says that the datagram is QUIC's: it is not
        answered where another protocol's may begin like this, nor by who listens no more if somebody else does."""
        if self._port.others_begin_with(data[0], RECOGNISER_RANK) or not self._admits(source):
            return None
        if not self._open and self._port.has_successor(RECOGNISER_RANK):
            return None
        answer = self._resets.answer(data, unknown, time.monotonic())
        if answer is None:
            return None
        self._answer(answer, source, destination)
        return TAKEN

    def _answer(self, datagram: bytes, source: SocketAddress, destination: bytes) -> None:
        path = SharedPath(self._port, source, destination)
        path.send([(datagram, path.address)])
        path.close()

    # New connections

    def _begin(self, header: Header, source: SocketAddress, destination: bytes) -> ServedTransport | None:
        now = time.monotonic()
        proven = self._tokens.original_id(header, source, now) if header.token else None
        if proven is not None:
            return self._serve(header, proven, header.destination_id, source, destination)
        if len(self._handshakes) >= UNPROVEN:
            new_id = os.urandom(CONNECTION_ID_LENGTH)
            token = self._tokens.make(header, source, new_id, now)
            self._answer(retry(header, new_id, token), source, destination)
            return None
        return self._serve(header, header.destination_id, None, source, destination)

    def _serve(
        self,
        header: Header,
        original: bytes,
        retried: bytes | None,
        source: SocketAddress,
        destination: bytes,
    ) -> ServedTransport:
        properties = self._request.properties
        engine = self._settings.server_engine(
            properties, original, retried, self._stack.takes_datagrams, self._resets.token
        )
        transport = ServedTransport(
            self._stack,
            self._settings,
            engine,
            properties,
            self._loop,
            server_name=None,
            outcome=self._outcome,
            retired=self._forget,
        )
        transport.port = self
        transport._spare = None
        transport._reset_by = b""
        transport.path = SharedPath(self._port, source, destination)
        if properties.conn_capacity_profile is not CapacityProfile.DEFAULT:
            transport.path.set_capacity_profile(properties.conn_capacity_profile)
        transport.ids = {header.destination_id}
        self._by_id[header.destination_id] = transport
        for connection_id in engine.ids:
            self.issue(transport, connection_id)
        self._handshakes.add(transport, HANDSHAKE_TIME)
        return transport

    def issue(self, transport: ServedTransport, connection_id: bytes) -> None:
        """Datagrams with this id are this connection's from now on."""
        transport.ids.add(connection_id)
        self._by_id[connection_id] = transport

    def withdraw(self, transport: ServedTransport, connection_id: bytes) -> None:
        """They are no longer."""
        if connection_id in transport.ids:
            transport.ids.discard(connection_id)
            self._by_id.pop(connection_id, None)

    def expect_reset(self, transport: ServedTransport, before: bytes, token: bytes) -> None:
        """Datagrams that end with this token, and no more with the one before, are resets of this connection."""
        if self._by_reset.get(before) is transport:
            del self._by_reset[before]
        if token:
            self._by_reset[token] = transport

    def _outcome(self, transport: QuicTransport, error: BaseException | None) -> None:
        self.settled(transport)
        request = self._request
        if error is not None:
            request.refused(self._stack, transport.path.remote_address, error)
            tell_loop(error)
        elif _is_accepted(transport):
            pass  # with its early data
        elif not self._open:
            transport.end(ABORTED)
        else:
            begin = datagram_flow if self._stack.carries_datagrams else first_flow
            flow = begin(transport, UNBOUND, request.properties)
            self._accepted(flow)
            if not is_bound(flow) and not flow.over:
                flow.abort()

    def settled(self, transport: QuicTransport) -> None:
        """Its handshake is complete, or has failed."""
        assert isinstance(transport, ServedTransport)
        self._handshakes.forget(transport)

    def accept(self, flow: CarriedFlow) -> None:
        """A client sends early data, or has gone on with a new stream after the others had ended."""
        if self._open:
            self._accepted(flow)

    def _given_up(self, transport: QuicTransport, why: EstablishmentError) -> None:
        if why.reason is not Reason.LOCAL_ABORT and not _is_accepted(transport):
            self._request.refused(self._stack, transport.path.remote_address, why)

    def _forget(self, transport: QuicTransport) -> None:
        assert isinstance(transport, ServedTransport)
        self._handshakes.forget(transport)
        self._touched.pop(transport, None)
        if transport.engine.closed_by_peer:
            self._resets.closed(transport.ids, time.monotonic())
        for connection_id in transport.ids:
            self._by_id.pop(connection_id, None)
        transport.ids = set()
        self.expect_reset(transport, transport._reset_by, b"")
        self._unregister_if_unused()


def _is_accepted(transport: QuicTransport) -> bool:
    """Whether somebody has it already, whatever becomes of the handshake."""
    return bool(transport.flows)


class ServedTransport(QuicTransport):
    """A connection that a client has opened, found by its ids."""

    __slots__ = ("_reset_by", "_spare", "ids", "port")

    ids: set[bytes]
    path: SharedPath
    port: QuicListener
    _reset_by: bytes
    _spare: asyncio.TimerHandle | None

    def done(self) -> None:
        super().done()
        address = self.engine.peer_address
        if address is not None and address != self.path.address:
            self.path.address = address  # the client has moved; the engine proves that it is there
            self.engine.try_mtu(self.path.mtu())
            for flow in list(self.flows.values()):
                flow.path_changed()

    def connection_id_issued(self, connection_id: bytes) -> None:
        self.port.issue(self, connection_id)

    def connection_id_retired(self, connection_id: bytes) -> None:
        self.port.withdraw(self, connection_id)

    def peer_id_changed(self, reset_token: bytes) -> None:
        self.port.expect_reset(self, self._reset_by, reset_token)
        self._reset_by = reset_token

    def unused(self) -> None:
        # It is the client's connection, which may have more to ask.
        if self.is_open and self.port.is_open:
            self._stop_sparing()
            self._spare = self.loop.call_later(SPARE_TIME, self.end_if_unused)
        else:
            self.end(NO_ERROR)

    def end_if_unused(self) -> None:
        """Close the connection unless it carries something, or is just about to."""
        if self.is_open and not self.flows:
            self.end(NO_ERROR)

    def unparented(self, flow: CarriedFlow) -> None:
        self.port.accept(flow)

    def _accepts_early(self) -> bool:
        # Only a client that resumes a session has keys to send with so early.
        return not self.engine.is_complete

    def _stop_timers(self) -> None:
        super()._stop_timers()
        self._stop_sparing()

    def _stop_sparing(self) -> None:
        if self._spare is not None:
            self._spare.cancel()
            self._spare = None

    def stream_opened(self, stream: int) -> None:
        if len(self.flows) == 1:
            (first,) = self.flows.values()
            if isinstance(first, QuicFlow) and first.expected and first.stream != stream:
                first.adopt(stream)
                return
        super().stream_opened(stream)

    def _open(self) -> None:
        super()._open()
        self.port.settled(self)

    def abort(self) -> None:
        """Give the handshake up, as the Listener has told by now, and whoever was accepted with early data."""
        self._outcome = None
        self._fail(EstablishmentError("the handshake was not completed", Reason.TIMEOUT))
