"""The Listener's side of DTLS: addresses are proven before anything is kept; handshakes are bounded.

It recognises what is DTLS on the Listener's shared socket and gives each association a Flow of datagrams of its own.
Stacks above DTLS listen on the same port; who gets a Flow is in :mod:`~neatpy.stacks._dtls.parting`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from neatpy.stacks._datagram import UdpFlow
from neatpy.stacks._dtls.cookies import Cookies
from neatpy.stacks._dtls.flow import Below, DtlsFlow
from neatpy.stacks._dtls.parting import Parting
from neatpy.stacks._dtls.records import is_client_hello, is_record
from neatpy.stacks._tls.engine import TlsFailure
from neatpy.stacks._tls.handshake import NOBODY
from neatpy.stacks._tls.waiting import Waiting, tell_loop
from neatpy.stacks.contract import Address, ListenRequest, Stack
from neatpy.system.datagram_options import source_control, wants_errors
from neatpy.system.datagrams import TAKEN

if TYPE_CHECKING:
    from neatpy.errors import EstablishmentError
    from neatpy.stacks._dtls.engine import DtlsEngine, DtlsSettings
    from neatpy.system.datagram_options import SocketAddress
    from neatpy.system.datagrams import DatagramObserver, DatagramPort

RECOGNISER_RANK = 20
"""After QUIC, before SCTP and plain UDP."""

FIRST_BYTES = range(20, 64)
"""What DTLS begins with (RFC 9443)."""

HANDSHAKE_TIME = 15.0
"""Seconds that a client has for its handshake, our callbacks included."""

HANDSHAKES = 1024
"""How many handshakes may be in progress at once; one more, and the oldest is given up."""


class DtlsPort:
    """DTLS on one shared socket, for every stack that listens there."""

    __slots__ = (
        "_closed",
        "_cookies",
        "_family",
        "_listening",
        "_loop",
        "_lower",
        "_port",
        "_request",
        "_settings",
        "_soft_errors",
        "_stack",
        "_waiting",
        "parting",
    )

    def __init__(
        self,
        stack: Stack,
        lower: Stack,
        settings: DtlsSettings,
        request: ListenRequest,
        port: DatagramPort,
        closed: Callable[[DatagramPort], object],
    ) -> None:
        self._stack = stack
        self._lower = lower
        self._settings = settings
        self._request = request
        self._port = port
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._family = request.local.family
        self._soft_errors = wants_errors(request.properties)
        self._waiting = Waiting(HANDSHAKES, self._given_up)
        self._cookies = Cookies()
        self._listening: DtlsEngine | None = None
        self.parting = Parting()
        port.register(self._recognise, RECOGNISER_RANK, first_bytes=FIRST_BYTES)

    @property
    def local_address(self) -> Address:
        """Where it listens."""
        return self._port.local_address

    def release(self) -> None:
        """One of those who listen here has stopped; with the last one, accept no more."""
        if not self.parting:
            self._port.unregister(self._recognise)
            self._waiting.give_up_all()
            self.parting.close()
            self._closed(self._port)
        self._port.release()

    def _recognise(self, data: bytes, source: SocketAddress, destination: bytes) -> DatagramObserver | None:
        if not is_record(data):
            return None
        admits = self._request.admits
        if is_client_hello(data) and (admits is None or admits(source[0])):
            engine = self._proven(data, source, destination)
            if engine is not None:
                lower = UdpFlow(self._lower, NOBODY, self._request.properties, self._loop, self._family)
                if self._port.claim(source, destination, lower):
                    self._begin(engine, lower, source, destination)
        return TAKEN  # also what is left of an association that is over: it is no plain UDP

    def _proven(self, hello: bytes, source: SocketAddress, destination: bytes) -> DtlsEngine | None:
        """The engine that goes on with this ClientHello if its cookie proves the address; else the answer is a new
        cookie, and the engine, which has kept nothing, takes the next one."""
        engine = self._listening
        if engine is None:
            engine = self._listening = self._settings.server()
            engine.cookies = self._cookies
        engine.address = repr((source, destination)).encode()
        try:
            if engine.proves_address(hello):
                self._listening = None
                return engine
        except TlsFailure:
            self._listening = None
            return None
        answer = engine.output()
        if answer:
            control = (source_control(destination),) if destination else ()
            with suppress(OSError):  # as good as lost on the way
                self._port.try_send(answer, source, control)
        return None

    def _begin(
        self,
        engine: DtlsEngine,
        lower: UdpFlow,
        source: SocketAddress,
        destination: bytes,
        before: DtlsFlow | None = None,
    ) -> DtlsFlow:
        """Start a handshake; ``before`` is the association that this one replaces if it succeeds."""

        def outcome(flow: DtlsFlow, error: BaseException | None) -> None:
            self._waiting.forget(flow)
            if before is not None:
                before.successor = None
            if error is not None:
                self._request.refused(self._stack, flow.remote_address, error)
                tell_loop(error)
                return
            if before is not None:
                self._port.claim(source, destination, lower)
                before.give_way()
            flow.begins_anew = anew
            self.parting.accept(flow)

        def anew(flow: DtlsFlow, hello: bytes) -> None:
            self._begin_anew(flow, hello, source, destination)

        flow = DtlsFlow(self._stack, self._request.security, engine, NOBODY, outcome, self._soft_errors)
        lower.start_shared(self._port, source, destination)
        lower.observer = Below(flow)
        self._waiting.add(flow, HANDSHAKE_TIME)
        flow.start(lower)
        return flow

    def _given_up(self, flow: DtlsFlow, error: EstablishmentError) -> None:
        self._request.refused(self._stack, flow.remote_address, error)

    def _begin_anew(self, flow: DtlsFlow, hello: bytes, source: SocketAddress, destination: bytes) -> None:
        """A client whose association lives says hello again: it has lost its state, or somebody replays. The old
        association goes when the new one's handshake has succeeded, and not before (RFC 6347 section 4.2.8)."""
        if not self.parting:
            return
        engine = self._proven(hello, source, destination)
        if engine is None:
            return
        lower = UdpFlow(self._lower, NOBODY, self._request.properties, self._loop, self._family)
        successor = self._begin(engine, lower, source, destination, flow)
        if successor.in_handshake:
            flow.successor = successor
