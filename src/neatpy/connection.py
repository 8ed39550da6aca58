"""The Connection: its life from Establishing to Closed, and what an application can ask of it (RFC 9622 sections 8-10).

Messages travel on the :class:`~neatpy.data_path.DataPath`; here are the state, the events and the properties.

Rules of its life (RFC 9622 section 11)::

    ESTABLISHING --Ready--> ESTABLISHED --close()--> CLOSING --Closed or ConnectionError--> CLOSED
    ESTABLISHING --EstablishmentError--> CLOSED       ESTABLISHED --ConnectionError--> CLOSED

Exactly one ending event is fired, last. Handlers are called by the loop, never from inside an action.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from threading import get_ident
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, cast

from neatpy.data_path import DataPath
from neatpy.enumerations import ConnectionState
from neatpy.errors import (
    CloneError,
    ConnectionError,
    EstablishmentError,
    Reason,
    TransportServicesError,
)
from neatpy.hook import hook
from neatpy.receiving import ITERATING, WHOLE
from neatpy.sending import settle

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.establishment.attempt import Attempt
    from neatpy.establishment.request import Established, EstablishmentRequest
    from neatpy.framer import Framer
    from neatpy.group import ConnectionGroup
    from neatpy.intent import Intent
    from neatpy.message import Message, MessageContext
    from neatpy.stacks.contract import Candidate, Data, Flow


_ESTABLISHING, _ESTABLISHED, _CLOSING, _CLOSED = ConnectionState
"""Looked up once: a member of an enumeration takes long to find, and each Connection asks for them often."""

_OTHER_THREAD = "this connection belongs to an event loop in another thread: use call_soon_threadsafe there"

LINGER = 10.0
"""Seconds without any progress after which ``close`` gives up delivering what still waits here."""


class Connection:
    """A Connection to a Remote Endpoint, made by a Preconnection, a Listener or ``clone()``; never directly.

    Events without an action of their own are attributes ``on_...`` that hold a function or None:
    ``on_ready(connection)``, ``on_establishment_error(connection, error)``, ``on_soft_error(connection, error)``,
    ``on_path_change(connection)``, ``on_clone_error(connection, error)``, ``on_connection_error(connection, error)``,
    ``on_closed(connection)`` and ``on_connection_received(connection, new)`` (a stream that the peer opened).
    """

    __slots__ = (
        "__weakref__",
        "_candidate",
        "_closed_future",
        "_context",
        "_group",
        "_intent",
        "_linger",
        "_listener",
        "_loop",
        "_path",
        "_ready",
        "_request",
        "_state",
        "_task",
        "_thread",
        "_why",
        "initial_send",
        "on_clone_error",
        "on_closed",
        "on_connection_error",
        "on_connection_received",
        "on_establishment_error",
        "on_path_change",
        "on_ready",
        "on_soft_error",
    )

    on_ready: Callable[[Connection], object] | None
    on_establishment_error: Callable[[Connection, Any], object] | None
    """Gets an EstablishmentError, or, of a clone, a CloneError; Any, so that a handler may name the one it expects."""
    on_soft_error: Callable[[Connection, TransportServicesError], object] | None
    on_path_change: Callable[[Connection], object] | None
    on_clone_error: Callable[[Connection, CloneError], object] | None
    on_connection_error: Callable[[Connection, Any], object] | None
    """Gets a ConnectionError, or another TransportServicesError that a framer failed the Connection with."""
    on_closed: Callable[[Connection], object] | None
    on_connection_received: Callable[[Connection, Connection], object] | None

    initial_send: asyncio.Future[MessageContext] | None
    """The future of the Message given to ``initiate_with_send``, else None."""

    def __init__(
        self, intent: Intent, loop: asyncio.AbstractEventLoop, context: contextvars.Context | None = None
    ) -> None:
        self._intent = intent
        self._loop = loop
        self._thread = get_ident()
        self._context = context or contextvars.copy_context()
        self._state = _ESTABLISHING
        self._path = DataPath(self, loop, intent)
        self._ready: list[asyncio.Future[None]] | None = None
        self._closed_future: asyncio.Future[None] | None = None
        self._request: EstablishmentRequest | None = None
        self._task: asyncio.Task[None] | asyncio.Handle | None = None
        self._candidate: Candidate | None = None
        self._group: ConnectionGroup | None = None
        self._listener: Any = None
        self._linger: asyncio.TimerHandle | None = None
        self._why: TransportServicesError | None = None
        self.initial_send = None
        self.on_ready = self.on_establishment_error = self.on_soft_error = self.on_path_change = None
        self.on_clone_error = self.on_connection_error = self.on_closed = self.on_connection_received = None

    def __repr__(self) -> str:
        flow = self._path.flow
        where = f" {self.stack} to {flow.remote_address}" if flow is not None else ""
        return f"<Connection{where} {self._state.name.lower()}>"

    # Establishing

    def __await__(self) -> Generator[Any, None, Connection]:
        """Wait for Ready. Raises EstablishmentError (CloneError for a clone) if it never comes."""
        self._check_loop()
        if self._request is not None:
            self._establish()
        if self._state is _ESTABLISHING or (self._task is not None and self._path.flow is None):
            waiter: asyncio.Future[None] = self._loop.create_future()
            if self._ready is None:
                self._ready = []
            self._ready.append(waiter)
            yield from waiter.__await__()
        if isinstance(self._why, EstablishmentError | CloneError):
            raise self._why
        return self

    async def __aenter__(self) -> Connection:
        """Wait for Ready; a failed or cancelled wait aborts the attempt."""
        try:
            return await self
        except BaseException:
            self.abort()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, and wait for Closed; after an exception abort."""
        if kind is None:
            await self.close()
        else:
            self.abort()

    # Messages

    def send(
        self,
        data: Data,
        context: MessageContext | None = None,
        *,
        end_of_message: bool = True,
        **message_properties: Any,
    ) -> asyncio.Future[MessageContext]:
        """Send a Message, or part of one if ``end_of_message`` is False (RFC 9622 section 9.2).

        ``data`` is bytes-like; ``bytes`` are kept by reference, anything else is copied unless it left at once.
        ``context`` carries Message Properties and framer metadata, and comes back in every event; the parts of one
        Message share one context object. ``message_properties`` are Message Properties for this Message alone.

        Never blocks. The future gives the context when the Message was Sent (the stack below has it), raises
        ``Expired`` or ``SendError`` otherwise, and never logs if nobody asks. Cancelling it drops the report, not the
        Message. Raises TypeError for data that is not bytes-like, ValueError for unknown or wrong properties.
        """
        if get_ident() != self._thread:
            raise RuntimeError(_OTHER_THREAD)
        if context is None and type(data) is bytes and data and end_of_message and not message_properties:
            return self._path.send_plain(data)
        return self._path.send(data, context, end_of_message, message_properties)

    def receive(
        self, min_incomplete_length: int | None = None, max_length: int | None = None
    ) -> asyncio.Future[Message]:
        """Ask for one Message (RFC 9622 section 9.3); every call is answered once, in order.

        Without ``min_incomplete_length`` only whole Messages come; with it, part of one as soon as that many bytes are
        there. A Message above ``max_length`` (bytes), or above ``_neatpy.receive_limit``, comes in parts in any case:
        ``end_of_message`` is True on the last one. Over an unframed byte stream the whole stream is one Message. If the
        peer gives a Message up whose lifetime is over, its last part never comes: another context begins.

        The future raises ``ReceiveError``: with reason CONNECTION_CLOSED when the peer is done, otherwise with what
        broke the Connection. Cancelling it withdraws the request; no data is lost. Raises ValueError for lengths
        below 1.
        """
        if get_ident() != self._thread:
            raise RuntimeError(_OTHER_THREAD)
        least = WHOLE if min_incomplete_length is None else min_incomplete_length
        if max_length is not None or type(least) is not int or least < 1:
            _check_lengths(min_incomplete_length, max_length)
        return self._path.request(least, max_length)

    def __aiter__(self) -> Connection:
        self._check_loop()
        return self

    def __anext__(self) -> Awaitable[Message]:
        """The next Message; ends when the peer is done, raises ConnectionError when the Connection broke.

        One above ``_neatpy.receive_limit`` (4 MiB by default) comes in parts, as from ``receive``."""
        if get_ident() != self._thread:
            raise RuntimeError(_OTHER_THREAD)
        message = self._path.take_whole()
        return self._path.request(ITERATING, None) if message is None else _at_hand(message)

    def batch(self) -> Batch:
        """``with connection.batch():`` - the sends inside are coalesced (RFC 9622 section 9.2.4)."""
        self._check_loop()
        return Batch(self._path)

    def start_batch(self) -> None:
        """Hold sends back until ``end_batch()``, at the latest until the end of this turn of the loop."""
        self._check_loop()
        self._path.start_batch()

    def end_batch(self) -> None:
        """Send what was held back, coalesced."""
        self._check_loop()
        self._path.end_batch()

    # Groups

    @property
    def grouped_connections(self) -> frozenset[Connection]:
        """The Connections of this one's group, itself included."""
        return frozenset((self,)) if self._group is None else frozenset(self._group.members)

    def clone(self, framer: Framer | None = None, **connection_properties: Any) -> Connection:
        """Open another Connection to the same peer, in the same group (RFC 9622 section 7.4).

        A stream of the same transport connection where the stack has streams, else a transport connection of its own.
        Framers are as here, or ``framer`` alone; Connection Properties are as here except those given, which are set on
        the whole group but for ``conn_priority``. Allowed while establishing. A failure is a ``CloneError`` when the
        clone is awaited, and ``on_clone_error`` here.
        """
        self._check_loop()
        return self._in_group().clone(self, framer, connection_properties)

    # Ending

    def close(self) -> asyncio.Future[None]:
        """Deliver everything sent, receive no more, and end (RFC 9622 section 10).

        Effective without being awaited. The future, the same for every call, is done at Closed; it raises
        ConnectionError if what was sent could not be delivered.
        """
        self._check_loop()
        future = self._closed_future
        if (
            future is None or future.cancelled()
        ):  # by ``wait_for``, say: that ends the waiting, not the closing
            future = self._closed_future = self._loop.create_future()
            if self._state is _CLOSED:
                future.set_result(None)
            else:
                self._begin_closing()
        return future

    def close_group(self) -> asyncio.Future[None]:
        """Close all Connections of the group; the future is done when all are Closed."""
        from neatpy.group import close_all

        return close_all(self)

    def abort(self) -> None:
        """End at once and discard what was not delivered; waiting actions and ``on_connection_error`` get
        LOCAL_ABORT."""
        self._check_loop()
        if self._state is _CLOSED:
            return
        flow = self._path.flow
        if flow is None:
            self._establishment_failed(
                EstablishmentError("the connection was aborted here", Reason.LOCAL_ABORT)
            )
        else:
            flow.abort()
            self._end(ConnectionError("the connection was aborted here", Reason.LOCAL_ABORT), discard=True)

    def abort_group(self) -> None:
        """Abort all Connections of the group."""
        for member in self.grouped_connections:
            member.abort()

    # Endpoints and properties

    @property
    def state(self) -> ConnectionState:
        """Where the Connection is in its life."""
        return self._state

    @property
    def can_send(self) -> bool:
        """Whether a Message sent now would be accepted."""
        return self._state is _ESTABLISHED and self._path.can_send

    @property
    def can_receive(self) -> bool:
        """Whether more data may arrive."""
        return self._state is _ESTABLISHED and self._path.can_receive

    @property
    def stack(self) -> str | None:
        """Name of the protocol stack in use, such as ``tls/tcp``; None while establishing."""
        flow = self._path.flow
        return None if flow is None else flow.stack.name

    @property
    def local_endpoint(self) -> LocalEndpoint | None:
        """The own address and port in use; None while establishing."""
        flow = self._path.flow
        if flow is None:
            return None
        from neatpy.endpoint import LocalEndpoint

        address = flow.local_address
        return LocalEndpoint(address.port, address=_with_zone(address.ip, address.scope))

    @property
    def remote_endpoint(self) -> RemoteEndpoint | None:
        """The peer's address and port in use; None while establishing."""
        flow = self._path.flow
        if flow is None:
            return None
        from neatpy.endpoint import RemoteEndpoint

        address = flow.remote_address
        return RemoteEndpoint(port=address.port or None, address=_with_zone(address.ip, address.scope))

    @property
    def statistics(self) -> Mapping[str, float]:
        """Counts of Messages and bytes both ways, and what the protocol measures, such as ``rtt`` (s)."""
        path = self._path
        counts: dict[str, float] = {
            "messages_sent": path.messages_sent,
            "messages_received": path.messages_received,
            "bytes_sent": path.bytes_sent,
            "bytes_received": path.bytes_received,
        }
        return counts if path.flow is None else {**path.flow.statistics(), **counts}

    def add_remote(self, *endpoints: RemoteEndpoint) -> None:
        """Make Remote Endpoints available (RFC 9622 section 7.5). Known ones are ignored; raises PropertyError
        where the stack in use cannot use another one."""
        self._change_endpoints("add_remote", endpoints)

    def remove_remote(self, *endpoints: RemoteEndpoint) -> None:
        """Stop using Remote Endpoints; raises PropertyError where the stack in use cannot."""
        self._change_endpoints("remove_remote", endpoints)

    def add_local(self, *endpoints: LocalEndpoint) -> None:
        """Make Local Endpoints available; raises PropertyError where the stack in use cannot use another one."""
        self._change_endpoints("add_local", endpoints)

    def remove_local(self, *endpoints: LocalEndpoint) -> None:
        """Stop using Local Endpoints; raises PropertyError where the stack in use cannot."""
        self._change_endpoints("remove_local", endpoints)

    def set_property(self, name: str, value: object) -> None:
        """Set a Connection Property, or the default of a Message Property, from now on; on the whole group except
        for ``conn_priority`` (RFC 9622 sections 7.4 and 8).

        Raises PropertyError for a name or value that is not allowed, a read-only or Selection Property, another
        protocol's property, or a value that the system refuses; the Connection stands as it was.
        """
        from neatpy.changes import set_property

        self._check_loop()
        set_property(self, name, value)

    def get_properties(self) -> Mapping[str, Any]:
        """A snapshot by snake_case name: state, stack, endpoints, paths, Connection and Message Properties, Selection
        Properties as booleans (does the stack in use have the feature?), and in ``without_effect`` the names of those
        that were set and do nothing on this stack."""
        from neatpy.introspection import describe

        self._check_loop()
        return describe(self)

    # Inside the house

    def _check_loop(self) -> None:
        if get_ident() != self._thread:
            raise RuntimeError(_OTHER_THREAD)

    @property
    def _is_over(self) -> bool:
        return self._state in (_CLOSING, _CLOSED)

    @property
    def _has_lost_its_peer(self) -> bool:
        """Whether it broke, or the peer will send no more."""
        return self._why is not None or self._path.peer_finished

    def _in_group(self) -> ConnectionGroup:
        """The group, which is made when there is to be a second member."""
        group = self._group
        if group is None:
            from neatpy.group import ConnectionGroup

            group = self._group = ConnectionGroup(self)
        return group

    def _fire(self, handler: str, *arguments: object) -> None:
        """Call a handler attribute in a later turn of the loop, in the context the Connection was made in; there is
        nothing to hear after the ending event."""
        if self._state is not _CLOSED:
            self._call_soon(handler, *arguments)

    def _call_soon(self, handler: str, *arguments: object) -> None:
        if getattr(self, handler) is not None:
            # One that is not set by now has nothing to hear.
            self._loop.call_soon(self._call_handler, handler, arguments, context=self._context)

    def _call_handler(self, name: str, arguments: tuple[object, ...]) -> None:
        handler = getattr(self, name)
        if handler is not None:
            handler(*arguments)

    def _send_first(self, data: Data, context: MessageContext | None) -> asyncio.Future[MessageContext]:
        """Send the Message of InitiateWithSend."""
        return self._path.send_first(data, context)

    def _establish_soon(self, request: EstablishmentRequest) -> None:
        """Establish from the next turn of the loop on, or from the moment when somebody waits for Ready."""
        self._request = request
        self._task = self._loop.call_soon(self._establish, context=self._context)

    def _establish(self) -> None:
        from neatpy.establishment.establish import begin

        request, self._request = self._request, None
        if request is None or self._state is _CLOSED:
            return
        if self._task is not None:
            self._task.cancel()
        try:
            outcome = begin(request)
        except EstablishmentError as error:
            self._establishment_failed(error)
            return
        if isinstance(outcome, CoroutineType):
            self._task = self._loop.create_task(self._finish_establishing(outcome), context=self._context)
        else:
            self._won(cast("Established", outcome))

    async def _finish_establishing(self, establishing: Coroutine[Any, Any, Established]) -> None:
        try:
            established = await establishing
        except EstablishmentError as error:
            self._establishment_failed(error)
        else:
            self._won(established)

    def _won(self, established: Established) -> None:
        self._candidate = established.candidate
        self._established(established.flow, established.attempt)

    def _established(self, flow: Flow, attempt: Attempt | None) -> None:
        """Ready: a Flow is there."""
        if self._state is _CLOSED:
            flow.abort()
            return
        self._task = None
        if self._group is not None:
            self._group.is_ready(self)
        if self._state is not _CLOSING:
            self._state = _ESTABLISHED
        if hook.active:
            hook.emit(hook.events.Ready(self, stack=flow.stack.name, remote=flow.remote_address))
        if self._ready is not None:
            self._wake_waiters()
        if self.on_ready is not None and self._listener is None:
            self._fire("on_ready", self)
        if attempt is None:
            flow.observer = self._path
        if self._candidate is not None and self._candidate.properties is not self._intent.properties:
            from neatpy.changes import apply_changes

            apply_changes(self, flow, self._candidate.properties)
        self._path.bind(flow)
        if attempt is not None:
            attempt.bind(self._path)

    def _establishment_failed(self, error: EstablishmentError | CloneError) -> None:
        if self._state is _CLOSED:
            return
        task, self._task, self._request = self._task, None, None
        if isinstance(task, asyncio.Task):
            if task is not asyncio.current_task():
                self._loop.call_soon(
                    task.cancel
                )  # not before it has begun: what it is to await would never be
        elif task is not None:
            task.cancel()
        if self._group is not None:
            error = self._group.failure_of(self, error)
        if hook.active:
            hook.emit(hook.events.EstablishmentFailed(self, error=error))
        self._end(error, discard=True)

    async def _prepare(self, flow: Flow) -> Flow:
        """Put the framers on a Flow and let them shake hands."""
        from neatpy.framing import frame

        return await frame(flow, self._intent.framers, self)

    def _wake_waiters(self) -> None:
        waiters, self._ready = self._ready, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _begin_closing(self) -> None:
        if self._state is _CLOSING or self._state is _CLOSED:
            return
        if self._path.flow is None and not self._path.has_unsent:
            self._establishment_failed(
                EstablishmentError("the connection was closed before it was ready", Reason.CONNECTION_CLOSED)
            )
            return
        self._state = _CLOSING
        self._path.drain()
        if self._path.has_unsent:  # else the Flow is closing, and knows when to give up
            self._linger = self._loop.call_later(LINGER, self._check_linger, self._path.undelivered)

    def _check_linger(self, before: tuple[int, int]) -> None:
        if self._state is not _CLOSING:
            return
        now = self._path.undelivered
        flow = self._path.flow
        if now != before or flow is None:
            self._linger = self._loop.call_later(LINGER, self._check_linger, now)
            return
        flow.abort()
        self._end(
            ConnectionError("not all of what was sent could be delivered in time", Reason.TIMEOUT),
            discard=True,
        )

    def _end(self, error: TransportServicesError | None, *, discard: bool = False) -> None:
        """The one way into CLOSED: everything that waits is answered, then the ending event."""
        if self._state is _CLOSED:
            return
        establishing = self._state is _ESTABLISHING or self._path.flow is None
        self._state = _CLOSED
        self._why = error
        if self._linger is not None:
            self._linger.cancel()
        if self.initial_send is not None and isinstance(error, EstablishmentError):
            settle(self.initial_send, error)
        self._path.end(error, discard=discard)
        if self._ready is not None:
            self._wake_waiters()
        if self._group is not None:
            self._group.leave(self)
        if establishing:
            self._call_soon("on_establishment_error", self, error)
        elif error is None:
            if hook.active:
                hook.emit(hook.events.Closed(self))
            if self.on_closed is not None:
                self._call_soon("on_closed", self)
        else:
            if hook.active:
                hook.emit(hook.events.ConnectionFailed(self, error=error))
            self._call_soon("on_connection_error", self, error)
        if self._closed_future is not None:
            settle(self._closed_future, error if isinstance(error, ConnectionError) else None)
        if self._listener is not None:
            self._listener._has_ended(self)

    def _change_endpoints(self, action: str, endpoints: tuple[object, ...]) -> None:
        from neatpy.changes import change_endpoints

        self._check_loop()
        change_endpoints(self, action, endpoints)

    # answers.Owner

    def flow_sibling(self, flow: Flow) -> None:
        """The peer opened a stream: it becomes a Connection of the group, or is refused if nobody takes it."""
        if self._listener is not None:
            self._listener._accept_sibling(self, flow)
        elif self.on_connection_received is not None and self._state is not _CLOSED:
            self._fire("on_connection_received", self, self._in_group().join(self, flow))
        else:
            flow.abort()

    def flow_soft_error(self, error: TransportServicesError) -> None:
        """Pass a transient error on."""
        if hook.active:
            hook.emit(hook.events.SoftErrorReceived(self, error=error))
        self._fire("on_soft_error", self, error)

    def flow_path_changed(self) -> None:
        """Pass a change of paths on."""
        if hook.active:
            hook.emit(hook.events.PathChanged(self))
        self._fire("on_path_change", self)

    def flow_closed(self, error: TransportServicesError | None) -> None:
        """The Flow is over, and with it the Connection."""
        self._end(error)


class Batch:
    """The sends inside ``with connection.batch():`` are coalesced."""

    __slots__ = ("_path",)

    def __init__(self, path: DataPath) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._path.start_batch()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._path.end_batch()


async def _at_hand(message: Message) -> Message:
    return message


def _check_lengths(minimum: int | None, maximum: int | None) -> None:
    for name, value in (("min_incomplete_length", minimum), ("max_length", maximum)):
        if value is None or value == math.inf:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is a number of bytes or None, not {value!r}")
        if value < 1:
            raise ValueError(f"{name} is at least 1, not {value}")


def _with_zone(ip: str, scope: str) -> str:
    return f"{ip}%{scope}" if scope else ip
