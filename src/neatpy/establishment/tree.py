"""The candidate tree: paths, then protocols, then endpoints (RFC 9623 section 4.1).

It combines what was gathered into leaves that are each one attempt. The same inputs give the same order. It knows no
timers; racing does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from neatpy.enumerations import Preference
from neatpy.establishment.candidates import Gathered, hop_limit, leaf_key
from neatpy.establishment.paths import Path
from neatpy.establishment.policy import RankedStack, known_stacks
from neatpy.establishment.ruled_out import RuledOut
from neatpy.establishment.service_bindings import NO_ADVICE, Advice, Binding
from neatpy.establishment.targets import Target, is_link_local, port_of
from neatpy.stacks.contract import Address, Candidate

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.establishment.memory import Key, Memory


class ProtocolBranch:
    """One stack on one path; its leaves are the addresses, in the order to try them. ``advised`` is what the peer's
    records say of the stack."""

    __slots__ = ("advised", "bindings", "demoted", "label", "leaves", "path", "ranked", "taken")

    def __init__(
        self, ranked: RankedStack, path: Path, label: str, demoted: bool, advised: Sequence[str]
    ) -> None:
        self.ranked = ranked
        self.path = path
        self.label = label
        self.demoted = demoted
        self.advised = advised
        self.leaves: list[Candidate] = []
        self.bindings: dict[Candidate, Binding] = {}
        """By which record the leaves were found that were found by one."""
        self.taken: set[tuple[Address, int]] = set()
        """Addresses that have leaves, and the identity of their endpoint."""


class PathBranch:
    """One path with its stacks, best first."""

    __slots__ = ("label", "path", "protocols")

    def __init__(self, path: Path, label: str, protocols: list[ProtocolBranch]) -> None:
        self.path = path
        self.label = label
        self.protocols = protocols


class CandidateTree:
    """All candidates of a request. Targets may be added while the race is on."""

    __slots__ = ("_advice", "_gathered", "_memory", "_now", "paths", "ruled_out_addresses")

    def __init__(
        self,
        gathered: Gathered,
        targets: Sequence[Target],
        memory: Memory | None,
        now: float,
        advice: Advice = NO_ADVICE,
    ) -> None:
        self._advice = advice
        self._gathered = gathered
        self._memory = memory
        self._now = now
        self.ruled_out_addresses: list[RuledOut] = []
        self.paths = [self._path_branch(place, path) for place, path in enumerate(gathered.paths, 1)]
        self.add(targets)

    def add(self, targets: Sequence[Target]) -> list[tuple[ProtocolBranch, list[Candidate]]]:
        """Take in these targets; returns the new leaves of each branch that got some."""
        grown = []
        for branch in self.branches():
            leaves = self._leaves(branch, targets)
            if leaves:
                branch.leaves.extend(leaves)
                grown.append((branch, leaves))
        return grown

    def branches(self) -> Iterator[ProtocolBranch]:
        """Every protocol branch, in order."""
        for path in self.paths:
            yield from path.protocols

    def leaves(self) -> list[Candidate]:
        """Every candidate, in order."""
        return [leaf for branch in self.branches() for leaf in branch.leaves]

    def is_demoted(self, leaf: Candidate) -> bool:
        """Whether a failure is remembered of this leaf's address, so that it comes behind its siblings."""
        return self._memory is not None and self._memory.demotes(leaf_key(leaf), self._now)

    def host_keys(self, branch: ProtocolBranch) -> list[Key]:
        """Under which names results of the whole branch are remembered."""
        return _host_keys(self._gathered.request.remote_endpoints, branch.ranked, branch.path)

    def _path_branch(self, place: int, path: Path) -> PathBranch:
        label = str(place)
        stacks = self._gathered.stacks
        demoted: set[RankedStack] = set()
        memory = self._memory
        if memory is not None and len(memory) and len(stacks) > 1:
            endpoints = self._gathered.request.remote_endpoints
            for ranked in stacks:
                if all(memory.demotes(key, self._now) for key in _host_keys(endpoints, ranked, path)):
                    demoted.add(ranked)
        advice = {ranked: self._advice.of(ranked.stack.name) for ranked in stacks} if self._advice else {}
        if demoted or advice:
            stacks = sorted(
                stacks, key=lambda ranked: ranked.order(ranked in demoted, advice.get(ranked, _NONE)[0])
            )
        protocols = [
            ProtocolBranch(ranked, path, f"{label}.{number}", ranked in demoted, advice.get(ranked, _NONE)[1])
            for number, ranked in enumerate(stacks, 1)
        ]
        return PathBranch(path, label, protocols)

    def _leaves(self, branch: ProtocolBranch, targets: Sequence[Target]) -> list[Candidate]:
        request = self._gathered.request
        stack = branch.ranked.stack
        remotes = _scoped(request.remote_endpoints, stack.name)
        local_endpoints = _scoped(request.local_endpoints, stack.name)
        found: list[Candidate] = []
        for target in targets:
            binding = target.binding
            if binding is not None and not binding.is_for(stack.name):
                continue
            if remotes is not request.remote_endpoints and all(target.endpoint is not one for one in remotes):
                self._pass_over(target, stack.name)
                continue
            identity = (target.address, id(target.endpoint))
            if identity in branch.taken:
                continue  # by a record and without one
            obstacle = self._obstacle(target, branch.path)
            places = [] if obstacle else _local_places(local_endpoints, target.address, branch.path)
            if obstacle is None and not places:
                obstacle = "no local endpoint on this path is of its address family"
            if obstacle:
                self._rule_out(target, branch.path, obstacle)
            else:
                branch.taken.add(identity)
            for local in places:
                candidate = Candidate(
                    stack,
                    target.address,
                    request.properties,
                    request.security,
                    local=local,
                    interface=branch.path.interface,
                    server_name=target.server_name,
                    hop_limit=hop_limit(target.endpoint, local_endpoints),
                    early=request.early,
                )
                found.append(candidate)
                if binding is not None:
                    branch.bindings[candidate] = binding
        memory = self._memory
        if memory is not None and len(memory) and len(found) > 1:
            found.sort(key=lambda leaf: memory.demotes(leaf_key(leaf), self._now))
        for number, candidate in enumerate(found, len(branch.leaves) + 1):
            candidate.label = f"{branch.label}.{number}"
        return found

    def _obstacle(self, target: Target, path: Path) -> str | None:
        address, named = target.address, target.endpoint.interface
        if not address.is_ipv6 and (
            self._gathered.request.properties.use_temporary_local_address is Preference.REQUIRE
        ):
            return "temporary local addresses are required, and IPv4 has none"
        if path.interface is None:
            return _HAS_A_PATH_OF_ITS_OWN if named and not address.scope else None
        if named and named != path.interface:
            return f"its endpoint is on {named}"
        if path.is_loopback != (address.ip == "::1" or address.ip.startswith("127.")):
            if not path.is_loopback:
                return "a loopback address cannot be reached there"
            from neatpy.system.interfaces import is_own

            if not is_own(address.ip, address.scope):
                return "only addresses of this host can be reached there"
        return None

    def _rule_out(self, target: Target, path: Path, reason: str) -> None:
        if reason is _HAS_A_PATH_OF_ITS_OWN:
            return
        self._note(f"{target.address} on path {path}", reason)

    def _pass_over(self, target: Target, stack: str) -> None:
        """Its endpoint is for another stack, or one that is for this stack only stands in for it."""
        own = target.endpoint.protocol
        reason = f"its endpoint is for {own} only" if own else f"another endpoint is for {stack} only"
        if own and own.lower() not in known_stacks(self._gathered.request.stacks):
            reason += ", and there is no stack of that name"
        self._note(f"{target.address} with {stack}", reason)

    def _note(self, what: str, reason: str) -> None:
        if all(entry.what != what for entry in self.ruled_out_addresses):
            self.ruled_out_addresses.append(RuledOut(what, (reason,)))


