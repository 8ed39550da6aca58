"""The one trace hook: everything that happens to Connections and Listeners, as typed events.

Subscribe a listener with :func:`subscribe`; it is called with each :class:`Event`, synchronously, on the loop, so it
must be quick and must not call back into the library. Without a listener an event costs one look at a flag, and this
module is not even loaded. Logging (:func:`log_events`), the probe timeline and tests are such listeners. Events carry
no Message data and no keys.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from neatpy.hook import hook


class Event:
    """Something that happened. ``subject`` is the Connection or Listener, or None; ``time`` is ``time.monotonic()``."""

    __slots__ = ("details", "subject", "time")

    details: dict[str, Any]

    def __init__(self, subject: object, **details: Any) -> None:
        self.time = time.monotonic()
        self.subject = subject
        self.details = details

    def written(self) -> dict[str, str]:
        """The details as people write them: ``remote`` as ``192.0.2.1:443``, several of something with commas."""
        return {name: _written(value) for name, value in self.details.items()}

    def __repr__(self) -> str:
        details = ", ".join(f"{name}={text}" for name, text in self.written().items())
        return f"{type(self).__name__}({details})"


class CandidateStarted(Event):
    """An attempt began (``candidate``)."""


class CandidateFailed(Event):
    """An attempt failed (``candidate``, ``error``); of a Listener, the handshake of a peer that wanted to connect
    (``stack``, ``remote``, ``error``)."""


class CandidateWon(Event):
    """An attempt completed its handshakes first (``candidate``)."""


class CandidateAbandoned(Event):
    """An attempt was ended because another one won or the action ended (``candidate``)."""


class Resolved(Event):
    """A name was resolved (``name``, ``addresses``)."""


class Ready(Event):
    """A Connection is established (``stack``, ``remote``)."""


class EstablishmentFailed(Event):
    """A Connection or Listener could not be established (``error``)."""


class MessageSent(Event):
    """A Message, or part of one, was taken by the stack (``size`` in bytes)."""


class MessageExpired(Event):
    """A Message's lifetime ended before it was sent (``size``)."""


class SendFailed(Event):
    """A Message was not sent (``error``)."""


class DataReceived(Event):
    """A Message, or part of one, arrived (``size``, ``end_of_message``)."""


class SoftErrorReceived(Event):
    """A transient error was reported (``error``)."""


class PathChanged(Event):
    """A Connection uses other paths now."""


class PeerFinished(Event):
    """The peer will send no more."""


class PropertyChanged(Event):
    """A property was set on a Connection (``name``, ``value``)."""


class Cloned(Event):
    """A Connection was cloned (``clone``)."""


class CloneFailed(Event):
    """A Connection could not be cloned (``error``)."""


class Closed(Event):
    """A Connection ended with everything delivered, or was closed by the peer."""


class ConnectionFailed(Event):
    """A Connection broke or was aborted (``error``)."""


class Listening(Event):
    """A Listener is bound (``endpoints``)."""


class ConnectionReceived(Event):
    """A Listener has a new Connection (``connection``)."""


class Stopped(Event):
    """A Listener has stopped."""


TraceListener = Callable[[Event], None]


def subscribe(listener: TraceListener) -> Callable[[], None]:
    """Call ``listener`` with every event from now on; call what is returned to end that."""
    return hook.subscribe(listener, sys.modules[__name__])


def log_events(name: str = "neatpy") -> Callable[[], None]:
    """Log every event with the standard library's logging: ends and failures as INFO, data as DEBUG.

    Call what is returned to stop. Message data are never logged.
    """
    import logging

    logger = logging.getLogger(name)
    chatter = (MessageSent, DataReceived, PropertyChanged)

    def log(event: Event) -> None:
        level = logging.DEBUG if isinstance(event, chatter) else logging.INFO
        if logger.isEnabledFor(level):
            about = "" if event.subject is None else f"{event.subject!r}: "
            logger.log(level, "%s%r", about, event)

    return subscribe(log)


def _written(value: object) -> str:
    if type(value) in (list, tuple):
        return ", ".join(map(_written, value))  # type: ignore[call-overload]  # mypy does not follow this test
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, BaseException):
        return str(value) or type(value).__name__
    return str(value)
