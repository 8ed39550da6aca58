"""What a send is: the future that answers it, and what may be sent (RFC 9622 section 9.2)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neatpy.message import MessageContext
from neatpy.stacks.features import Provision

if TYPE_CHECKING:
    from neatpy.stacks.contract import Data, Flow

    _MessageContextFuture = asyncio.Future[MessageContext]
else:
    _MessageContextFuture = asyncio.Future  # a generic alias costs every object a dictionary


class SendFuture(_MessageContextFuture):
    """Names one send below, and tells above what became of it. It never logs that nobody asked.

    Made as ``SendFuture(loop=loop)``, with the attributes set afterwards: the quickest way there is.
    """

    __slots__ = ("context", "end_of_message", "size")

    context: MessageContext
    """The one that the application gave."""
    size: int
    end_of_message: bool

    def fail(self, error: BaseException) -> None:
        """End with this error, unless the application has cancelled."""
        if not self.done():
            self.set_exception(error)
            self._log_traceback = False


def settle(future: asyncio.Future[Any], error: BaseException | None) -> None:
    """Answer a future that may have been cancelled, and that nobody has to ask."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future._log_traceback = False


def bytes_like(data: Data) -> Data:
    """What is to be sent, with one byte for each item, as all below take it. Raises TypeError for what is no bytes."""
    if isinstance(data, str):
        raise TypeError("send takes bytes-like data, not str: encode it first")
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"send takes bytes-like data, not {type(data).__name__}") from None
    return data if view.itemsize == view.ndim == 1 and view.contiguous else view.tobytes()


def check_context(context: object) -> None:
    """Raise TypeError for what is no context."""
    if context is not None and not isinstance(context, MessageContext):
        raise TypeError(f"context is a MessageContext or None, not {context!r}")


def contradiction(flow: Flow, properties: MessageContext) -> str | None:
    """Why a Message with these properties cannot be sent on this Flow (RFC 9622 section 9.1.3); None: it can."""
    wanted, features = properties._values or {}, flow.stack.features
    if wanted.get("safely_replayable") is False and features.may_duplicate:
        return f"{flow.stack.name} may deliver a Message twice, so that it must be safely replayable"
    if wanted.get("msg_ordered") and features.provides("preserve_order") is Provision.NOT_PROVIDED:
        return f"{flow.stack.name} does not keep Messages in order, so that msg_ordered cannot be true"
    return None


class _Kept:
    """Stands for a data path in :func:`_own_references`."""

    __slots__ = ("context", "receipt")

    context: object
    receipt: object


def _uncounted(_: object, /) -> int:
    return 1 << 30


getrefcount: Callable[[object], int] = getattr(sys, "getrefcount", _uncounted)
"""Where references are not counted it says so many that nothing seems unused."""


def _own_references() -> int:
    """How many references to a context and to the receipt that holds it :meth:`DataPath.send_plain` itself has, as the
    interpreter counts them there: together, as there is one more of either if anybody else has one."""
    kept = _Kept()
    kept.context = object()
    kept.receipt = [kept.context]
    context = kept.context
    return getrefcount(context) + getrefcount(kept.receipt)


OWN_REFERENCES = 0 if getrefcount is _uncounted else _own_references()
