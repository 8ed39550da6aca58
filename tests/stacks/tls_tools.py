"""What the TLS tests share: a plain lower stack on asyncio's transports, observers that can be waited on, OpenSSL's
command line as the peer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from neatpy.certificate import Certificate
from neatpy.errors import ConnectionError, Reason, TransportServicesError
from neatpy.properties import TransportProperties
from neatpy.security import SecurityParameters
from neatpy.stacks.contract import (
    Accepted,
    Address,
    Candidate,
    Data,
    Flow,
    FlowObserver,
    ListenRequest,
    Stack,
    StackListener,
)
from neatpy.stacks.features import Features, Provision
from neatpy.stacks.tls import TlsStack

TIME = 10.0


class PlainFlow(Flow, asyncio.Protocol):
    """A byte stream without options or linger: what TLS needs of the stack below, and no more."""

    def __init__(self, stack: Stack, observer: FlowObserver, accepted: Accepted | None = None) -> None:
        self._stack = stack
        self.observer = observer
        self.writable = True
        self._accepted = accepted
        self._tokens: list[object] = []
        self._over = self._eof = self._closing = False
        self.sends: list[int] = []

    @property
    def stack(self) -> Stack:
        return self._stack

    @property
    def local_address(self) -> Address:
        return Address(*self.transport.get_extra_info("sockname")[:2])

    @property
    def remote_address(self) -> Address:
        return Address(*self.transport.get_extra_info("peername")[:2])

    def send(self, data: Data, context: Any, end_of_message: bool, token: object) -> bool:
        assert self.writable, "send was called while the Flow was not writable"
        self.sends.append(len(data))
        self.transport.write(data)
        if self.writable:
            return True
        self._tokens.append(token)
        return False

    def pause_receiving(self) -> None:
        if not self._eof:
            self.transport.pause_reading()

    def resume_receiving(self) -> None:
        if not self._eof:
            self.transport.resume_reading()

    def finish(self) -> None:
        with suppress(OSError):  # the peer has reset the connection, which connection_lost will tell
            self.transport.write_eof()

    def close(self) -> None:
        self._closing = True
        self.transport.resume_reading()
        self.finish()
        if self._eof:
            self.transport.close()

    def abort(self) -> None:
        self._over = True
        if hasattr(self, "transport"):
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(0)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # small, so that little fills them
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 1 << 16)
        if self._accepted is not None:
            self._accepted(self)

    def data_received(self, data: bytes) -> None:
        self.observer.received(data, None, False)

    def eof_received(self) -> bool:
        self._eof = True
        self.observer.finished()
        return not self._closing

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        tokens, self._tokens = self._tokens, []
        for token in tokens:
            self.observer.sent(token)
        self.observer.writable()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._over:
            self._over = True
            broken = None if error is None else ConnectionError(str(error), Reason.CONNECTION_ABORTED)
            self.observer.closed(broken)


class PlainListener(StackListener):
    """The listening side of PlainStack."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def local_address(self) -> Address:
        return Address(*self._server.sockets[0].getsockname()[:2])

    def close(self) -> None:
        self._server.close()


class PlainStack(Stack):
    """A stack ``tcp`` for TLS to stand on."""

    name = "tcp"
    features = Features(
        50, {"reliability": Provision.INTRINSIC}, {"conn_timeout": "for the test"}, namespace="tcp"
    )

    opened: ClassVar[list[PlainFlow]] = []

    def __init__(self) -> None:
        self.flows: list[PlainFlow] = []

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        flow = PlainFlow(self, observer)
        self.opened.append(flow)
        remote = candidate.remote
        await asyncio.get_running_loop().create_connection(lambda: flow, remote.ip, remote.port)
        return flow

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        def make() -> PlainFlow:
            flow = PlainFlow(self, FlowObserver(), accepted)
            self.flows.append(flow)
            return flow

        server = await asyncio.get_running_loop().create_server(make, request.local.ip, request.local.port)
        return PlainListener(server)


