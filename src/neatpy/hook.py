"""Where events are handed to the listeners of :mod:`neatpy.trace`; the events themselves are defined there.

Whoever has something to tell asks ``hook.active`` first and makes the event only then, from ``hook.events``: without
listeners, telling costs nothing and the event classes are not loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Hook:
    """The one trace hook. ``active`` is whether there are listeners; ``events`` is then the module of the events."""

    __slots__ = ("_listeners", "active", "events")

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Any], None], ...] = ()
        self.active = False
        self.events: Any = None

    def emit(self, event: Any) -> None:
        """Hand an event to every listener; one that raises is reported to the loop's exception handler."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:
                _report(listener, error)

    def subscribe(self, listener: Callable[[Any], None], events: Any) -> Callable[[], None]:
        """Call ``listener`` with every event from now on; call what is returned to end that."""
        self.events = events
        self._listeners = (*self._listeners, listener)
        self.active = True

        def unsubscribe() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not listener)
            self.active = bool(self._listeners)

        return unsubscribe


hook = Hook()


def _report(listener: Callable[[Any], None], error: Exception) -> None:
    import asyncio

    context = {"message": f"trace listener {listener!r} raised", "exception": error}
    try:
        asyncio.get_running_loop().call_exception_handler(context)
    except RuntimeError:
        import logging

        logging.getLogger("neatpy").error("%s", context["message"], exc_info=error)
