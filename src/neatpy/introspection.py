"""What ``Connection.get_properties()`` tells (RFC 9622 section 8), and what this host can do: read from the property
and feature tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from neatpy.enumerations import ConnectionState, Multipath, Preference, PropertyKind
from neatpy.properties import PROPERTIES
from neatpy.stacks.features import Provision

if TYPE_CHECKING:
    from neatpy.connection import Connection
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Flow, Stack

_FACE_EFFECTS = frozenset(
    {"msg_lifetime", "msg_priority", "final", "safely_replayable", "isolate_session", "_neatpy.receive_limit"}
)
"""Connection and Message Properties that establishment and the face make act on every stack."""


class StackDescription(NamedTuple):
    """One protocol stack of this host, as :func:`available_stacks` tells of it."""

    name: str
    """Such as ``tls/tcp``."""
    available: bool
    """Whether this host can run it."""
    reason: str
    """Why it is unavailable; empty if it is available."""
    secure: bool
    """Whether it authenticates and encrypts."""
    intrinsic: tuple[str, ...]
    """Selection Properties whose feature it always has."""
    optional: tuple[str, ...]
    """Selection Properties whose feature it has on request."""


def available_stacks() -> tuple[StackDescription, ...]:
    """All protocol stacks, also those that are unavailable here, in the order in which they are tried when everything
    else ties. A stack that serves some properties in another form, with other features, is there twice."""
    return tuple(_description(name, stack) for name, stack in all_forms())


def all_forms() -> list[tuple[str, Stack]]:
    """The stacks in every form, each with a name that tells them apart, in the order of their ranks."""
    from neatpy.stacks.registry import stacks

    found = [(stack.name, stack) for stack in stacks().values()]
    for name, stack in found[:]:
        found += [(f"{name} ({word})", form) for word, form in stack.other_forms.items()]
    return sorted(found, key=lambda one: (one[1].features.rank, one[0]))


def describe(connection: Connection) -> Mapping[str, Any]:
    """The snapshot for one Connection."""
    flow = connection._path.flow
    properties = connection._intent.properties
    told: dict[str, Any] = {
        "conn_state": connection.state,
        "can_send": connection.can_send,
        "can_receive": connection.can_receive,
        "stack": connection.stack,
        "local_endpoint": connection.local_endpoint,
        "remote_endpoint": connection.remote_endpoint,
        "paths": tuple(flow.paths)
        if flow is not None and connection.state is not ConnectionState.CLOSED
        else (),
        "security": flow.security() if flow is not None else {},
    }
    for name, declared in PROPERTIES.items():
        if name in told:
            continue
        if declared.kind is PropertyKind.SELECTION:
            told[name] = _selection(name, _decided(name, connection), flow)
        elif declared.read_only:
            told[name] = _read_only(name, properties, flow)
        elif _belongs_here(name, flow):
            told[name] = properties.get(name)
    told["without_effect"] = () if flow is None else without_effect(properties, flow.stack)
    return told


def without_effect(properties: TransportProperties, stack: Stack) -> tuple[str, ...]:
    """Names of the Connection and Message Properties that were set, and to what does nothing on this stack."""
    features = stack.features
    return tuple(
        name
        for name in properties.explicit()
        if PROPERTIES[name].kind is not PropertyKind.SELECTION
        and not features.acts(name, properties.get(name))
        and name not in _FACE_EFFECTS
    )


def _decided(name: str, connection: Connection) -> object:
    """The value as it was set, or the default that depends on the action (RFC 9622 sections 6.2.13 and 6.2.14)."""
    value = connection._intent.properties.get(name)
    if value is None:
        accepted = connection._listener is not None
        if name == "multipath":
            return Multipath.PASSIVE if accepted else Multipath.DISABLED
        if name == "use_temporary_local_address":
            return Preference.AVOID if accepted else Preference.PREFER
    return value


def _selection(name: str, value: object, flow: Flow | None) -> object:
    """Preferences as booleans: does the stack in use have the feature, and is it on? What the stack in use cannot do
    at all is off, too; others are as they were set."""
    if flow is None:
        return value
    provision = flow.stack.features.provides(name)
    if name in _SWITCHES:
        return value if provision is not Provision.NOT_PROVIDED else _SWITCHES[name]
    if not isinstance(PROPERTIES[name].default, Preference | None):
        return value
    if name == "use_temporary_local_address" and not flow.local_address.is_ipv6:
        return False  # IPv4 has none
    return provision is Provision.INTRINSIC or (provision is Provision.OPTIONAL and _switched_on(value))


_SWITCHES: Mapping[str, object] = {"multipath": Multipath.DISABLED, "advertises_altaddr": False}
"""Selection Properties that are no Preference and that a stack must have: the value that says "off"."""


def _switched_on(value: object) -> bool:
    return value in (Preference.REQUIRE, Preference.PREFER)


def _read_only(name: str, properties: TransportProperties, flow: Flow | None) -> object:
    if flow is None:
        return None
    value = flow.read(name)
    if name == "send_msg_max_len" and not (flow.can_send and _direction_allows(properties, "send")):
        return 0
    if name == "recv_msg_max_len" and not _direction_allows(properties, "receive"):
        return 0
    return value


def _direction_allows(properties: TransportProperties, way: str) -> bool:
    name = properties.direction.name
    return not name.startswith("UNIDIRECTIONAL") or name.endswith(way.upper())


def _belongs_here(name: str, flow: Flow | None) -> bool:
    namespace, dot, _ = name.partition(".")
    return not dot or namespace == "_neatpy" or flow is None or namespace == flow.stack.features.namespace


def _description(name: str, stack: Stack) -> StackDescription:
    found = stack.available()
    provided = stack.features.selection.items()
    return StackDescription(
        name,
        found.available,
        found.reason,
        stack.features.secure,
        tuple(name for name, provision in provided if provision is Provision.INTRINSIC),
        tuple(name for name, provision in provided if provision is Provision.OPTIONAL),
    )
