"""What became of sends, told in order, and who is told of everything else.

A send is answered once: by the Flow at once, by the Flow later, or by the end of the Connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from neatpy.errors import Expired, SendError, TransportServicesError
from neatpy.hook import hook
from neatpy.receiving import ReceiveQueue
from neatpy.sending import SendFuture
from neatpy.stacks.contract import Flow, FlowObserver

# ruff: noqa: D102 - the contract documents the methods of a FlowObserver

if TYPE_CHECKING:
    from typing import Protocol

    class Owner(Protocol):
        """What a data path tells its Connection."""

        def flow_sibling(self, flow: Flow) -> None:
            """The peer opened a stream beside ours."""

        def flow_soft_error(self, error: TransportServicesError) -> None:
            """A transient error."""

        def flow_path_changed(self) -> None:
            """Other paths are in use."""

        def flow_closed(self, error: TransportServicesError | None) -> None:
            """The Flow is over."""

        @property
        def local_endpoint(self) -> Any:
            """For the contexts of received Messages."""

        @property
        def remote_endpoint(self) -> Any:
            """For the contexts of received Messages."""


_IMMEDIATE_LIMIT = 64
"""Sends that may complete at once before one goes through the loop, so that a sender cannot starve it."""


class _Nobody:
    """Who is told what comes after the end."""

    __slots__ = ()
    local_endpoint = remote_endpoint = None

    def flow_sibling(self, flow: Flow) -> None:
        flow.abort()

    def flow_soft_error(self, error: TransportServicesError) -> None:
        pass

    def flow_path_changed(self) -> None:
        pass

    def flow_closed(self, error: TransportServicesError | None) -> None:
        pass

    def __repr__(self) -> str:
        return "<Connection closed>"


NOBODY = _Nobody()
"""The owner of a data path that has ended: two that knew each other would both wait for the garbage collector."""


class SendAnswers(ReceiveQueue, FlowObserver):
    """The part of a data path that answers its sends."""

    __slots__ = ("_completed_later", "_in_flight", "_loops_after", "_owner", "bytes_sent", "messages_sent")

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, receive_limit: int) -> None:
        ReceiveQueue.__init__(self, loop, receive_limit, owner)
        self._owner = owner
        self.bytes_sent = self.messages_sent = 0
        self._loops_after = _IMMEDIATE_LIMIT
        """How many Messages may have been sent before the next one is answered through the loop."""
        self._completed_later: list[SendFuture] | None = None
        """What will be answered through the loop."""
        self._in_flight: dict[SendFuture | tuple[SendFuture, ...], None] | None = None
        """What the Flow is to report."""

    def await_taking(self, token: SendFuture | tuple[SendFuture, ...]) -> None:
        """The Flow has this and will report; if it breaks before it does, we answer."""
        if isinstance(token, tuple) or not token.done():
            if self._in_flight is None:
                self._in_flight = {}
            self._in_flight[token] = None

    def _settled(self, token: object) -> tuple[SendFuture, ...]:
        """The sends that a token stands for; the Flow has nothing more to say of them."""
        if not isinstance(token, tuple):
            assert isinstance(token, SendFuture)
        in_flight = self._in_flight
        if in_flight:
            in_flight.pop(token, None)
            if not in_flight:
                self._in_flight = None  # a dictionary that was large stays large
        return token if isinstance(token, tuple) else (token,)

    def complete(self, token: SendFuture) -> None:
        """Report Sent, now or, after many in one go, by way of the loop; always in order."""
        at_once = self.messages_sent < self._loops_after
        if token.end_of_message:
            self.messages_sent += 1
        else:
            self._loops_after -= 1
        self.bytes_sent += token.size
        if hook.active:
            hook.emit(hook.events.MessageSent(self._owner, size=token.size))
        if self._completed_later is not None:
            self._completed_later.append(token)
        elif at_once:
            if not token.done():
                token.set_result(token.context)
        else:
            self._completed_later = [token]
            self._loop.call_soon(self._report_completed)

    def _report_completed(self) -> None:
        completed, self._completed_later = self._completed_later, None
        self._loops_after = self.messages_sent + _IMMEDIATE_LIMIT
        for token in completed or ():
            if not token.done():
                token.set_result(token.context)

    # What the Flow tells

    def sent(self, token: object) -> None:
        for future in self._settled(token):
            self.complete(future)

    def expired(self, token: object) -> None:
        for future in self._settled(token):
            if hook.active:
                hook.emit(hook.events.MessageExpired(self._owner, size=future.size))
            future.fail(Expired("the Message's lifetime ended before it was sent", context=future.context))

    def failed(self, token: object, error: TransportServicesError) -> None:
        for future in self._settled(token):
            if hook.active:
                hook.emit(hook.events.SendFailed(self._owner, error=error))
            told = SendError(str(error), error.reason, future.context)
            future.fail(caused(told, error.__cause__ if isinstance(error, SendError) else error))


_E = TypeVar("_E", bound=BaseException)


def caused(error: _E, cause: BaseException | None) -> _E:
    """The error with this cause."""
    error.__cause__ = cause
    return error
