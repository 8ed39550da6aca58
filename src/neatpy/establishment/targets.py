"""What remote endpoints come to without resolution: addresses that are literals, and the ports of services.

Names are a matter of :mod:`~neatpy.establishment.resolution`. It knows nothing about stacks or paths.
"""

from __future__ import annotations

import socket
from types import MappingProxyType
from typing import TYPE_CHECKING

from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks.contract import Address

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.establishment.service_bindings import Binding

_WELL_KNOWN_PORTS = MappingProxyType(
    {
        "ssh": 22, "smtp": 25, "domain": 53, "http": 80, "ntp": 123, "imap": 143, "ldap": 389, "https": 443,
        "submission": 587, "ldaps": 636, "domain-s": 853, "imaps": 993, "pop3s": 995, "stun": 3478, "sip": 5060,
        "mqtt": 1883, "secure-mqtt": 8883,
    }
)  # fmt: skip
"""For hosts without a services file, such as small containers."""


class Target:
    """One address to try, and the remote endpoint it was derived from. ``binding`` is what a record says of the
    address: it is for the stacks that the record names alone. ``server_name`` is the endpoint's host even then."""

    __slots__ = ("address", "binding", "endpoint", "server_name")

    def __init__(
        self,
        address: Address,
        endpoint: RemoteEndpoint,
        server_name: str | None,
        binding: Binding | None = None,
    ) -> None:
        self.address = address
        self.endpoint = endpoint
        self.server_name = server_name
        self.binding = binding


def check_remote(endpoint: RemoteEndpoint) -> None:
    """Raises EstablishmentError for an endpoint that cannot be dialled as it stands: INVALID_CONFIGURATION, or
    NO_CANDIDATES for multicast groups, which no stack offers so far."""
    if endpoint.multicast_group is not None:
        raise EstablishmentError("no stack on this host offers multicast", Reason.NO_CANDIDATES)
    if endpoint.address is None and endpoint.hostname is None:
        raise EstablishmentError(
            "a remote endpoint needs a host name or an address", Reason.INVALID_CONFIGURATION
        )
    if endpoint.port is None and endpoint.service is None:
        host = endpoint.hostname or endpoint.address
        raise EstablishmentError(
            f"the remote endpoint {host} needs a port or a service", Reason.INVALID_CONFIGURATION
        )


def literal(endpoint: RemoteEndpoint) -> Target | None:
    """The target of an endpoint that needs no resolution, or None.

    Raises EstablishmentError(RESOLUTION_FAILED) for a service that is not known.
    """
    ip = endpoint.address
    if ip is None:
        return None
    port = endpoint.port
    if port is None:
        assert endpoint.service is not None
        port = port_of_service(endpoint.service)
    # A zone makes only sense for addresses that are not global; for these an interface is a path, not a zone.
    scope = endpoint.interface if endpoint.interface and is_link_local(ip) else ""
    return Target(Address(ip, port, scope), endpoint, endpoint.hostname)


def is_link_local(ip: str) -> bool:
    """Whether this is an IPv6 address that means nothing without a zone: link-local unicast or multicast."""
    return ip[:3].lower() in ("fe8", "fe9", "fea", "feb") or ip[:4].lower() in (
        "ff01",
        "ff02",
        "ff11",
        "ff12",
    )


def port_of_service(service: str) -> int:
    """The port of an IANA service name. Raises EstablishmentError(RESOLUTION_FAILED) if there is none."""
    try:
        return socket.getservbyname(service)
    except OSError:
        port = _WELL_KNOWN_PORTS.get(service.lower())
    if port is None:
        raise EstablishmentError(
            f"the service {service!r} is not known on this host: give a port", Reason.RESOLUTION_FAILED
        )
    return port


def is_srv_name(service: str) -> bool:
    """Whether a service is named as in DNS SRV records (``_imap._tcp``)."""
    return service.startswith("_")


def port_of(endpoint: LocalEndpoint | RemoteEndpoint) -> int:
    """The port that an endpoint names by number or service; 0 if it names none.

    Raises EstablishmentError(RESOLUTION_FAILED) for a service that is not known.
    """
    if endpoint.port is not None:
        return endpoint.port
    return 0 if endpoint.service is None else port_of_service(endpoint.service)
