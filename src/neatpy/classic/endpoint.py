"""The endpoints of NEATPy 1.0: what is set last holds, and everything is checked when an action uses them."""

from typing import Any, Self

import neatpy

__all__ = ["LocalEndpoint", "RemoteEndpoint"]


class _Endpoint:
    interface: str | None = None
    port: int | None = None
    address: str | None = None

    @classmethod
    def of(cls, found: Any) -> Self | None:
        """One of today's as one of these."""
        if found is None:
            return None
        endpoint = cls()
        endpoint.address, endpoint.port, endpoint.interface = found.address, found.port, found.interface
        return endpoint

    def with_interface(self, interface: str) -> None:
        """Use this network interface, by name."""
        self.interface = interface

    def with_address(self, address: str) -> None:
        """Use this IPv4 or IPv6 address; of a Remote Endpoint a host name will do, too, as in 1.0."""
        self.address = address

    def with_port(self, port: int) -> None:
        """Use this port; of a Local Endpoint, 0 is any."""
        self.port = port


class LocalEndpoint(_Endpoint):
    """Where Connections start from, or where a Listener listens."""

    def translated(self) -> neatpy.LocalEndpoint:
        """As NEATPy has it now. Raises ValueError or TypeError for what can be none."""
        return neatpy.LocalEndpoint(self.port, address=self.address, interface=self.interface)


class RemoteEndpoint(_Endpoint):
    """Where to connect to."""

    host_name: str | None = None

    def with_hostname(self, hostname: str) -> None:
        """Connect to this host."""
        self.host_name = hostname

    def translated(self) -> neatpy.RemoteEndpoint:
        """As NEATPy has it now. Raises ValueError or TypeError for what can be none."""
        host, address = (self.address, None) if self.host_name is None else (self.host_name, self.address)
        return neatpy.RemoteEndpoint(host, self.port, address=address, interface=self.interface)
