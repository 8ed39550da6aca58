"""Which network paths there are for these properties and endpoints, best first (RFC 9622 sections 6.2.11 and 6.2.12).

A path here is an interface to bind to, or none, in which case the system routes. Interfaces are only looked at when
properties or endpoints name some. It knows nothing about stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from neatpy.enumerations import Preference
from neatpy.establishment.ruled_out import RuledOut
from neatpy.establishment.targets import is_link_local

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.enumerations import InterfaceType
    from neatpy.properties import TransportProperties
    from neatpy.system.interfaces import NetworkInterface

    Rule = tuple[Preference, str | InterfaceType]
    ListInterfaces = Callable[[], Sequence[NetworkInterface]]


class Path:
    """One path. ``interface`` is None when the system chooses the route; ``reasons`` say why it ranks where it does."""

    __slots__ = ("interface", "is_loopback", "reasons")

    def __init__(
        self, interface: str | None, reasons: Sequence[str] = (), *, is_loopback: bool = False
    ) -> None:
        self.interface = interface
        self.is_loopback = is_loopback
        self.reasons = tuple(reasons)

    def __repr__(self) -> str:
        return self.interface or "any"


_SYSTEM_ROUTES = "the system chooses the route"
ANY = Path(None, (_SYSTEM_ROUTES,))
_ONLY_ANY: tuple[list[Path], list[RuledOut]] = ([ANY], [])


def paths(
    properties: TransportProperties,
    local_endpoints: Sequence[LocalEndpoint] = (),
    remote_endpoints: Sequence[RemoteEndpoint] = (),
    list_interfaces: ListInterfaces | None = None,
) -> tuple[list[Path], list[RuledOut]]:
    """The eligible paths, best first, and what was ruled out with the reasons. The lists are not to be changed.

    Require and Prohibit prune; Prefer ranks before Avoid; what ties stays in the order of interface indexes, loopback
    last. Local endpoints with interfaces confine the paths to these, unless another local endpoint has none.
    """
    rules = properties.interface
    domains = properties.pvd
    if not rules and not domains:
        for endpoint in local_endpoints:
            if endpoint.interface:
                break
        else:
            for remote in remote_endpoints:
                if remote.interface and _bound_to(remote):
                    break
            else:
                return _ONLY_ANY
    unknown_domains = [str(name) for preference, name in domains if preference is Preference.REQUIRE]
    if unknown_domains:
        reason = f"provisioning domain {', '.join(sorted(unknown_domains))} is required, and this system knows none"
        return [], [RuledOut("every path", (reason,))]
    return _Choice(rules, local_endpoints, remote_endpoints, list_interfaces or _system_interfaces).made()


class _Choice:
    """The choice among the interfaces of this host."""

    __slots__ = ("_interfaces", "_local", "_remote", "_ruled_out", "_rules")

    def __init__(
        self,
        rules: Iterable[Rule],
        local_endpoints: Sequence[LocalEndpoint],
        remote_endpoints: Sequence[RemoteEndpoint],
        list_interfaces: ListInterfaces,
    ) -> None:
        self._rules = sorted(rules, key=lambda rule: (str(rule[0]), str(rule[1])))
        self._local = {endpoint.interface for endpoint in local_endpoints}
        self._remote = {_bound_to(endpoint) for endpoint in remote_endpoints}
        self._interfaces = list_interfaces()
        self._ruled_out: list[RuledOut] = []

    def made(self) -> tuple[list[Path], list[RuledOut]]:
        self._note_unknown_names()
        ranked = sorted(filter(None, map(self._judged, self._interfaces)), key=lambda entry: entry[0])
        paths = [path for _, path in ranked]
        if self._system_may_choose():
            # What is preferred, or named by an endpoint, comes first; behind it the system may still do as it likes.
            wanted = [path for path in paths if path.reasons or path.interface in self._remote]
            paths = [*wanted, ANY]
        return paths, self._ruled_out

    def _system_may_choose(self) -> bool:
        if any(self._local) and None not in self._local:
            return False
        if self._remote and None not in self._remote:
            return False
        return not any(rule[0] in _CONFINING for rule in self._rules)

    def _judged(self, interface: NetworkInterface) -> tuple[tuple[int, int, bool, int], Path] | None:
        obstacles = self._obstacles(interface)
        if obstacles:
            self._ruled_out.append(RuledOut(f"path {interface.name}", tuple(obstacles)))
            return None
        preferred, avoided, reasons = 0, 0, []
        for preference, name in self._rules:
            if not _matches(interface, name):
                continue
            if preference is Preference.PREFER:
                preferred += 1
                reasons.append(f"{_spelled(name)} is preferred")
            elif preference is Preference.AVOID:
                avoided += 1
                reasons.append(f"{_spelled(name)} is to be avoided")
            elif preference is Preference.REQUIRE:
                reasons.append(f"{_spelled(name)} is required")
        if interface.name in self._local:
            reasons.append("a local endpoint names it")
        path = Path(interface.name, reasons, is_loopback=interface.is_loopback)
        return (-preferred, avoided, interface.is_loopback, interface.index), path

    def _obstacles(self, interface: NetworkInterface) -> list[str]:
        obstacles = []
        if not interface.up:
            obstacles.append("it is down")
        if any(self._local) and None not in self._local and interface.name not in self._local:
            obstacles.append("no local endpoint is on it")
        if self._remote and None not in self._remote and interface.name not in self._remote:
            obstacles.append("no remote endpoint is on it")
        for preference, name in self._rules:
            if preference is Preference.PROHIBIT and _matches(interface, name):
                obstacles.append(f"{_spelled(name)} is prohibited")
            elif preference is Preference.REQUIRE and not _matches(interface, name):
                obstacles.append(f"{_spelled(name)} is required")
        return obstacles

    def _note_unknown_names(self) -> None:
        known = {interface.name for interface in self._interfaces}
        named = {name for _, name in self._rules if type(name) is str} | self._local | self._remote
        for name in sorted(name for name in named if name and name not in known):
            self._ruled_out.append(RuledOut(f"path {name}", ("this host has no such interface",)))


_CONFINING = frozenset({Preference.REQUIRE, Preference.PROHIBIT, Preference.AVOID})
"""With one of these the system cannot be left to choose, since it might choose what is unwanted."""


def _bound_to(endpoint: RemoteEndpoint) -> str | None:
    """The interface that an endpoint is to be reached by; the zone of a link-local address binds nothing."""
    if endpoint.interface and endpoint.address is not None and is_link_local(endpoint.address):
        return None
    return endpoint.interface


def _matches(interface: NetworkInterface, name: str | InterfaceType) -> bool:
    return interface.name == name if type(name) is str else interface.kind is name


def _spelled(name: str | InterfaceType) -> str:
    if isinstance(name, str) and type(name) is str:
        return f"interface {name}"
    return f"interface type {getattr(name, 'name', name)}".lower()


def _system_interfaces() -> Sequence[NetworkInterface]:
    from neatpy.system.interfaces import interfaces

    return interfaces()
