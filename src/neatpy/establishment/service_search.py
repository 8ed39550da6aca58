"""The search for a service by SVCB and HTTPS records, beside the look-up of its host's addresses (RFC 9460 section 3).

Everything here is a bonus: errors are as good as no records, a race waits :data:`SERVICE_DELAY` for what is still to
come once it has addresses, and nobody waits for anything after :data:`SERVICE_PATIENCE`. It asks whoever it is given
and knows nothing of stacks or paths.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from neatpy.establishment.answers import Answers, Lookup, address_of
from neatpy.establishment.service_bindings import (
    Binding,
    Question,
    ServiceRecord,
    alias_of,
    binding_of_alias,
    bindings_of,
    layer_of,
    same_host,
)
from neatpy.stacks.contract import Address

if TYPE_CHECKING:
    from neatpy.establishment.candidates import Gathered

AskService = Callable[[Question], "asyncio.Future[list[ServiceRecord]]"]
"""A question -> a future of the records, or of any exception."""

SERVICE_DELAY = 0.02
"""Seconds that a race waits for SVCB and HTTPS records when addresses are already there; later ones join it."""

SERVICE_PATIENCE = 0.5
"""Seconds after which SVCB and HTTPS records are done without."""


def asker(gathered: Gathered) -> AskService | None:
    """Whom to ask for the records of these names; None if they have none that could matter, or if nobody can."""
    if not any(endpoint.service for endpoint in gathered.names):
        return None
    if not any(layer_of(ranked.stack.name) for ranked in gathered.stacks):
        return None
    if gathered.request.ask_service is not None:
        return gathered.request.ask_service
    from neatpy.establishment import dns_records

    return dns_records.ask_service if dns_records.can_ask() else None


class ServiceSearch:
    """The records of one endpoint on their way to addresses. ``changed`` is called after every answer."""

    __slots__ = (
        "_aliased", "_alpn", "_ask", "_changed", "_futures", "_host", "_hosts", "_lookup", "_port", "_question",
        "_ready_at", "_timer", "_waiting", "bindings",
    )  # fmt: skip

    def __init__(
        self,
        question: Question,
        own: Answers,
        port: int,
        alpn: tuple[str, ...],
        ask: AskService,
        lookup: Lookup,
        changed: Callable[[], None],
    ) -> None:
        """``own`` are the addresses of the endpoint's host; ``alpn`` are the program's protocols, none for any."""
        self._question = question
        self._host = own.host
        self._port = port
        self._alpn = alpn
        self._ask = ask
        self._lookup = lookup
        self._changed = changed
        self._hosts = {own.host: own}
        self._futures: list[asyncio.Future[Any]] = []
        self._waiting = 0
        self._ready_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._aliased: str | None = None
        self.bindings: list[Binding] = []

    def start(self) -> None:
        """Send the question; the clock of our patience starts to run."""
        self._timer = asyncio.get_running_loop().call_later(SERVICE_PATIENCE, self._give_up)
        self._follow(self._ask(self._question), self._answered)

    def cancel(self) -> None:
        """Nobody wants the answers any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in self._futures:
            future.cancel()

    @property
    def pending(self) -> bool:
        """Whether there are answers that are worth waiting for."""
        return self._timer is not None and self._waiting > 0

    def ready_at(self) -> float | None:
        """When a race may begin with what there is; None if there is nothing that the endpoint's own host has not."""
        times = [at for answers in self._hosts.values() if (at := answers.ready_at()) is not None]
        if self._ready_at is not None:
            times.append(self._ready_at)
        return min(times, default=None)

    def found(self) -> Iterable[tuple[Address, Binding]]:
        """All addresses that there are so far, the best record's first; hints where its host has none yet."""
        for binding in self.bindings:
            if binding.layers:
                addresses = self._hosts[binding.host].take() or [Address(ip, 0) for ip in binding.hints]
                for address in addresses:
                    yield address._replace(port=binding.port), binding

    def _answered(self, future: asyncio.Future[list[ServiceRecord]]) -> None:
        records = future.result() if not future.cancelled() and future.exception() is None else []
        alias = alias_of(records)
        kind = self._question.kind
        if alias is not None and self._aliased is None:
            self._aliased = alias
            self._follow(self._ask(Question(alias, kind)), self._answered)
            return
        self.bindings = bindings_of(records, kind, self._host, self._port, self._alpn)
        if self._aliased is not None and not self.bindings:
            self.bindings = [binding_of_alias(self._aliased, kind, self._host, self._port)]
        for binding in self.bindings:
            if same_host(binding.host, self._host):
                self._hosts[binding.host] = self._hosts[self._host]
            elif binding.layers and binding.host not in self._hosts:
                self._query(binding.host)
        if any(binding.hints and binding.layers for binding in self.bindings):
            self._ready_at = time.monotonic()

    def _query(self, host: str) -> None:
        answers = self._hosts[host] = Answers(host)
        for family in (socket.AF_INET6, socket.AF_INET):
            self._follow(self._lookup(host, self._port, family), partial(self._resolved, answers, family))

    def _resolved(self, answers: Answers, family: int, future: asyncio.Future[list[Any]]) -> None:
        known = not future.cancelled() and future.exception() is None
        answers.add(family, [address_of(entry[4]) for entry in future.result()] if known else [])

    def _follow(self, future: asyncio.Future[Any], answered: Callable[[asyncio.Future[Any]], None]) -> None:
        self._waiting += 1
        self._futures.append(future)
        future.add_done_callback(partial(self._take_in, answered))

    def _take_in(self, answered: Callable[[asyncio.Future[Any]], None], future: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if self._timer is None:
            if not future.cancelled():
                future.exception()  # seen, and nobody's business any more
            return
        answered(future)
        self._changed()

    def _give_up(self) -> None:
        self.cancel()
        self._changed()
