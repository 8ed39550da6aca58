"""Which network paths there are for these properties and endpoints, best first (RFC 9622 sections 6.2.11 and 6.2.12).

A path here is an interface to bind to, or none, in which case the system routes. Interfaces are only looked at when
properties or endpoints name some. It knows nothing about stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from neatpy.establishment.targets import is_link_local

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.establishment.ruled_out import RuledOut
    from neatpy.properties import TransportProperties
    from neatpy.system.interfaces import NetworkInterface

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
    if not properties.interface and not properties.pvd:
        for endpoint in local_endpoints:
            if endpoint.interface:
                break
        else:
            for remote in remote_endpoints:
                if remote.interface and bound_to(remote):
                    break
            else:
                return _ONLY_ANY
    from neatpy.establishment.interface_choice import chosen_paths

    return chosen_paths(properties, local_endpoints, remote_endpoints, list_interfaces)


def bound_to(endpoint: RemoteEndpoint) -> str | None:
    """The interface that an endpoint is to be reached by; the zone of a link-local address binds nothing."""
    if endpoint.interface and endpoint.address is not None and is_link_local(endpoint.address):
        return None
    return endpoint.interface
