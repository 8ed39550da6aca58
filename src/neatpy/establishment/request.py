"""What the public face asks of establishment, and what it gets. Plain data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from neatpy.establishment.memory import Memory
from neatpy.establishment.policy import INITIATE, Stacks

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.establishment.answers import Lookup
    from neatpy.establishment.attempt import Attempt
    from neatpy.establishment.paths import ListInterfaces
    from neatpy.establishment.service_search import AskService
    from neatpy.properties import TransportProperties
    from neatpy.security import SecurityParameters
    from neatpy.stacks.contract import Candidate, Flow

Prepare = Callable[["Flow"], Awaitable["Flow"]]
"""Runs the framers' handshake over the Flow of one attempt and gives the Flow on top. The Flow that comes in has the
Attempt as its observer: ``flow.observer.insert(layer, flow)`` puts a layer between. Raising fails the attempt."""

Trace = Callable[[str, object, object], None]
"""Called with one of the names below, a Candidate (or host name), and an error (or addresses) or None."""

STARTED = "started"
FAILED = "failed"
WON = "won"
ABANDONED = "abandoned"
RESOLVED = "resolved"


class Plan:
    """What establishment found out about a request that is made again and again: the one candidate there is, and
    among which stacks it was chosen. Empty unless there is exactly one that nothing can change. ``request`` is the one
    that any Connection can use: without timeout, framers and trace."""

    __slots__ = ("candidate", "request", "stacks")

    def __init__(self) -> None:
        self.request: EstablishmentRequest | None = None
        self.candidate: Candidate | None = None
        self.stacks: Stacks | None = None


class EstablishmentRequest:
    """One Initiate (or one side of a Rendezvous), as it stood when the action was called.

    ``timeout`` is in seconds, None or infinite for no limit. ``stacks``, ``memory``, ``lookup``, ``ask_service`` and
    ``list_interfaces`` replace this host's own: tests bring toys. ``loop`` is the running one, if the caller knows it.
    ``plan`` is shared by requests for the very same. ``early`` is the first Message, if stacks may send it with their
    handshakes (see Candidate).
    """

    __slots__ = (
        "action",
        "ask_service",
        "early",
        "has_framers",
        "list_interfaces",
        "local_endpoints",
        "lookup",
        "loop",
        "memory",
        "plan",
        "prepare",
        "properties",
        "remote_endpoints",
        "security",
        "stacks",
        "timeout",
        "trace",
    )

    def __init__(
        self,
        remote_endpoints: Sequence[RemoteEndpoint],
        properties: TransportProperties,
        security: SecurityParameters,
        *,
        local_endpoints: Sequence[LocalEndpoint] = (),
        has_framers: bool = False,
        prepare: Prepare | None = None,
        timeout: float | None = None,
        trace: Trace | None = None,
        action: str = INITIATE,
        stacks: Stacks | None = None,
        memory: Memory | None = None,
        lookup: Lookup | None = None,
        ask_service: AskService | None = None,
        list_interfaces: ListInterfaces | None = None,
        loop: AbstractEventLoop | None = None,
        plan: Plan | None = None,
        early: bytes | None = None,
    ) -> None:
        self.early = early
        self.remote_endpoints = remote_endpoints
        self.local_endpoints = local_endpoints
        self.properties = properties
        self.security = security
        self.has_framers = has_framers
        self.prepare = prepare
        self.timeout = timeout
        self.trace = trace
        self.action = action
        self.stacks = stacks
        self.memory = memory
        self.lookup = lookup
        self.ask_service = ask_service
        self.list_interfaces = list_interfaces
        self.loop = loop
        self.plan = plan

    @property
    def goal(self) -> str:
        """The remote endpoints in words, for messages."""
        return ", ".join(map(_spelled, self.remote_endpoints))


class Established:
    """The winner: its Flow, the candidate, and the attempt, which is to be bound to the Connection."""

    __slots__ = ("attempt", "candidate", "flow")

    def __init__(self, flow: Flow, candidate: Candidate, attempt: Attempt) -> None:
        self.flow = flow
        self.candidate = candidate
        self.attempt = attempt


def _spelled(endpoint: RemoteEndpoint) -> str:
    host = endpoint.hostname or endpoint.address or "nobody"
    if ":" in host:
        host = f"[{host}]"
    place = endpoint.port or endpoint.service
    return host if place is None else f"{host}:{place}"
