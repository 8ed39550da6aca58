"""Connection Groups over whatever carries their members (RFC 9622 section 7.4).

A group is made by the first clone, or by the first stream that the peer opens. It owns the entanglement of Connection
Properties; the members are streams of one Flow where the stack has streams, and separate Flows to the same peer
otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

from neatpy.connection import Connection
from neatpy.enumerations import ConnectionState, PropertyKind
from neatpy.errors import CloneError, EstablishmentError, PropertyError, Reason, TransportServicesError
from neatpy.hook import hook
from neatpy.properties import find_property
from neatpy.sending import settle

if TYPE_CHECKING:
    from neatpy.framer import Framer
    from neatpy.group_sending import Turns
    from neatpy.intent import Intent
    from neatpy.stacks.contract import Candidate, Flow

_NOT_ENTANGLED = frozenset({"conn_priority"})


class ConnectionGroup:
    """The Connections that belong together. Clones that are not ready yet are members too."""

    __slots__ = ("_parents", "_turns", "members")

    def __init__(self, first: Connection) -> None:
        self.members = {first}
        self._turns: Turns | None = None
        self._parents: dict[Connection, Connection] = {}

    def clone(self, parent: Connection, framer: Framer | None, changes: Mapping[str, Any]) -> Connection:
        """Another Connection to the same peer as a member's; see ``Connection.clone``."""
        intent = parent._intent
        if changes or framer is not None:
            intent = _changed(parent, framer, changes)
        cloned = Connection(intent, parent._loop)
        self.members.add(cloned)
        cloned._group = self
        if hook.active:
            hook.emit(hook.events.Cloned(parent, clone=cloned))
        _begin(parent, cloned)
        return cloned

    def join(self, parent: Connection, flow: Flow) -> Connection:
        """A stream that the peer opened beside a member's, as an established Connection."""
        joined = Connection(parent._intent, parent._loop)
        joined._listener = parent._listener
        joined._group = self
        self.members.add(joined)
        joined._established(flow, None)
        return joined

    def wait_for(self, clone: Connection, parent: Connection) -> None:
        """A clone takes its time to establish."""
        self._parents[clone] = parent

    def is_ready(self, member: Connection) -> None:
        """What was a clone is a Connection like the others from now on."""
        self._parents.pop(member, None)

    def share(self, *members: Connection) -> None:
        """These have a Flow each: they take turns in sending (streams of one Flow are the stack's business)."""
        if self._turns is None:
            from neatpy.group_sending import Turns

            first = members[0]
            self._turns = Turns(first._loop, first._intent.properties.conn_scheduler)
        for member in members:
            if member._path.flow is not None and not member._is_over:
                self._turns.add(member._path, member._intent.properties.conn_priority)

    def leave(self, member: Connection) -> None:
        """A member is over, or goes its own way."""
        self.members.discard(member)
        if self._turns is not None:
            self._turns.remove(member._path)

    def failure_of(
        self, member: Connection, error: EstablishmentError | CloneError
    ) -> EstablishmentError | CloneError:
        """What to tell of a member that never becomes ready: of a clone, a CloneError, which its parent hears too.
        Clones that wait for this member fail first, while it can still hear of it."""
        for clone in [clone for clone, parent in self._parents.items() if parent is member]:
            failure = CloneError(f"the connection to clone was not established: {error}", error.reason)
            failure.__cause__ = error
            clone._establishment_failed(failure)
        parent = self._parents.pop(member, None)
        if parent is None:
            return error
        failure = error if isinstance(error, CloneError) else CloneError(str(error), error.reason)
        if hook.active:
            hook.emit(hook.events.CloneFailed(parent, error=failure))
        parent._fire("on_clone_error", parent, failure)
        return failure

    def entangle(self, origin: Connection, name: str, value: object) -> None:
        """One member's Connection Property was set: the others follow. One that cannot leaves the group with a
        CloneError (RFC 9622 section 7.4)."""
        if self._turns is not None and name == "conn_priority":
            self._turns.set_priority(origin._path, origin._intent.properties.conn_priority)
        elif self._turns is not None and name == "conn_scheduler":
            self._turns.set_scheduler(origin._intent.properties.conn_scheduler)
        if name in _NOT_ENTANGLED:
            return
        from neatpy.changes import set_own_property

        for member in tuple(self.members):
            if member is origin:
                continue
            try:
                set_own_property(member, name, value)
            except PropertyError as error:
                self.leave(member)
                self._parents.pop(member, None)
                member._group = None
                member._fire("on_clone_error", member, _as_clone_error(error))


