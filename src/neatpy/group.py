"""Connection Groups over whatever carries their members (RFC 9622 section 7.4).

A group is made by the first clone, or by the first stream that the peer opens. It owns the entanglement of Connection
Properties; the members are streams of one Flow where the stack has streams, and separate Flows to the same peer
otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neatpy.errors import CloneError, EstablishmentError, PropertyError, Reason, TransportServicesError
from neatpy.hook import hook

if TYPE_CHECKING:
    from neatpy.connection import Connection
    from neatpy.stacks.contract import Flow

_NOT_ENTANGLED = frozenset({"conn_priority"})


class ConnectionGroup:
    """The Connections that belong together."""

    __slots__ = ("members",)

    def __init__(self, first: Connection) -> None:
        self.members = {first}

    def entangle(self, origin: Connection, name: str, value: object) -> None:
        """One member's Connection Property was set: the others follow. One that cannot leaves the group with a
        CloneError (RFC 9622 section 7.4)."""
        if name in _NOT_ENTANGLED:
            return
        for member in tuple(self.members):
            if member is origin:
                continue
            try:
                member._set_own_property(name, value)
            except PropertyError as error:
                self.members.discard(member)
                member._group = None
                member._fire("on_clone_error", member, _as_clone_error(error))


async def establish_clone(parent: Connection, clone: Connection) -> None:
    """Give a clone its Flow: a stream beside the parent's, or a new Flow to the same peer."""
    try:
        await parent
        flow = parent._path.flow
        if flow is None or parent._is_over:
            raise CloneError("the connection to clone is closed", Reason.CONNECTION_CLOSED)
        try:
            clone._established(await flow.open_sibling(clone._intent.properties), None)
        except CloneError as error:
            if error.reason is not Reason.NOT_CLONEABLE or parent._candidate is None:
                raise
            await clone._connect_like(parent._candidate)
    except (TransportServicesError, OSError) as error:
        failure = _as_clone_error(error)
        if hook.active:
            hook.emit(hook.events.CloneFailed(parent, error=failure))
        clone._establishment_failed(failure)
        parent._fire("on_clone_error", parent, failure)


def join(parent: Connection, flow: Flow) -> Connection:
    """A stream that the peer opened beside ``parent``, as an established Connection of its group."""
    from neatpy.connection import Connection

    if parent._group is None:
        parent._group = ConnectionGroup(parent)
    connection = Connection(parent._intent, parent._loop)
    connection._listener = parent._listener
    connection._group = parent._group
    parent._group.members.add(connection)
    connection._established(flow, None)
    return connection


def _as_clone_error(error: Exception) -> CloneError:
    if isinstance(error, CloneError):
        return error
    reason = error.reason if isinstance(error, TransportServicesError) else Reason.ESTABLISHMENT_FAILED
    text = str(error) if not isinstance(error, EstablishmentError) else f"connecting anew failed: {error}"
    failure = CloneError(text, reason)
    failure.__cause__ = error
    return failure
