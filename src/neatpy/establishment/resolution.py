"""From names of remote endpoints to addresses, by both families at the same time (RFC 8305).

Names go to the host's own resolver, one look-up for each family, in the loop's executor; DNS SRV names need dnspython,
and SVCB and HTTPS records are asked for beside it all (:mod:`~neatpy.establishment.service_search`). Answers may come
one after the other: a race can begin with the first and take in the rest. It knows nothing about stacks or paths.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.answers import Answers, Lookup, address_of
from neatpy.establishment.service_bindings import Advice, Binding, question_for
from neatpy.establishment.service_search import SERVICE_DELAY, AskService, ServiceSearch
from neatpy.establishment.targets import Target, is_srv_name, port_of_service
from neatpy.stacks.contract import Address

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint


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
    """The names of some remote endpoints on their way to addresses. ``changed`` is called after every answer.

    ``ask`` is whom to ask for SVCB and HTTPS records, None for nobody; of these, only what offers one of the protocols
    ``alpn`` counts, or anything if there are none.
    """

    __slots__ = ("_alpn", "_ask", "_changed", "_lookup", "_names", "failures")

    def __init__(
        self,
        endpoints: Sequence[RemoteEndpoint],
        changed: Callable[[], None],
        lookup: Lookup,
        ask: AskService | None = None,
        alpn: tuple[str, ...] = (),
    ) -> None:
        self._changed = changed
        self._lookup = lookup
        self._ask = ask
        self._alpn = alpn
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

    @property
    def advice(self) -> Advice:
        """How the records that have arrived rank stacks."""
        return Advice(name.bindings for name in self._names)

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
    """One name: its SRV look-up, if it needs one, its two queries for each host, and the search for its service."""

    __slots__ = ("_answers", "_endpoint", "_futures", "_owner", "_search", "_seen", "_waiting")

    def __init__(self, endpoint: RemoteEndpoint, owner: Resolution) -> None:
        self._endpoint = endpoint
        self._owner = owner
        self._futures: list[asyncio.Future[Any]] = []
        self._waiting = 0
        self._answers: list[Answers] = []
        self._search: ServiceSearch | None = None
        self._seen: set[tuple[Address, Binding | None]] = set()

    @property
    def pending(self) -> bool:
        return self._waiting > 0 or (self._search is not None and self._search.pending)

    @property
    def bindings(self) -> Sequence[Binding]:
        return () if self._search is None else self._search.bindings

    def start(self) -> None:
        endpoint = self._endpoint
        host, port, service = endpoint.hostname, endpoint.port, endpoint.service
        assert host is not None
        if port is None and service is not None:
            if is_srv_name(service):
                from neatpy.establishment.dns_records import srv_records

                query = f"{service}.{host}"
                future = asyncio.get_running_loop().run_in_executor(None, srv_records, query)
                self._follow(future, partial(self._srv_answered, query))
                return
            try:
                port = port_of_service(service)
            except EstablishmentError as error:
                self._owner.failures.append((host, error))
                return
        answers = self._query(host, port or 0)
        owner = self._owner
        question = question_for(endpoint) if owner._ask is not None else None
        if owner._ask is not None and question is not None and port is not None:
            self._search = ServiceSearch(
                question, answers, port, owner._alpn, owner._ask, owner._lookup, owner._changed
            )
            self._search.start()

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()
        if self._search is not None:
            self._search.cancel()

    def ready_at(self) -> float | None:
        times = [at for answers in self._answers if (at := answers.ready_at()) is not None]
        search = self._search
        if search is None:
            return min(times, default=None)
        if (at := search.ready_at()) is not None:
            times.append(at)
        return min(times) + SERVICE_DELAY * search.pending if times else None

    def take(self) -> list[Target]:
        found: list[tuple[Address, Binding | None]] = []
        if self._search is not None:
            found += self._search.found()
        found += [(address, None) for answers in self._answers for address in answers.take()]
        fresh = [each for each in dict.fromkeys(found) if each not in self._seen]
        self._seen.update(fresh)
        name = self._endpoint.hostname
        return [Target(address, self._endpoint, name, binding) for address, binding in fresh]

    def _query(self, host: str, port: int) -> Answers:
        answers = Answers(host)
        self._answers.append(answers)
        for family in (socket.AF_INET6, socket.AF_INET):
            future = self._owner._lookup(host, port, family)
            self._follow(future, partial(self._answered, answers, family))
        return answers

    def _follow(self, future: asyncio.Future[Any], answered: Callable[[asyncio.Future[Any]], None]) -> None:
        self._waiting += 1
        self._futures.append(future)
        future.add_done_callback(answered)

    def _answered(self, answers: Answers, family: int, future: asyncio.Future[list[Any]]) -> None:
        self._waiting -= 1
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            answers.add(family, [address_of(entry[4]) for entry in future.result()])
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


def _ask_host(host: str, port: int, family: int) -> list[Any]:
    return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
