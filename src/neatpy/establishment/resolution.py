"""From names of remote endpoints to addresses, by both families at the same time (RFC 8305).

Names go to the host's own resolver, one look-up for each family, in the loop's executor; DNS SRV names need dnspython.
Answers may come one after the other: a race can begin with the first and take in the rest. It knows nothing about
stacks or paths.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.targets import Target, port_of_service
from neatpy.stacks.contract import Address

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint

Lookup = Callable[[str, int, int], "asyncio.Future[list[Any]]"]
"""Host, port and address family -> a future of what ``socket.getaddrinfo`` gives."""

RESOLUTION_DELAY = 0.05
"""Seconds that a race waits for IPv6 addresses when IPv4 addresses are already there (RFC 8305 section 3)."""


def is_srv_name(service: str) -> bool:
    """Whether a service is named as in DNS SRV records (``_imap._tcp``)."""
    return service.startswith("_")


def lookup(host: str, port: int, family: int) -> asyncio.Future[list[Any]]:
    """Ask the host's resolver, in the executor of the running loop."""
    return asyncio.get_running_loop().run_in_executor(None, _ask_host, host, port, family)


async def addresses_of(endpoint: RemoteEndpoint, lookup: Lookup = lookup) -> list[str]:
    """The IP addresses of a remote endpoint, IPv6 first; none if it names no host.

    Raises EstablishmentError(RESOLUTION_FAILED) if its name has no address.
    """
    if endpoint.address is None and endpoint.hostname is None:
        return []
    _, found = await resolve_endpoints((), (endpoint,), lookup)
    return [one.address for one in found if one.address is not None]


async def resolve_endpoints(
    local_endpoints: Sequence[LocalEndpoint],
    remote_endpoints: Sequence[RemoteEndpoint],
    lookup: Lookup = lookup,
) -> tuple[list[LocalEndpoint], list[RemoteEndpoint]]:
    """The endpoints with names turned into addresses and services into ports (RFC 9622 section 7.3).

    A remote host name is kept beside each of its addresses, since it is what security verifies. Raises
    EstablishmentError(RESOLUTION_FAILED) if nothing of the remote endpoints could be resolved.
    """
    answered = asyncio.Event()
    names = [
        endpoint
        for endpoint in remote_endpoints
        if endpoint.address is None and endpoint.hostname is not None
    ]
    resolution = Resolution(names, answered.set, lookup)
    resolution.start()
    await resolution.wait(answered)
    targets = resolution.take()
    remotes = []
    for endpoint in remote_endpoints:
        if endpoint.address is not None:
            remotes.append(_with_port(endpoint))
        for target in targets:
            if target.endpoint is endpoint:
                remotes.append(_at(endpoint, target.address))
    if resolution.failures and not remotes:
        name, error = resolution.failures[0]
        raise EstablishmentError(f"the name {name} could not be resolved: {error}", Reason.RESOLUTION_FAILED)
    return [_with_port(endpoint) for endpoint in local_endpoints], remotes


