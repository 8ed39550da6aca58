"""NEATPy: a protocol-independent transport system after RFC 9621, 9622 and 9623.

A program says what its traffic needs; the system picks the protocol and path, races the candidates and hands over
Messages. Everything here is loaded when it is first used: importing this package loads no protocol stack, no TLS and
no third-party package.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from neatpy import framers as framers
    from neatpy import trace as trace
    from neatpy.certificate import Certificate as Certificate
    from neatpy.connection import Connection as Connection
    from neatpy.endpoint import LocalEndpoint as LocalEndpoint
    from neatpy.endpoint import RemoteEndpoint as RemoteEndpoint
    from neatpy.enumerations import CapacityProfile as CapacityProfile
    from neatpy.enumerations import ConnectionState as ConnectionState
    from neatpy.enumerations import Direction as Direction
    from neatpy.enumerations import InterfaceType as InterfaceType
    from neatpy.enumerations import Multipath as Multipath
    from neatpy.enumerations import MultipathPolicy as MultipathPolicy
    from neatpy.enumerations import Preference as Preference
    from neatpy.enumerations import Scheduler as Scheduler
    from neatpy.errors import CloneError as CloneError
    from neatpy.errors import ConnectionError as ConnectionError  # noqa: A004 - the RFC's name
    from neatpy.errors import EstablishmentError as EstablishmentError
    from neatpy.errors import Expired as Expired
    from neatpy.errors import PropertyError as PropertyError
    from neatpy.errors import Reason as Reason
    from neatpy.errors import ReceiveError as ReceiveError
    from neatpy.errors import SendError as SendError
    from neatpy.errors import TransportServicesError as TransportServicesError
    from neatpy.establishment.selection import Selection as Selection
    from neatpy.framer import Framer as Framer
    from neatpy.framer import MessageFramer as MessageFramer
    from neatpy.introspection import StackDescription as StackDescription
    from neatpy.introspection import available_stacks as available_stacks
    from neatpy.listener import Listener as Listener
    from neatpy.message import Data as Data
    from neatpy.message import Message as Message
    from neatpy.message import MessageContext as MessageContext
    from neatpy.preconnection import Preconnection as Preconnection
    from neatpy.properties import TransportProperties as TransportProperties
    from neatpy.security import SecurityMode as SecurityMode
    from neatpy.security import SecurityParameters as SecurityParameters
    from neatpy.security import SecurityProtocol as SecurityProtocol
    from neatpy.security import TrustVerification as TrustVerification

__version__ = "2.0.0.dev0"

_T = TypeVar("_T")

_HOMES = {
    "certificate": ("Certificate",),
    "connection": ("Connection",),
    "endpoint": ("LocalEndpoint", "RemoteEndpoint"),
    "enumerations": (
        "CapacityProfile", "ConnectionState", "Direction", "InterfaceType", "Multipath", "MultipathPolicy",
        "Preference", "Scheduler",
    ),
    "errors": (
        "CloneError", "ConnectionError", "EstablishmentError", "Expired", "PropertyError", "Reason", "ReceiveError",
        "SendError", "TransportServicesError",
    ),
    "establishment.selection": ("Selection",),
    "framer": ("Framer", "MessageFramer"),
    "introspection": ("StackDescription", "available_stacks"),
    "listener": ("Listener",),
    "message": ("Data", "Message", "MessageContext"),
    "preconnection": ("Preconnection",),
    "properties": ("TransportProperties",),
    "security": ("SecurityMode", "SecurityParameters", "SecurityProtocol", "TrustVerification"),
}  # fmt: skip
_MODULES = ("framers", "trace")
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME_OF), "run"]


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run a coroutine like ``asyncio.run``, on uvloop when it is installed. Raises RuntimeError inside a loop."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        main.close()
        raise RuntimeError(
            "neatpy.run() cannot be called from a running event loop: await the coroutine there"
        )
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(main, debug=debug)
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_MODULES})
