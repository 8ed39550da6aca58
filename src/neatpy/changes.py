"""What changes on a Connection while it lives: its properties (RFC 9622 section 8), and the endpoints that it may use
(section 7.5). Loaded when something does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.enumerations import ConnectionState, PropertyKind
from neatpy.errors import PropertyError, Reason
from neatpy.hook import hook
from neatpy.properties import find_property

if TYPE_CHECKING:
    from neatpy.connection import Connection
    from neatpy.framer import Framer
    from neatpy.intent import Intent
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Flow


def set_property(connection: Connection, name: str, value: object) -> None:
    """Set a property of a Connection, and of its group if they share it; see ``Connection.set_property``."""
    if connection._state is ConnectionState.CLOSED:
        raise PropertyError("the connection is closed", Reason.CONNECTION_CLOSED)
    canonical = set_own_property(connection, name, value)
    if connection._group is not None and find_property(canonical).kind is PropertyKind.CONNECTION:
        connection._group.entangle(connection, canonical, value)


def set_own_property(connection: Connection, name: str, value: object) -> str:
    """Set it here alone; gives the property's canonical name. Raises PropertyError, and nothing has changed then."""
    canonical = _settable(connection, name)
    flow = connection._path.flow
    changed = connection._intent.properties.snapshot()
    try:
        changed.set(canonical, value)
    except (ValueError, TypeError) as error:
        raise PropertyError(str(error)) from error
    if flow is not None:
        flow.apply(canonical, changed.get(canonical))
    connection._intent = connection._intent.like(changed, connection._intent.framers)
    connection._path.use(connection._intent)
    if hook.active:
        hook.emit(hook.events.PropertyChanged(connection, name=canonical, value=value))
    return canonical


def changed_intent(connection: Connection, changes: Mapping[str, Any], framer: Framer | None) -> Intent:
    """What a Connection was asked to do, with other Connection Properties, or with this framer alone. Raises
    PropertyError for what is none, ValueError or TypeError for a value that is not allowed."""
    properties = connection._intent.properties.snapshot()
    for name, value in changes.items():
        properties.set(_settable(connection, name), value)
    framers = connection._intent.framers
    if framer is not None:
        from neatpy.framer import checked_framer

        framers = (checked_framer(framer),)
    return connection._intent.like(properties, framers)


def apply_changes(connection: Connection, flow: Flow, before: TransportProperties) -> None:
    """Make act what was set while the Flow was established."""
    for name, value in connection._intent.properties.explicit().items():
        if before.get(name) != value:
            try:
                flow.apply(name, value)
            except PropertyError as error:
                connection.flow_soft_error(error)


def change_endpoints(connection: Connection, action: str, endpoints: tuple[object, ...]) -> None:
    """``add_local`` and its like. Raises TypeError, ValueError or PropertyError."""
    if not endpoints:
        raise ValueError(f"{action} takes at least one endpoint")
    kind = RemoteEndpoint if action.endswith("remote") else LocalEndpoint
    for endpoint in endpoints:
        if not isinstance(endpoint, kind):
            raise TypeError(f"{action} takes {kind.__name__} objects, not {endpoint!r}")
    adds = action.startswith("add")
    if adds:
        in_use = (connection.remote_endpoint, connection.local_endpoint)
        endpoints = tuple(endpoint for endpoint in endpoints if endpoint not in in_use)
    flow = connection._path.flow
    given = (*connection._intent.remotes, *connection._intent.locals)
    for endpoint in endpoints:
        try:
            if flow is None:
                raise PropertyError(f"a connection that is not established uses one path: no {action}")
            flow.change_paths(action, cast("LocalEndpoint | RemoteEndpoint", endpoint))
        except PropertyError:
            # One of those it began with is known already; a stack that can still takes it back after its removal.
            if not adds or endpoint not in given:
                raise


def _settable(connection: Connection, name: str) -> str:
    """The canonical name of a property that may be set on this Connection; raises PropertyError for others."""
    found = find_property(name)
    if found.kind is PropertyKind.SELECTION:
        raise PropertyError(f"{found.name} is a Selection Property: it acts before establishment only")
    if found.read_only:
        raise PropertyError(f"{found.name} is read-only")
    flow = connection._path.flow
    namespace, dot, _ = found.name.partition(".")
    if dot and namespace != "_neatpy" and flow is not None and namespace != flow.stack.features.namespace:
        raise PropertyError(
            f"{found.name} is a property of {namespace}; this connection runs on {flow.stack.name}"
        )
    return found.name