class Recorder(FlowObserver):
    """Remembers what a Flow told, and can be waited on."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.tokens: list[object] = []
        self.is_finished = False
        self.ends: list[TransportServicesError | None] = []
        self.writables = 0
        self._changed = asyncio.Event()

    def received(self, data: bytes, context: Any, end_of_message: bool, last: bool = False) -> None:
        assert type(data) is bytes
        assert context is None
        assert not end_of_message
        self.data += data
        self._changed.set()

    def sent(self, token: object) -> None:
        self.tokens.append(token)
        self._changed.set()

    def writable(self) -> None:
        self.writables += 1
        self._changed.set()

    def finished(self) -> None:
        assert not self.is_finished
        self.is_finished = True
        self._changed.set()

    def closed(self, error: TransportServicesError | None) -> None:
        self.ends.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[Recorder], object]) -> None:
        """Wait until the condition holds."""
        async with asyncio.timeout(TIME):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


class Peer:
    """One accepted Flow with its observer."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.seen = flow.observer = Recorder()


class Server:
    """A TlsStack that listens; ``accept`` gives the next Peer."""

    def __init__(self, stack: TlsStack) -> None:
        self.stack = stack
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.listener: StackListener

    @property
    def port(self) -> int:
        return self.listener.local_address.port

    async def accept(self) -> Peer:
        async with asyncio.timeout(TIME):
            return await self.peers.get()


async def handles_closed() -> None:
    """Let the loop close what was aborted: uvloop takes a few turns."""
    for _ in range(4):
        await asyncio.sleep(0)


async def abort_all() -> None:
    """End every connection that a test opened."""
    while PlainStack.opened:
        PlainStack.opened.pop().abort()
    await handles_closed()


def tls_stack() -> TlsStack:
    """A TlsStack over a PlainStack."""
    stack = TlsStack()
    stack.lower = PlainStack()
    return stack


@asynccontextmanager
async def serving(security: SecurityParameters, *, plain_allowed: bool = False) -> AsyncIterator[Server]:
    """A Server on a port of its own."""
    server = Server(tls_stack())
    any_properties = TransportProperties()
    datagrams: Any = None
    request = ListenRequest(
        Address("127.0.0.1", 0), None, any_properties, security, datagrams, lambda _: True, plain_allowed
    )
    server.listener = await server.stack.listen(request, lambda flow: server.peers.put_nowait(Peer(flow)))
    try:
        yield server
    finally:
        server.listener.close()
        assert isinstance(server.stack.lower, PlainStack)
        for flow in server.stack.lower.flows:
            flow.abort()
        await handles_closed()


async def connect(
    port: int,
    security: SecurityParameters,
    name: str | None = "localhost",
    *,
    stack: TlsStack | None = None,
    isolate_session: bool = False,
) -> Peer:
    """Connect to 127.0.0.1, verifying this name (None: the address)."""
    stack = stack or tls_stack()
    any_properties = TransportProperties(isolate_session=isolate_session)
    remote = Address("127.0.0.1", port)
    candidate = Candidate(stack, remote, any_properties, security, server_name=name)
    seen = Recorder()
    async with asyncio.timeout(TIME):
        flow = await stack.connect(candidate, seen)
    peer = Peer.__new__(Peer)
    peer.flow, peer.seen = flow, seen
    return peer


def send(peer: Peer, data: Data, token: object = None) -> bool:
    """Send without caring for the context, which byte streams do not look at."""
    context: Any = None
    return peer.flow.send(data, context, True, token)


class OpenSsl:
    """A running ``openssl s_server`` or ``s_client``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = bytearray()

    async def says(self, text: bytes) -> None:
        """Wait until the program has printed this."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIME):
            while text not in self.out:
                piece = await self.process.stdout.read(65536)
                assert piece, f"openssl ended with {bytes(self.out)!r}"
                self.out += piece

    def types(self, text: bytes) -> None:
        """Give the program input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)


@asynccontextmanager
async def openssl(*arguments: str) -> AsyncIterator[OpenSsl]:
    """Run ``openssl`` with these arguments until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        "openssl",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield OpenSsl(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def written(directory: Path, **contents: Certificate) -> Mapping[str, str]:
    """Certificates as files: the path of each, with chain and key in it."""
    paths = {}
    for name, certificate in contents.items():
        path = directory / f"{name}.pem"
        path.write_bytes(certificate.certificate_chain + certificate.private_key)
        paths[name] = str(path)
    return paths


@pytest.fixture
async def nothing_stays_open() -> AsyncIterator[None]:
    """Abort what a test leaves open."""
    yield
    await abort_all()
