"""Local and Remote Endpoints: where Connections start and lead to (RFC 9622 section 6.1). Plain data.

An endpoint holds at most one identifier of each kind. Everything is checked when it is given; nothing is looked up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

_E = TypeVar("_E", bound="_Endpoint")

_INTERFACE_NAME_LIMIT = 64


class StunServer:
    """A STUN or TURN server, and the (user, password) it wants, if any. Nobody changes it."""

    __slots__ = ("address", "credentials", "port")

    def __init__(self, address: str, port: int, credentials: tuple[str, str] | None = None) -> None:
        self.address = address
        self.port = port
        self.credentials = credentials

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StunServer):
            return NotImplemented
        ours = (self.address, self.port, self.credentials)
        return ours == (other.address, other.port, other.credentials)

    def __hash__(self) -> int:
        return hash((self.address, self.port, self.credentials))

    def __repr__(self) -> str:
        """Without the password, for logs."""
        who = "" if self.credentials is None else f", credentials=({self.credentials[0]!r}, ...)"
        return f"StunServer({self.address!r}, {self.port}{who})"


class _Endpoint:
    """What both kinds of endpoint can hold. Attributes are None until they are set."""

    __slots__ = (
        "address",
        "hop_limit",
        "interface",
        "multicast_group",
        "multicast_source",
        "port",
        "protocol",
        "service",
    )

    address: str | None
    """An IP address literal, without zone."""
    port: int | None
    service: str | None
    """An IANA service name or a DNS SRV name."""
    interface: str | None
    """Name of a network interface; of a link-local address, its zone."""
    protocol: str | None
    """Name of the one stack that this endpoint is for."""
    hop_limit: int | None
    """TTL or hop limit of packets."""
    multicast_group: str | None
    """An address literal."""
    multicast_source: str | None
    """The one source of the group that is wanted."""

    _identifiers: ClassVar[Callable[[Any], tuple[object, ...]]]
    """All identifiers of one; a program that connects often compares often."""

    def _clear(self) -> None:
        self.address = self.service = self.interface = self.protocol = None
        self.multicast_group = self.multicast_source = None
        self.port = self.hop_limit = None

    def with_service(self: _E, service: str) -> _E:
        """Name the service instead of a port: an IANA name (``https``) or a DNS SRV name (``_xmpp-client._tcp``)."""
        _check_type("a service", service, str)
        if not _is_service(service):
            raise ValueError(f"a service is an IANA name (https) or an SRV name (_sip._udp), not {service!r}")
        return self._once("service", service)

    def with_ip_address(self: _E, address: object) -> _E:
        """Set the IP address: a string or an ``ipaddress`` object; a zone (``fe80::1%eth0``) sets the interface."""
        return self._set_ip("address", *_checked_address("an address", address))

    def with_interface(self: _E, interface: str) -> _E:
        """Use this network interface only, by name."""
        _check_type("an interface", interface, str)
        if not 0 < len(interface) <= _INTERFACE_NAME_LIMIT or any(
            c in "/ \0" or c.isspace() for c in interface
        ):
            raise ValueError(f"an interface is a name such as eth0, not {interface!r}")
        return self._once("interface", interface)

    def with_protocol(self: _E, protocol: str) -> _E:
        """Make the endpoint one for this protocol stack only, by its name, such as ``quic`` or ``tls/tcp``."""
        _check_type("a protocol", protocol, str)
        if not (
            protocol.isascii() and protocol.isprintable() and " " not in protocol and all(protocol.split("/"))
        ):
            raise ValueError(f"a protocol is the name of a stack such as tls/tcp, not {protocol!r}")
        return self._once("protocol", protocol.lower())

    def with_hop_limit(self: _E, hop_limit: int) -> _E:
        """Set the TTL or hop limit of packets, 0 to 255."""
        return self._once("hop_limit", _check_range("a hop limit", hop_limit, 0, 255))

    def copy(self: _E) -> _E:
        """An independent copy."""
        copy = type(self).__new__(type(self))
        for name in _slots(type(self)):
            setattr(copy, name, getattr(self, name))
        return copy

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        identifiers = type(self)._identifiers
        return identifiers(self) == identifiers(other)

    __hash__ = None  # type: ignore[assignment]  # they change

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={value!r}" for name in _slots(type(self)) if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({shown})"

    def _once(self: _E, name: str, value: object) -> _E:
        before = getattr(self, name)
        if before is not None and before != value:
            raise ValueError(
                f"this endpoint has the {name.replace('_', ' ')} {before!r} already: use another endpoint"
            )
        setattr(self, name, value)
        return self

    def _set_ip(self: _E, name: str, ip: str, zone: str) -> _E:
        """Set an address and, by its zone, the interface; or neither if one of them is set to something else."""
        before = getattr(self, name)
        if zone and before in (None, ip):
            self.with_interface(zone)
        return self._once(name, ip)

    def _set_multicast(self: _E, group: object, source: object = None) -> _E:
        ip, zone = _checked_address("a multicast group", group)
        if not _is_multicast(ip):
            raise ValueError(f"a multicast group is an address in 224.0.0.0/4 or ff00::/8, not {group!s}")
        sender = None
        if source is not None:
            sender, _ = _checked_address("a multicast source", source)
            if _is_multicast(sender):
                raise ValueError(f"a multicast source is a unicast address, not {source!s}")
            if (":" in sender) is not (":" in ip):
                raise ValueError(f"the group {ip} and the source {sender} are of different families")
        if self.multicast_group is not None and sender != self.multicast_source:
            whose = self.multicast_source or "any source"
            raise ValueError(f"this endpoint has a multicast group of {whose} already: use another endpoint")
        self._set_ip("multicast_group", ip, zone)
        self.multicast_source = sender
        return self


class RemoteEndpoint(_Endpoint):
    """Where to connect to, or who may connect to a Listener.

    ``host`` is a host name, or an address literal, which is then the address. A host name and an address together
    mean: dial this address, verify that name. ``port`` is 1 to 65535. Wrong values raise ValueError or TypeError.
    """

    __slots__ = ("hostname",)

    hostname: str | None
    """In ASCII, as it is looked up and verified."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        service: str | None = None,
        address: Any = None,
        interface: str | None = None,
        protocol: str | None = None,
    ) -> None:
        self._clear()
        self.hostname = None
        if host is not None:
            _check_type("a host", host, str)
            bare = host[1:-1] if host[:1] == "[" and host[-1:] == "]" and ":" in host else host
            if _literal(bare) is not None:
                self.with_ip_address(bare)
            else:
                self.with_hostname(host)
        _set_common(self, port, service, address, interface, protocol)

    def with_hostname(self, hostname: str) -> RemoteEndpoint:
        """Set the host name; names in other scripts are converted (IDNA). Not for address literals."""
        _check_type("a host name", hostname, str)
        if _literal(hostname) is not None:
            raise ValueError(f"{hostname!r} is an address: use with_ip_address")
        return self._once("hostname", checked_hostname(hostname))

    def with_port(self, port: int) -> RemoteEndpoint:
        """Set the port, 1 to 65535."""
        return self._once("port", _check_range("a remote port", port, 1, 65535))

    def with_multicast_group_ip(self, group: object) -> RemoteEndpoint:
        """Send to this multicast group."""
        return self._set_multicast(group)


