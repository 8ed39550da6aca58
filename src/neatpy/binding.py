"""Binds a Listener: every eligible stack, on every local address, on one port (RFC 9622 section 7.2, RFC 9623 4.6).

All of them bind, or none. With port 0 a number is found that is free for all. Knows nothing about what happens to the
Flows that come in.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from neatpy.enumerations import Multipath
from neatpy.errors import Attempted, EstablishmentError, Reason
from neatpy.establishment.paths import paths
from neatpy.establishment.policy import LISTEN, eligible_stacks, no_stack_message
from neatpy.establishment.resolution import addresses_of
from neatpy.establishment.targets import port_of
from neatpy.security import SecurityMode
from neatpy.stacks.contract import Accepted, Address, Flow, ListenRequest, Refused, Stack, StackListener
from neatpy.system.datagrams import DatagramPorts

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.establishment.ruled_out import RuledOut
    from neatpy.intent import Intent

_TRIES_FOR_A_COMMON_PORT = 16
_ANY_ADDRESS = ("0.0.0.0", "::")
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


class Place(NamedTuple):
    """One stack on one local address."""

    stack: str
    address: Address
    listener: StackListener

    def __str__(self) -> str:
        return f"{self.stack} on {self.address}"


class Binding:
    """All places where a Listener listens."""

    __slots__ = ("_ports", "places")

    def __init__(self, ports: DatagramPorts) -> None:
        self._ports = ports
        self.places: list[Place] = []

    def close(self) -> None:
        """Accept no more anywhere."""
        for place in self.places:
            place.listener.close()


class _Wanted(NamedTuple):
    """A local address to bind, and whether failing for want of its family is no failure."""

    address: Address
    interface: str | None
    stack: str | None
    optional: bool
    hop_limit: int | None


async def bind(intent: Intent, accepted: Accepted, refused: Refused) -> Binding:
    """Bind everything; ``refused`` is told of each handshake that does not succeed later.

    Raises EstablishmentError: NO_CANDIDATES or INVALID_CONFIGURATION when no stack is eligible, RESOLUTION_FAILED for
    names, ESTABLISHMENT_FAILED with every address that could not be bound, POLICY_PROHIBITED if it is not allowed.
    """
    stacks, plain, ruled_out = _eligible(intent)
    wanted = await _wanted(intent)
    admission = await _Admission.of(intent.remotes)
    if admission is not None:
        accepted = admission.guard(accepted)
    for attempt in range(_TRIES_FOR_A_COMMON_PORT):
        binding = Binding(DatagramPorts(asyncio.get_running_loop()))
        try:
            await _bind_all(binding, intent, stacks, wanted, accepted, refused, plain, admission)
        except _PortTaken as taken:
            binding.close()
            if taken.chosen_by_us and attempt + 1 < _TRIES_FOR_A_COMMON_PORT:
                continue
            raise taken.error from None
        except _NothingBound:
            raise _nothing_to_listen_on(wanted, plain, ruled_out) from None
        except BaseException:
            binding.close()
            raise
        return binding
    raise AssertionError("the last try either binds or raises")


class _PortTaken(Exception):
    """A place could not be bound; if the port was chosen by us, another one may do."""

    def __init__(self, error: EstablishmentError, chosen_by_us: bool) -> None:
        super().__init__(error)
        self.error = error
        self.chosen_by_us = chosen_by_us


class _NothingBound(Exception):
    """No stack was asked to bind anything."""


class _Admission:
    """The remote endpoint filters of a Listener: who may connect."""

    __slots__ = ("_allowed",)

    def __init__(self, allowed: set[tuple[str, int | None]]) -> None:
        self._allowed = allowed

    @classmethod
    async def of(cls, remotes: Sequence[RemoteEndpoint]) -> _Admission | None:
        """From Remote Endpoints, whose names are resolved now; None admits everybody."""
        if not remotes:
            return None
        allowed: set[tuple[str, int | None]] = set()
        for remote in remotes:
            for ip in await addresses_of(remote):
                allowed.add((ip, remote.port))
        return cls(allowed)

    def admits(self, ip: str) -> bool:
        """Whether packets from this address are of interest at all."""
        return any(allowed == ip for allowed, _ in self._allowed)

    def guard(self, accepted: Accepted) -> Accepted:
        """Let only Flows from an allowed address and port pass."""

        def check(flow: Flow) -> None:
            peer = flow.remote_address
            if (peer.ip, None) in self._allowed or (peer.ip, peer.port) in self._allowed:
                accepted(flow)
            else:
                flow.abort()

        return check


def _eligible(intent: Intent) -> tuple[list[Stack], frozenset[str], list[RuledOut]]:
    """The stacks to bind, the names of the plain ones that secure ones above them answer for, and what is ruled out."""
    properties = intent.properties
    if properties.multipath is None:
        properties.multipath = Multipath.PASSIVE
    stacks, ruled_out = eligible_stacks(properties, intent.security, LISTEN, bool(intent.framers))
    if not stacks:
        raise EstablishmentError(no_stack_message(ruled_out), Reason.NO_CANDIDATES)
    if intent.security.mode is not SecurityMode.OPPORTUNISTIC:
        return stacks, frozenset(), ruled_out
    # A secure stack and the plain one below it cannot both bind the port: the upper one tells them apart.
    covered = {
        stack.lower.name for stack in stacks if stack.lower is not None and not stack.lower.features.secure
    }
    plain = frozenset(stack.name for stack in stacks if stack.name in covered)
    return [stack for stack in stacks if stack.name not in covered], plain, ruled_out


async def _wanted(intent: Intent) -> list[_Wanted]:
    routes, ruled_out = paths(intent.properties, intent.locals)
    if not routes:
        details = "\n".join(f"  {entry!r}" for entry in ruled_out)
        raise EstablishmentError(f"no path satisfies the properties\n{details}", Reason.NO_CANDIDATES)
    everywhere = [route for route in routes if route.interface is None]
    wanted: list[_Wanted] = []
    for route in everywhere or routes:
        for endpoint in intent.locals or (None,):
            if (
                endpoint is not None
                and endpoint.interface
                and route.interface not in (None, endpoint.interface)
            ):
                continue
            wanted += _places(endpoint, route.interface)
    return wanted


def _places(endpoint: LocalEndpoint | None, interface: str | None) -> list[_Wanted]:
    if endpoint is not None and endpoint.multicast_group is not None:
        raise EstablishmentError("no stack on this host offers multicast", Reason.NO_CANDIDATES)
    port = 0 if endpoint is None else port_of(endpoint)
    stack = None if endpoint is None else endpoint.protocol
    hops = None if endpoint is None else endpoint.hop_limit
    if endpoint is not None and endpoint.address is not None:
        scope = (endpoint.interface or interface or "") if endpoint.address.lower().startswith("fe8") else ""
        return [_Wanted(Address(endpoint.address, port, scope), interface, stack, False, hops)]
    return [_Wanted(Address(ip, port), interface, stack, ip == "::", hops) for ip in _ANY_ADDRESS]


async def _bind_all(
    binding: Binding,
    intent: Intent,
    stacks: Sequence[Stack],
    wanted: Sequence[_Wanted],
    accepted: Accepted,
    refused: Refused,
    plain: frozenset[str],
    admission: _Admission | None,
) -> None:
    common_port = 0
    for want in wanted:
        scoped = [stack for stack in stacks if want.stack is None or stack.name == want.stack.lower()]
        if want.stack is None and any(other.stack for other in wanted):
            taken = {other.stack.lower() for other in wanted if other.stack}
            scoped = [stack for stack in scoped if stack.name not in taken]
        for stack in scoped:
            port = want.address.port or common_port
            request = ListenRequest(
                want.address._replace(port=port),
                want.interface,
                intent.properties,
                intent.security,
                binding._ports,
                None if admission is None else admission.admits,
                stack.lower is not None and stack.lower.name in plain,
                want.hop_limit,
                refused,
            )
            try:
                listener = await stack.listen(request, accepted)
            except OSError as error:
                if want.optional and error.errno in _NO_SUCH_FAMILY:
                    continue
                chosen_by_us = want.address.port == 0 and common_port != 0 and error.errno == errno.EADDRINUSE
                raise _PortTaken(_cannot_listen(stack, request.local, error), chosen_by_us) from None
            binding.places.append(Place(stack.name, listener.local_address, listener))
            if request.plain_allowed and stack.lower is not None:
                binding.places.append(Place(stack.lower.name, listener.local_address, listener))
            if want.address.port == 0:
                common_port = listener.local_address.port
    if not binding.places:
        raise _NothingBound


def _nothing_to_listen_on(
    wanted: Sequence[_Wanted], plain: frozenset[str], ruled_out: Sequence[RuledOut]
) -> EstablishmentError:
    names = dict.fromkeys(want.stack.lower() for want in wanted if want.stack)
    if not names:
        text = "there is nothing to listen on: no local endpoint is on an interface that the properties allow"
        return EstablishmentError(text, Reason.NO_CANDIDATES)
    why = {entry.what: "; ".join(entry.reasons) for entry in ruled_out}
    why.update(
        (name, "under opportunistic security the secure stack above it answers for it") for name in plain
    )
    lines = [f"  {name}: {why.get(name, 'there is no stack of that name')}" for name in names]
    sentence = "there is nothing to listen on: the local endpoints are for stacks that cannot be used"
    return EstablishmentError("\n".join([sentence, *lines]), Reason.NO_CANDIDATES)


def _cannot_listen(stack: Stack, address: Address, error: OSError) -> EstablishmentError:
    why = os.strerror(error.errno) if error.errno else str(error)
    place = f"{stack.name} on {address}"
    reason = Reason.POLICY_PROHIBITED if isinstance(error, PermissionError) else Reason.ESTABLISHMENT_FAILED
    return EstablishmentError(f"cannot listen: {why}", reason, [Attempted(place, error)])
