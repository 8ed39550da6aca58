"""The choice among the interfaces of this host, where properties or endpoints name some (RFC 9622 section 6.2.11)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from neatpy.enumerations import Preference
from neatpy.establishment.paths import ANY, Path, bound_to
from neatpy.establishment.ruled_out import RuledOut

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.enumerations import InterfaceType
    from neatpy.establishment.paths import ListInterfaces
    from neatpy.properties import TransportProperties
    from neatpy.system.interfaces import NetworkInterface

    Rule = tuple[Preference, str | InterfaceType]


def chosen_paths(
    properties: TransportProperties,
    local_endpoints: Sequence[LocalEndpoint],
    remote_endpoints: Sequence[RemoteEndpoint],
    list_interfaces: ListInterfaces | None,
) -> tuple[list[Path], list[RuledOut]]:
    """As :func:`~neatpy.establishment.paths.paths`, by a look at the interfaces."""
    unknown = [str(name) for preference, name in properties.pvd if preference is Preference.REQUIRE]
    if unknown:
        reason = f"provisioning domain {', '.join(sorted(unknown))} is required, and this system knows none"
        return [], [RuledOut("every path", (reason,))]
    interfaces = list_interfaces or _system_interfaces
    return _Choice(properties.interface, local_endpoints, remote_endpoints, interfaces).made()


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
        self._remote = {bound_to(endpoint) for endpoint in remote_endpoints}
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


def _matches(interface: NetworkInterface, name: str | InterfaceType) -> bool:
    return interface.name == name if type(name) is str else interface.kind is name


def _spelled(name: str | InterfaceType) -> str:
    if isinstance(name, str) and type(name) is str:
        return f"interface {name}"
    return f"interface type {getattr(name, 'name', name)}".lower()


def _system_interfaces() -> Sequence[NetworkInterface]:
    from neatpy.system.interfaces import interfaces

    return interfaces()
