"""Toy stacks, flows and look-ups for the tests of establishment: no sockets, no waiting."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.establishment.memory import Memory
from neatpy.establishment.request import EstablishmentRequest
from neatpy.properties import TransportProperties
from neatpy.security import SecurityParameters
from neatpy.stacks.contract import (
    Accepted,
    Address,
    Availability,
    Candidate,
    Flow,
    FlowObserver,
    ListenRequest,
    Stack,
    StackListener,
)
from neatpy.stacks.features import Features, Provision

RELIABLE = {
    "reliability": Provision.INTRINSIC,
    "preserve_order": Provision.INTRINSIC,
    "congestion_control": Provision.INTRINSIC,
    "full_checksum_send": Provision.INTRINSIC,
    "full_checksum_recv": Provision.INTRINSIC,
}


class ToyFlow(Flow):
    """A Flow that only notes what is done to it."""

    __slots__ = ("_stack", "aborted", "candidate", "paused")

    def __init__(self, stack: Stack, candidate: Candidate, observer: FlowObserver) -> None:
        self._stack = stack
        self.candidate = candidate
        self.observer = observer
        self.aborted = False
        self.paused = False

    @property
    def stack(self) -> Stack:
        return self._stack

    @property
    def local_address(self) -> Address:
        return Address("192.0.2.254", 50000)

    @property
    def remote_address(self) -> Address:
        return self.candidate.remote

    def send(self, data: object, context: object, end_of_message: bool, token: object) -> bool:
        return True

    def pause_receiving(self) -> None:
        self.paused = True

    def resume_receiving(self) -> None:
        self.paused = False

    def finish(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


class ToyStack(Stack):
    """Connects as ``outcomes`` says for the address: an exception, a future to wait for, or else at once."""

    def __init__(
        self,
        name: str = "toy",
        *,
        selection: Mapping[str, Provision] = RELIABLE,
        rank: int = 10,
        obstacle: str | None = None,
        availability: Availability = Availability(True),  # noqa: B008 - a tuple
        outcomes: Mapping[str, object] | None = None,
        **features: Any,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.features = Features(rank, selection, {}, **features)  # type: ignore[misc]
        self.obstacle = obstacle
        self.availability = availability
        self.outcomes = dict(outcomes or {})
        self.started: list[Candidate] = []
        self.flows: list[ToyFlow] = []
        self.cancelled: list[Candidate] = []

    def available(self) -> Availability:
        return self.availability

    def security_obstacle(self, security: SecurityParameters, *, listening: bool = False) -> str | None:
        return self.obstacle

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        self.started.append(candidate)
        outcome = self.outcomes.get(candidate.remote.ip)
        if isinstance(outcome, asyncio.Future):
            try:
                outcome = await outcome
            except asyncio.CancelledError:
                self.cancelled.append(candidate)
                raise
        if isinstance(outcome, BaseException):
            raise outcome
        flow = ToyFlow(self, candidate, observer)
        self.flows.append(flow)
        return flow

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        raise NotImplementedError


def stacks(*toys: Stack) -> dict[str, Stack]:
    """A registry of these stacks."""
    return {toy.name: toy for toy in toys}


def request(
    remotes: RemoteEndpoint | Sequence[RemoteEndpoint],
    *toys: Stack,
    properties: TransportProperties | None = None,
    security: SecurityParameters | None = None,
    **more: Any,
) -> EstablishmentRequest:
    """A request of stacks without security, with a memory of its own."""
    return EstablishmentRequest(
        [remotes] if isinstance(remotes, RemoteEndpoint) else remotes,
        properties or TransportProperties(),
        security or SecurityParameters.disabled(),
        stacks=stacks(*toys),
        memory=more.pop("memory") if "memory" in more else Memory(),
        **more,
    )


class Names:
    """A look-up that answers when the test says so, or at once from what it was given."""

    def __init__(self, known: Mapping[tuple[str, int], Sequence[str] | BaseException] | None = None) -> None:
        self._known = known
        self.asked: dict[tuple[str, int], asyncio.Future[list[Any]]] = {}

    def __call__(self, host: str, port: int, family: int) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.asked[host, family] = future
        self._port = port
        if self._known is not None:
            self.answer(host, family, self._known.get((host, family), OSError("not known")))
        return future

    def answer(self, host: str, family: int, addresses: Sequence[str] | BaseException) -> None:
        """Let this query be answered."""
        future = self.asked[host, family]
        if isinstance(addresses, BaseException):
            future.set_exception(addresses)
        else:
            future.set_result([(family, 0, 0, "", (ip, self._port)) for ip in addresses])


V4 = int(socket.AF_INET)
V6 = int(socket.AF_INET6)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until this holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def local(port: int | None = None, **identifiers: Any) -> LocalEndpoint:
    """A local endpoint."""
    return LocalEndpoint(port, **identifiers)
