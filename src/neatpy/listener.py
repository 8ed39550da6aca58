"""The Listener: one port, every eligible stack, and the Connections that come in (RFC 9622 section 7.2).

Binding is in :mod:`neatpy.binding`; here are the queue of undelivered Connections, the limit, ``serve`` and the end.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from threading import get_ident
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any

from neatpy.connection import Connection
from neatpy.enumerations import ConnectionState
from neatpy.errors import ConnectionError, EstablishmentError, Reason, ReceiveError, SendError
from neatpy.hook import hook

if TYPE_CHECKING:
    from neatpy.binding import Binding
    from neatpy.endpoint import LocalEndpoint
    from neatpy.framing import FramedFlow
    from neatpy.intent import Intent
    from neatpy.stacks.contract import Address, Flow, Stack

_CLOSED = ConnectionState.CLOSED

_UNDELIVERED_LIMIT = 1024
"""Connections that may wait for ``accept`` or for the limit to be raised; further ones are aborted."""

_HANDSHAKE_TIMEOUT = 15.0
"""Seconds that the framers of an accepted Connection have for their handshake."""


class Listener:
    """Accepts Connections, made by ``Preconnection.listen()``; never directly.

    Connections go to whoever waits in ``accept()``, in iteration or in ``serve()``, else to
    ``on_connection_received(listener, connection)``, else they wait. Other handlers are ``on_stopped(listener)`` and
    ``on_establishment_error(listener, error)``; each may be None.
    """

    __slots__ = (
        "__weakref__",
        "_acceptors",
        "_binding",
        "_context",
        "_error",
        "_handshakes",
        "_intent",
        "_limit",
        "_loop",
        "_received_handler",
        "_served",
        "_server",
        "_stopped",
        "_task",
        "_thread",
        "_undelivered",
        "_waiters",
        "on_establishment_error",
        "on_stopped",
    )

    on_stopped: Callable[[Listener], object] | None
    on_establishment_error: Callable[[Listener, EstablishmentError], object] | None

    def __init__(self, intent: Intent, loop: asyncio.AbstractEventLoop) -> None:
        self._intent = intent
        self._loop = loop
        self._thread = get_ident()
        self._context = contextvars.copy_context()
        self._binding: Binding | None = None
        self._error: EstablishmentError | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._server: Callable[[Connection], None] | None = None
        self._served: dict[Connection, asyncio.Task[None] | None] = {}
        """By ``serve``, each with the task of its handler while that runs."""
        self._acceptors: deque[asyncio.Future[Connection]] = deque()
        self._undelivered: deque[Connection] = deque()
        self._limit: int | None = None
        self._received_handler: Callable[[Listener, Connection], object] | None = None
        self.on_stopped = self.on_establishment_error = None

    def __repr__(self) -> str:
        if self._stopped is not None:
            return "<Listener stopped>"
        where = ", ".join(str(binding) for binding in self._binding.places) if self._binding else "not bound"
        return f"<Listener {where}>"

    # Establishing

    def __await__(self) -> Generator[Any, None, Listener]:
        """Wait until every eligible stack is bound. Raises EstablishmentError if one could not be."""
        self._check_loop()
        if self._binding is None and self._error is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            yield from waiter.__await__()
        if self._error is not None:
            raise self._error
        return self

    async def __aenter__(self) -> Listener:
        """Wait until bound; a failed or cancelled wait stops the Listener."""
        try:
            return await self
        except BaseException:
            self.stop()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait for Stopped."""
        await self.stop()

    @property
    def local_endpoints(self) -> list[LocalEndpoint]:
        """The addresses and real ports that are bound, each once; empty before the Listener is."""
        if self._binding is None:
            return []
        from neatpy.endpoint import LocalEndpoint

        places = dict.fromkeys(place.address for place in self._binding.places)
        return [
            LocalEndpoint(
                address.port, address=f"{address.ip}%{address.scope}" if address.scope else address.ip
            )
            for address in places
        ]

    @property
    def stacks(self) -> tuple[str, ...]:
        """Names of the stacks it listens on, best first; empty before it is bound."""
        if self._binding is None:
            return ()
        return tuple(dict.fromkeys(place.stack for place in self._binding.places))

    # Accepting

    @property
    def on_connection_received(self) -> Callable[[Listener, Connection], object] | None:
        """Called with each new Connection that nobody waits for; setting it delivers those that wait."""
        return self._received_handler

    @on_connection_received.setter
    def on_connection_received(self, handler: Callable[[Listener, Connection], object] | None) -> None:
        self._check_loop()
        self._received_handler = handler
        self._deliver()

    async def accept(self) -> Connection:
        """The next Connection. Raises ConnectionError with CONNECTION_CLOSED when the Listener has stopped, and
        EstablishmentError when it could not listen. Cancelling loses no Connection."""
        await self
        if self._stopped is not None:
            raise self._no_more()
        acceptor: asyncio.Future[Connection] = self._loop.create_future()
        self._acceptors.append(acceptor)
        self._deliver()
        try:
            return await acceptor
        except asyncio.CancelledError:
            if acceptor.done() and not acceptor.cancelled() and acceptor.exception() is None:
                if self._stopped is not None:
                    acceptor.result().abort()
                else:
                    self._undelivered.appendleft(acceptor.result())
                    self._raise_limit_by_one()
                    self._deliver()
            raise

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Connection:
        """The next Connection; ends when the Listener has stopped."""
        try:
            return await self.accept()
        except ConnectionError:
            raise StopAsyncIteration from None

    def serve(
        self, handler: Callable[[Connection], Awaitable[object]], *, grace: float | None = None
    ) -> Coroutine[Any, Any, None]:
        """Run ``handler(connection)`` in a task of its own for each Connection, until the Listener is stopped.

        The Connection is closed when its handler returns and aborted when it raises, which is reported to the loop's
        exception handler; where that is the default one, and the Connection itself has ended its handler by breaking
        or because the peer was done early, it logs one line, if the peer has said anything. On ``stop()`` the handlers
        have ``grace`` seconds to return (None: as long as they take); then they are cancelled. Cancelling ``serve``
        stops the Listener and cancels the handlers at once. Raises EstablishmentError when the Listener could not
        listen, RuntimeError if it is served already, and at once TypeError for a handler that cannot be called or is a
        generator function, and TypeError or ValueError for a grace that is none.
        """
        self._check_loop()
        if not callable(handler):
            raise TypeError(f"serve takes an async function of one Connection, not {handler!r}")
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError(f"serve takes an async function that does not yield, not {handler!r}")
        if grace is not None and (isinstance(grace, bool) or not isinstance(grace, int | float)):
            raise TypeError(f"grace is a number of seconds or None, not {grace!r}")
        if grace is not None and not grace >= 0:
            raise ValueError(f"grace is at least 0 seconds, not {grace!r}")
        return self._serve(handler, grace)

    async def _serve(self, handler: Callable[[Connection], Awaitable[object]], grace: float | None) -> None:
        served = self._served

        def begin(connection: Connection) -> None:
            served[connection] = self._loop.create_task(_handle(handler, connection, served))

        await self
        if self._server is not None:
            raise RuntimeError("this listener is being served already")
        self._server = begin
        try:
            self._deliver()
            if self._stopped is None:
                until_stopped: asyncio.Future[None] = self._loop.create_future()
                self._waiters.append(until_stopped)
                await until_stopped
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._until_all_have_ended()
        finally:
            self._server = None
            self.stop()
            remaining = dict(served)
            running = [task for task in remaining.values() if task is not None]
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
            for connection in remaining:
                connection.abort()  # also of a task that was cancelled before its first step
            served.clear()

    async def _until_all_have_ended(self) -> None:
        served = self._served
        while served:
            await asyncio.wait([task or connection.close() for connection, task in served.items()])
            for connection, task in list(served.items()):
                if task is not None and task.done():  # cancelled before its first step
                    connection.abort()
                    del served[connection]

    def set_new_connection_limit(self, limit: int | None) -> None:
        """Deliver at most this many further Connections, each counting down by one; None is unlimited
        (RFC 9622 section 7.2). Connections above it wait, in bounded number, until the limit is set anew.

        Raises TypeError or ValueError for anything but a non-negative whole number or None."""
        self._check_loop()
        if limit is not None:
            if not isinstance(limit, int) or isinstance(limit, bool):
                raise TypeError(f"the limit is a whole number or None, not {limit!r}")
            if limit < 0:
                raise ValueError(f"the limit is at least 0, not {limit}")
        self._limit = limit
        self._deliver()

    # Ending

    def stop(self) -> asyncio.Future[None]:
        """Accept no more; accepted Connections live on, undelivered ones are aborted (RFC 9622 section 7.2). Another
        Listener of this loop may then listen at the same Local Endpoints.

        Effective without being awaited; the future, the same for every call, is done at Stopped.
        """
        self._check_loop()
        if self._stopped is None:
            self._stopped = self._loop.create_future()
            if self._task is not None:
                self._task.cancel()
            for handshake in tuple(self._handshakes):
                handshake.cancel()
            if self._binding is not None:
                self._binding.close()
            for connection in self._undelivered:
                connection.abort()
            self._undelivered.clear()
            if self._binding is None and self._error is None:
                self._error = EstablishmentError(
                    "the listener was stopped before it was bound", Reason.LOCAL_ABORT
                )
            acceptors, self._acceptors = self._acceptors, deque()
            for acceptor in acceptors:
                if not acceptor.done():
                    acceptor.set_exception(self._no_more())
            self._wake_waiters()
            self._loop.call_soon(self._report_stopped, context=self._context)
        elif self._stopped.cancelled():  # by ``wait_for``, say
            self._stopped = self._loop.create_future()
            self._stopped.set_result(None)
        return self._stopped

    # Inside the house

    def _check_loop(self) -> None:
        if get_ident() != self._thread:
            raise RuntimeError(
                f"{self!r} belongs to an event loop in another thread: use call_soon_threadsafe there"
            )

    def _start(self) -> None:
        self._task = self._loop.create_task(self._bind())

    async def _bind(self) -> None:
        from neatpy.binding import bind

        try:
            self._binding = await bind(self._intent, self._accepted, self._refused)
        except EstablishmentError as error:
            self._failed(error)
        except Exception as error:  # a stack's own mistake is not to keep those waiting who wait for this
            failed = EstablishmentError(f"cannot listen: {error!r}", Reason.ESTABLISHMENT_FAILED)
            failed.__cause__ = error
            self._failed(failed)
        else:
            if hook.active:
                hook.emit(hook.events.Listening(self, endpoints=self._binding.places))
        self._task = None
        self._wake_waiters()

    def _failed(self, error: EstablishmentError) -> None:
        self._error = error
        if hook.active:
            hook.emit(hook.events.EstablishmentFailed(self, error=error))
        self._loop.call_soon(self._call_establishment_error, error, context=self._context)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _accepted(self, flow: Flow) -> None:
        """A stack has a Flow for us, its handshake complete."""
        waiting = len(self._undelivered) + len(self._handshakes)
        if self._stopped is not None:
            flow.abort()
            return
        if waiting >= _UNDELIVERED_LIMIT:
            text = f"{waiting} connections wait to be accepted already"
            self._refuse(flow, EstablishmentError(text, Reason.ESTABLISHMENT_FAILED))
            return
        connection = Connection(self._intent, self._loop, self._context)
        connection._listener = self
        if self._intent.framers:
            self._frame(connection, flow)
        else:
            self._ready(connection, flow)

    def _frame(self, connection: Connection, flow: Flow) -> None:
        """Put the framers on; nobody hears of the Connection before their handshake is complete."""
        from neatpy.framing import FramedFlow

        framed = FramedFlow(flow, self._intent.framers, connection)
        try:
            ready = framed.start()
        except EstablishmentError as error:
            self._refuse(framed, error)
            return
        if ready:
            self._ready(connection, framed)
        else:
            task = self._loop.create_task(self._await_framers(connection, framed))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _await_framers(self, connection: Connection, framed: FramedFlow) -> None:
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                await framed.wait_until_ready()
        except EstablishmentError as error:
            self._refuse(framed, error)
        except TimeoutError:
            text = f"the framers' handshake took more than {_HANDSHAKE_TIMEOUT:g} s"
            self._refuse(framed, EstablishmentError(text, Reason.TIMEOUT))
        except asyncio.CancelledError:
            framed.abort()
            raise
        else:
            self._ready(connection, framed)

    def _refuse(self, flow: Flow, error: Exception) -> None:
        remote = flow.remote_address
        flow.abort()
        self._refused(flow.stack, remote, error)

    def _refused(self, stack: Stack, remote: Address, error: BaseException) -> None:
        """A peer's handshake did not succeed, so that there will be no Connection to tell of it."""
        if hook.active:
            hook.emit(hook.events.CandidateFailed(self, stack=stack.name, remote=remote, error=error))

    def _ready(self, connection: Connection, flow: Flow) -> None:
        connection._established(flow, None)
        self._received(connection)

    def _accept_sibling(self, parent: Connection, flow: Flow) -> None:
        """The peer of an accepted Connection opened a stream; refused after stop, as a new Connection would be."""
        group = parent._in_group()
        if self._stopped is not None or len(group.members) > parent._intent.properties.group_conn_limit:
            flow.abort()
        else:
            self._received(group.join(parent, flow))

    def _has_ended(self, connection: Connection) -> None:
        """One of ours is over: if its handler has returned too, nothing of it is left to wait for."""
        if self._served.get(connection, self) is None:
            del self._served[connection]

    def _received(self, connection: Connection) -> None:
        if hook.active:
            hook.emit(hook.events.ConnectionReceived(self, connection=connection))
        server = self._server
        if server is not None and self._limit is None and not self._undelivered and not self._acceptors:
            server(connection)  # nobody was before, and nobody else wants it
            return
        self._undelivered.append(connection)
        self._deliver()
        if self._undelivered:
            self._undelivered[-1]._path.read_little()

    def _deliver(self) -> None:
        while self._undelivered and self._limit != 0:
            acceptor = self._next_acceptor()
            if acceptor is None and self._server is None and self._received_handler is None:
                return
            connection = self._undelivered.popleft()
            connection._path.read_ahead()
            if self._limit is not None:
                self._limit -= 1
            if acceptor is not None:
                acceptor.set_result(connection)
            elif self._server is not None:
                self._server(connection)
            else:
                self._loop.call_soon(self._call_received, connection, context=self._context)

    def _next_acceptor(self) -> asyncio.Future[Connection] | None:
        while self._acceptors:
            acceptor = self._acceptors.popleft()
            if not acceptor.done():
                return acceptor
        return None

    def _raise_limit_by_one(self) -> None:
        if self._limit is not None:
            self._limit += 1

    def _call_received(self, connection: Connection) -> None:
        if self._received_handler is not None:
            self._received_handler(self, connection)
        else:
            self._undelivered.appendleft(connection)

    def _call_establishment_error(self, error: EstablishmentError) -> None:
        if self.on_establishment_error is not None:
            self.on_establishment_error(self, error)

    def _report_stopped(self) -> None:
        if hook.active:
            hook.emit(hook.events.Stopped(self))
        assert self._stopped is not None
        if not self._stopped.done():
            self._stopped.set_result(None)
        if self.on_stopped is not None:
            self.on_stopped(self)

    def _no_more(self) -> ConnectionError:
        return ConnectionError("the listener has stopped", Reason.CONNECTION_CLOSED)