class Resolution:
    """The names of some remote endpoints on their way to addresses. ``changed`` is called after every answer."""

    __slots__ = ("_changed", "_lookup", "_names", "_taken", "failures")

    def __init__(
        self, endpoints: Sequence[RemoteEndpoint], changed: Callable[[], None], lookup: Lookup
    ) -> None:
        self._changed = changed
        self._lookup = lookup
        self._taken = False
        self.failures: list[tuple[str, BaseException]] = []
        self._names = [_Name(endpoint, self) for endpoint in endpoints]

    def start(self) -> None:
        """Send all queries at the same time."""
        for name in self._names:
            name.start()

    @property
    def pending(self) -> bool:
        """Whether answers are still to come."""
        return any(name.pending for name in self._names)

    def ready_at(self) -> float | None:
        """When a race may begin with what there is, in the time of ``time.monotonic``; None if there is nothing yet."""
        times = [at for name in self._names if (at := name.ready_at()) is not None]
        return min(times, default=None)

    def take(self) -> list[Target]:
        """The targets that have arrived since the last call, in order of preference."""
        return [target for name in self._names for target in name.take()]

    async def wait(self, answered: asyncio.Event) -> None:
        """Wait for every answer, however late; ``answered.set`` is what ``changed`` was."""
        try:
            while self.pending:
                await answered.wait()
                answered.clear()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Nobody wants the answers any more."""
        for name in self._names:
            name.cancel()


class _Name:
    """One name: its SRV look-up, if it needs one, and its two queries for each host."""

    __slots__ = ("_answers", "_endpoint", "_futures", "_owner", "_seen", "_waiting")

    def __init__(self, endpoint: RemoteEndpoint, owner: Resolution) -> None:
        self._endpoint = endpoint
        self._owner = owner
        self._futures: list[asyncio.Future[Any]] = []
        self._waiting = 0
        self._answers: list[_Answers] = []
        self._seen: set[Address] = set()

    @property
    def pending(self) -> bool:
        return self._waiting > 0

    def start(self) -> None:
        endpoint = self._endpoint
        host, port, service = endpoint.hostname, endpoint.port, endpoint.service
        assert host is not None
        if port is None and service is not None:
            if is_srv_name(service):
                query = f"{service}.{host}"
                future = asyncio.get_running_loop().run_in_executor(None, _srv_records, query)
                self._follow(future, partial(self._srv_answered, query))
                return
            try:
                port = port_of_service(service)
            except EstablishmentError as error:
                self._owner.failures.append((host, error))
                return
        self._query(host, port or 0)

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()

    def ready_at(self) -> float | None:
        times = [at for answers in self._answers if (at := answers.ready_at()) is not None]
        return min(times, default=None)

    def take(self) -> list[Target]:
        name = self._endpoint.hostname
        found = []
        for answers in self._answers:
            for address in answers.take():
                if address not in self._seen:
                    self._seen.add(address)
                    found.append(Target(address, self._endpoint, name))
        return found

    def _query(self, host: str, port: int) -> None:
        answers = _Answers(host)
        self._answers.append(answers)
        for family in (socket.AF_INET6, socket.AF_INET):
            future = self._owner._lookup(host, port, family)
            self._follow(future, partial(self._answered, answers, family))

    def _follow(self, future: asyncio.Future[Any], answered: Callable[[asyncio.Future[Any]], None]) -> None:
        self._waiting += 1
        self._futures.append(future)
        future.add_done_callback(answered)

    def _answered(self, answers: _Answers, family: int, future: asyncio.Future[list[Any]]) -> None:
        self._waiting -= 1
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            answers.add(family, [_address(entry[4]) for entry in future.result()])
        else:
            answers.add(family, [])
            answers.error = error
        if not answers.pending and not answers.found:
            self._owner.failures.append((answers.host, answers.error or OSError("it has no addresses")))
        self._owner._changed()

    def _srv_answered(self, query: str, future: asyncio.Future[list[tuple[str, int]]]) -> None:
        self._waiting -= 1
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._owner.failures.append((query, error))
        else:
            for host, port in future.result():
                self._query(host, port)
        self._owner._changed()


class _Answers:
    """The addresses of one host, by family, as they come in."""

    __slots__ = ("_by_family", "_first_at", "error", "found", "host")

    def __init__(self, host: str) -> None:
        self.host = host
        self.error: BaseException | None = None
        self.found = False
        self._by_family: dict[int, list[Address]] = {}
        self._first_at: float | None = None

    @property
    def pending(self) -> bool:
        return len(self._by_family) < 2

    def add(self, family: int, addresses: list[Address]) -> None:
        self._by_family[family] = addresses
        if addresses and self._first_at is None:
            self.found = True
            self._first_at = time.monotonic()

    def ready_at(self) -> float | None:
        if self._first_at is None:
            return None
        if not self.pending or self._by_family.get(socket.AF_INET6):
            return self._first_at
        return self._first_at + RESOLUTION_DELAY

    def take(self) -> list[Address]:
        return interleaved(self._by_family.get(socket.AF_INET6, ()), self._by_family.get(socket.AF_INET, ()))


def interleaved(first: Sequence[Address], second: Sequence[Address]) -> list[Address]:
    """The addresses of two families by turns, so that a broken family costs one attempt (RFC 8305 section 4)."""
    merged: list[Address] = []
    for index in range(max(len(first), len(second))):
        merged.extend(first[index : index + 1])
        merged.extend(second[index : index + 1])
    return merged


_LocalOrRemote = TypeVar("_LocalOrRemote", "LocalEndpoint", "RemoteEndpoint")


def _with_port(endpoint: _LocalOrRemote) -> _LocalOrRemote:
    copy = endpoint.copy()
    if copy.port is None and copy.service is not None:
        copy.with_port(port_of_service(copy.service))
    return copy


def _at(endpoint: RemoteEndpoint, address: Address) -> RemoteEndpoint:
    copy = endpoint.copy().with_ip_address(address.ip)
    if address.scope:
        copy.with_interface(address.scope)
    if address.port:
        copy.with_port(address.port)
    return copy


def _address(sockaddr: tuple[Any, ...]) -> Address:
    ip, _, zone = str(sockaddr[0]).partition("%")
    if not zone and len(sockaddr) == 4 and sockaddr[3]:
        zone = _zone(sockaddr[3])
    return Address(ip, sockaddr[1], zone)


def _zone(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _ask_host(host: str, port: int, family: int) -> list[Any]:
    return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)


def _srv_records(query: str) -> list[tuple[str, int]]:
    """Hosts and ports, the lowest priority and then the greatest weight first (RFC 2782, but without its dice: the
    same inputs give the same order)."""
    try:
        import dns.resolver
    except ImportError:
        raise EstablishmentError(
            f"the DNS SRV name {query} cannot be looked up: install dnspython, or give a port",
            Reason.RESOLUTION_FAILED,
        ) from None
    records = sorted(
        dns.resolver.resolve(query, "SRV"),
        key=lambda record: (record.priority, -record.weight, str(record.target)),
    )
    hosts = [(str(record.target).rstrip("."), int(record.port)) for record in records]
    return [(host, port) for host, port in hosts if host]
