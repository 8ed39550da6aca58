"""The network interfaces of this host: names, indexes, types, whether they are up, and their addresses.

On Linux all of it comes from the kernel without any library; elsewhere addresses need psutil, which is loaded when they
are first asked for. It knows nothing about paths or preferences.
"""

from __future__ import annotations

import importlib
import os
import socket
import struct
from typing import NoReturn

from neatpy.enumerations import InterfaceType

_CLASS_DIRECTORY = "/sys/class/net"
_ARPHRD_LOOPBACK = 772
_ARPHRD_ETHER = 1
_IFF_UP = 1
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_NETLINK_BUFFER = 65536


class NetworkInterface:
    """One interface of this host."""

    __slots__ = ("index", "kind", "name", "up")

    def __init__(self, name: str, index: int, kind: InterfaceType, up: bool) -> None:
        self.name = name
        self.index = index
        self.kind = kind
        self.up = up

    @property
    def is_loopback(self) -> bool:
        return self.kind is InterfaceType.LOOPBACK

    def __repr__(self) -> str:
        return f"{self.name} ({self.kind.value}, {'up' if self.up else 'down'})"


def interfaces() -> list[NetworkInterface]:
    """The interfaces of this host in the order of their indexes."""
    if os.path.isdir(_CLASS_DIRECTORY):
        found = [_from_kernel(index, name) for index, name in socket.if_nameindex()]
    else:
        found = [
            NetworkInterface(name, index, _kind_by_name(name), True) for index, name in socket.if_nameindex()
        ]
    return sorted(found, key=lambda interface: interface.index)


def addresses() -> dict[str, list[str]]:
    """The IP addresses of each interface by its name, without zones.

    Raises RuntimeError, saying what to install, if this system needs psutil for that and has none; OSError if the
    kernel refuses.
    """
    if hasattr(socket, "AF_NETLINK"):
        return _addresses_by_netlink()
    return _addresses_by_psutil()


def routed_by(ip: str, scope: str = "") -> str | None:
    """The name of the interface by which the system would route to this address, or None if that cannot be told.

    Sends nothing: a connected UDP socket only looks up the route. Never raises.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            if family == socket.AF_INET6:
                probe.connect((ip, 9, 0, scope_index(scope)))
            else:
                probe.connect((ip, 9))
            local = probe.getsockname()[0].partition("%")[0]
        return next((name for name, ips in addresses().items() if local in ips), None)
    except Exception:  # this is a remark in explain(), whatever goes wrong
        return None


def is_own(ip: str, scope: str = "") -> bool:
    """Whether this is an address of this host: only these can be bound to. Sends nothing and never raises."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((ip, 0, 0, scope_index(scope)) if family == socket.AF_INET6 else (ip, 0))
    except OSError:
        return False
    return True


def scope_index(scope: str) -> int:
    """The index of an IPv6 zone given by name or number; 0 for none. Raises OSError for an unknown name."""
    if not scope:
        return 0
    return int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)


def _from_kernel(index: int, name: str) -> NetworkInterface:
    directory = os.path.join(_CLASS_DIRECTORY, name)
    flags = int(_read(directory, "flags", "0"), 16)
    kind = _kind_by_name(name)
    hardware = int(_read(directory, "type", "0"))
    if hardware == _ARPHRD_LOOPBACK:
        kind = InterfaceType.LOOPBACK
    elif os.path.isdir(os.path.join(directory, "wireless")) or os.path.isdir(
        os.path.join(directory, "phy80211")
    ):
        kind = InterfaceType.WIFI
    elif "DEVTYPE=wwan" in _read(directory, "uevent", ""):
        kind = InterfaceType.CELLULAR
    elif (
        kind is InterfaceType.OTHER
        and hardware == _ARPHRD_ETHER
        and os.path.exists(os.path.join(directory, "device"))
    ):
        kind = InterfaceType.WIRED
    up = bool(flags & _IFF_UP) and _read(directory, "operstate", "unknown") not in ("down", "lowerlayerdown")
    return NetworkInterface(name, index, kind, up)


def _read(directory: str, name: str, default: str) -> str:
    try:
        with open(os.path.join(directory, name), encoding="ascii", errors="replace") as file:
            return file.read().strip() or default
    except OSError:
        return default


def _kind_by_name(name: str) -> InterfaceType:
    """What the systems' habits of naming say: veth and eth are wired to somebody, wwan and rmnet are modems."""
    for kind, prefixes in (
        (InterfaceType.LOOPBACK, ("lo",)),
        (InterfaceType.WIFI, ("wl", "wifi", "ath")),
        (InterfaceType.CELLULAR, ("wwan", "rmnet", "ppp")),
        (InterfaceType.WIRED, ("eth", "en", "veth")),
        (InterfaceType.TUNNEL, ("tun", "tap", "utun", "wg", "gre", "sit", "ipip", "ip6tnl")),
    ):
        if name.startswith(prefixes):
            return kind
    return InterfaceType.OTHER


def _addresses_by_netlink() -> dict[str, list[str]]:
    """One dump of RTM_GETADDR. Done by hand since it is one question and one answer: pyroute2 takes longer to import
    than everything else here to run, and cannot be asked inside a running loop."""
    names = dict(socket.if_nameindex())
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    request = struct.pack("=IHHIIB3x", 20, _RTM_GETADDR, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0, socket.AF_UNSPEC)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(1.0)
        netlink.sendto(request, (0, 0))
        while True:
            answer = netlink.recv(_NETLINK_BUFFER)
            offset = 0
            while offset < len(answer):
                length, kind = struct.unpack_from("=IH", answer, offset)
                if kind != _RTM_NEWADDR:  # the end of the dump, or an error
                    return found
                index, ip = _parsed_address(answer[offset : offset + length])
                if ip is not None and index in names:
                    found[names[index]].append(ip)
                offset += (length + 3) & ~3


def _parsed_address(message: bytes) -> tuple[int, str | None]:
    """The interface index and the own address in an RTM_NEWADDR message."""
    family, index = struct.unpack_from("=BxxxI", message, 16)
    attributes: dict[int, bytes] = {}
    offset = 24
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        attributes[kind] = message[offset + 4 : offset + length]
        offset += max((length + 3) & ~3, 4)
    # IFA_LOCAL is the own address and IFA_ADDRESS the peer's on point-to-point links; IPv6 has the latter alone.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if packed is None or family not in (socket.AF_INET, socket.AF_INET6):
        return index, None
    return index, socket.inet_ntop(family, packed)


def _addresses_by_psutil() -> dict[str, list[str]]:
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        _say_what_is_missing()
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [entry.address.partition("%")[0] for entry in entries if entry.family in families]
        for name, entries in psutil.net_if_addrs().items()
    }


def _say_what_is_missing() -> NoReturn:
    raise RuntimeError("the addresses of the interfaces cannot be listed: install psutil") from None