async def _handle(
    handler: Callable[[Connection], Awaitable[object]],
    connection: Connection,
    served: dict[Connection, asyncio.Task[None] | None],
) -> None:
    """One Connection's life in ``serve``, which goes on as one of those ``served``, without a task, until it is
    closed."""
    try:
        answer = handler(connection)
        if type(answer) is not CoroutineType and not inspect.isawaitable(answer):
            raise TypeError(
                f"serve takes an async function; {handler!r} returned {answer!r}, which cannot be awaited"
            )
        await answer
    except asyncio.CancelledError:
        connection.abort()
        raise
    except Exception as error:
        _report(connection, error)
        connection.abort()
    else:
        connection._begin_closing()
    finally:
        served[connection] = None
        if connection._state is _CLOSED:
            del served[connection]


def _report(connection: Connection, error: Exception) -> None:
    """Tell the loop's exception handler what a handler raised.

    Peers that break off are daily life of a server, and a traceback for each would hide what matters: where the program
    has no exception handler of its own, the default one gets a message without the exception, and logs one line. It
    gets nothing of peers that have never said anything: most of these have only lost the peer's race of stacks."""
    loop = asyncio.get_running_loop()
    context: dict[str, Any] = {"message": f"the handler of {connection!r} raised", "exception": error}
    if isinstance(error, ConnectionError | ReceiveError | SendError) and connection._has_lost_its_peer:
        context["message"] = f"the handler of {connection!r} was ended by {type(error).__name__}: {error}"
        if loop.get_exception_handler() is None:
            if not connection._path.bytes_received:
                return
            del context["exception"]
    loop.call_exception_handler(context)