def _changed(parent: Connection, framer: Framer | None, changes: Mapping[str, Any]) -> Intent:
    """What a clone is to do. The properties that it is to have, all members of the group have, but for those that are
    each member's own (RFC 9622 section 7.4)."""
    from neatpy.changes import changed_intent, set_property

    intent = changed_intent(parent, changes, framer)
    for name, value in changes.items():
        found = find_property(name)
        shared = found.kind is PropertyKind.CONNECTION and found.name not in _NOT_ENTANGLED
        if shared and parent._state is not ConnectionState.CLOSED:
            set_property(parent, found.name, value)
    return intent


def _begin(parent: Connection, clone: Connection) -> None:
    """Give a clone its Flow: a stream beside the parent's, at once where that takes no time, or a new Flow to the same
    peer. What it comes to is heard of by handlers that are set after this."""
    stream = _stream_at_once(parent, clone)
    if stream is None:
        if clone._group is not None:
            clone._group.wait_for(clone, parent)
        clone._task = clone._loop.create_task(_establish(parent, clone))
    else:
        clone._established(stream, None)
        clone._loop.call_soon(clone._call_handler, "on_ready", (clone,), context=clone._context)


def _stream_at_once(parent: Connection, clone: Connection) -> Flow | None:
    flow, intent = parent._path.flow, clone._intent
    if flow is None or parent._is_over or intent.framers:
        return None
    try:
        opened = flow.open_sibling(intent.properties)
    except CloneError:
        return None  # asking once more gives the reason to who can pass it on
    if isinstance(opened, CoroutineType):
        opened.close()
        return None
    return cast("Flow", opened)


async def _establish(parent: Connection, clone: Connection) -> None:
    try:
        try:
            stream = await _open_stream(parent, clone)
        except CloneError as error:
            if error.reason is not Reason.NOT_CLONEABLE or parent._candidate is None:
                raise
            await _connect_like(clone, parent._candidate)
            if clone._group is not None:
                clone._group.share(parent, clone)
        else:
            clone._established(stream, None)
    except (TransportServicesError, OSError) as error:
        clone._establishment_failed(_as_clone_error(error))


async def _open_stream(parent: Connection, clone: Connection) -> Flow:
    """A stream beside the parent's, once there is one, with the framers of the clone, which get to see the clone."""
    await parent
    flow, intent = parent._path.flow, clone._intent
    if flow is None or parent._is_over:
        raise CloneError("the connection to clone is closed", Reason.CONNECTION_CLOSED)
    opened = flow.open_sibling(intent.properties)
    sibling = await opened if isinstance(opened, CoroutineType) else cast("Flow", opened)
    if not intent.framers:
        return sibling
    from neatpy.framing import frame

    return await frame(sibling, intent.framers, clone)


async def _connect_like(clone: Connection, candidate: Candidate) -> None:
    """A Flow of its own to where that candidate led."""
    from neatpy.establishment.attempt import Attempt
    from neatpy.stacks.contract import Candidate

    own = Candidate(
        candidate.stack,
        candidate.remote,
        clone._intent.properties,
        candidate.security,
        local=None if candidate.local is None else candidate.local._replace(port=0),
        interface=candidate.interface,
        server_name=candidate.server_name,
        hop_limit=candidate.hop_limit,
    )
    attempt = Attempt(own)
    flow = await attempt.connect(clone._prepare if clone._intent.framers else None)
    clone._candidate = own
    clone._established(flow, attempt)


def close_all(member: Connection) -> asyncio.Future[None]:
    """Close all Connections of a group; the future is done when all are Closed, and raises the first error."""
    closing = asyncio.gather(*(one.close() for one in member.grouped_connections), return_exceptions=True)
    done: asyncio.Future[None] = member._loop.create_future()

    def report(results: asyncio.Future[list[BaseException | None]]) -> None:
        errors = [] if results.cancelled() else [one for one in results.result() if one is not None]
        if not done.done():
            settle(done, errors[0] if errors else None)

    closing.add_done_callback(report)
    return done


def _as_clone_error(error: Exception) -> CloneError:
    if isinstance(error, CloneError):
        return error
    reason = error.reason if isinstance(error, TransportServicesError) else Reason.ESTABLISHMENT_FAILED
    text = str(error) if not isinstance(error, EstablishmentError) else f"connecting anew failed: {error}"
    failure = CloneError(text, reason)
    failure.__cause__ = error
    return failure