class LocalEndpoint(_Endpoint):
    """Where Connections start from, or where a Listener listens.

    ``port`` is 0 (any) to 65535. Wrong values raise ValueError or TypeError.
    """

    __slots__ = ("stun_server",)

    stun_server: StunServer | None

    def __init__(
        self,
        port: int | None = None,
        *,
        service: str | None = None,
        address: Any = None,
        interface: str | None = None,
        protocol: str | None = None,
    ) -> None:
        self._clear()
        self.stun_server = None
        _set_common(self, port, service, address, interface, protocol)

    def with_port(self, port: int) -> LocalEndpoint:
        """Set the port, 0 (any) to 65535."""
        return self._once("port", _check_range("a local port", port, 0, 65535))

    def with_any_source_multicast_group_ip(self, group: object) -> LocalEndpoint:
        """Receive what anybody sends to this multicast group."""
        return self._set_multicast(group)

    def with_single_source_multicast_group_ip(self, group: object, source: object) -> LocalEndpoint:
        """Receive what ``source`` sends to this multicast group."""
        if source is None:
            raise TypeError("a single-source group needs its source's address")
        return self._set_multicast(group, source)

    def with_stun_server(
        self, address: str, port: int, credentials: tuple[str, str] | None = None
    ) -> LocalEndpoint:
        """For Rendezvous: learn server-reflexive addresses from this server; ``credentials`` are (user, password).

        It acts in ``rendezvous()`` alone, once a stack of this host offers that; in every other action it is kept and
        does nothing."""
        _check_type("a STUN server's address", address, str)
        if _literal(address) is None:
            address = checked_hostname(address)
        _check_range("a STUN server's port", port, 1, 65535)
        if credentials is not None and not (
            isinstance(credentials, tuple)
            and len(credentials) == 2
            and all(isinstance(c, str) for c in credentials)
        ):
            raise TypeError("credentials are a tuple of user and password")
        return self._once("stun_server", StunServer(address, port, credentials))