_NONE: tuple[int, tuple[str, ...]] = (0, ())
_HAS_A_PATH_OF_ITS_OWN = "it is tried on the path of its own interface"


_Endpoint = TypeVar("_Endpoint", "LocalEndpoint", "RemoteEndpoint")


def _scoped(endpoints: Sequence[_Endpoint], stack: str) -> Sequence[_Endpoint]:
    """The endpoints that are for this stack: those scoped to it, or else those that are for any."""
    for endpoint in endpoints:
        if endpoint.protocol:
            break
    else:
        return endpoints
    wanted = stack.lower()
    own = [endpoint for endpoint in endpoints if endpoint.protocol and endpoint.protocol.lower() == wanted]
    return own or [endpoint for endpoint in endpoints if not endpoint.protocol]


def _local_places(endpoints: Sequence[LocalEndpoint], remote: Address, path: Path) -> list[Address | None]:
    """The local addresses to bind to on this path; None binds to nothing in particular."""
    if not endpoints:
        return [None]
    places: list[Address | None] = []
    for endpoint in endpoints:
        if endpoint.interface and path.interface is not None and endpoint.interface != path.interface:
            continue
        ip, port = endpoint.address, port_of(endpoint)
        place = None
        if ip is not None:
            if (":" in ip) is not remote.is_ipv6:
                continue
            zone = endpoint.interface or path.interface
            place = Address(ip, port, zone if zone and is_link_local(ip) else "")
        elif port:
            place = Address("::" if remote.is_ipv6 else "0.0.0.0", port)
        if place not in places:
            places.append(place)
    return places


def _host_keys(endpoints: Sequence[RemoteEndpoint], ranked: RankedStack, path: Path) -> list[Key]:
    name, interface = ranked.stack.name, path.interface
    return [
        (endpoint.hostname or endpoint.address or "", endpoint.port or 0, name, interface)
        for endpoint in endpoints
    ]