def _set_common(
    endpoint: RemoteEndpoint | LocalEndpoint,
    port: int | None,
    service: str | None,
    address: object,
    interface: str | None,
    protocol: str | None,
) -> None:
    if port is not None:
        endpoint.with_port(port)
    if service is not None:
        endpoint.with_service(service)
    if address is not None:
        endpoint.with_ip_address(address)
    if interface is not None:
        endpoint.with_interface(interface)
    if protocol is not None:
        endpoint.with_protocol(protocol)


def _slots(kind: type[_Endpoint]) -> tuple[str, ...]:
    own: tuple[str, ...] = kind.__dict__["__slots__"]
    return (*own, *_Endpoint.__slots__)


for _kind in (RemoteEndpoint, LocalEndpoint):
    _kind._identifiers = staticmethod(attrgetter(*_slots(_kind)))


def _checked_address(what: str, given: object) -> tuple[str, str]:
    """The IP address and its zone, if any."""
    if not isinstance(given, str) and not hasattr(given, "packed"):
        raise TypeError(f"{what} is a string or an ipaddress object, not {given!r}")
    literal = _literal(str(given))
    if literal is None:
        raise ValueError(f"{what} is an IPv4 or IPv6 address, not {str(given)!r}")
    return literal


def _literal(text: str) -> tuple[str, str] | None:
    """An IP address literal and its zone, or None if it is not one."""
    ip, percent, zone = text.partition("%")
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        packed = socket.inet_pton(family, ip)
    except (OSError, ValueError):
        return None
    if percent and (family == socket.AF_INET or not zone):
        return None
    return socket.inet_ntop(family, packed), zone


def _is_multicast(ip: str) -> bool:
    if ":" in ip:
        return ip.lower().startswith("ff")
    return 224 <= int(ip.partition(".")[0]) <= 239


def checked_hostname(hostname: str) -> str:
    """The name in ASCII. Raises ValueError for what can be no host name."""
    name = hostname
    if ":" in name:
        raise ValueError(f"{hostname!r} is neither a host name nor an IP address; a port is given by itself")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{hostname!r} is not a host name: {error}") from None
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 + name.endswith(".") or not all(map(_is_label, labels)):
        raise ValueError(
            f"{hostname!r} is not a host name: labels of 1 to 63 letters, digits and hyphens, 253 characters in all"
        )
    if _is_number(labels[-1]):
        # inet_aton, and so the resolver of many a host, would take 127.1 and 0x7f000001 for addresses.
        raise ValueError(f"{hostname!r} is neither a host name nor an IP address")
    return name


def _is_label(label: str) -> bool:
    """Whether this can be a part of a host name; underscores are tolerated, as resolvers do."""
    return (
        0 < len(label) <= 63
        and label[0] != "-"
        and label[-1] != "-"
        and label.replace("-", "").replace("_", "a").isalnum()
        and label.isascii()
    )


def _is_number(label: str) -> bool:
    if label[:2] not in ("0x", "0X"):
        return label.isdigit()
    return all(digit in "0123456789abcdefABCDEF" for digit in label[2:])


def _is_service(service: str) -> bool:
    """Whether this is a service's IANA name, which has a letter (RFC 6335), or an SRV name (RFC 2782)."""
    if service.startswith("_"):
        name, _, transport = service[1:].partition("._")
        return _is_label(name) and transport.isalnum() and transport.isascii()
    return _is_label(service) and any(map(str.isalpha, service))


def _check_type(what: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{what} is a {kind.__name__}, not {value!r}")


def _check_range(what: str, value: int, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is a whole number, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{what} is {least} to {most}, not {value}")
    return int(value)
