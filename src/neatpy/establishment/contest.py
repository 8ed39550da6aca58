"""The driver of a race: it starts attempts when the pure :class:`~neatpy.establishment.racing.Race` says so, tells it
how they end, and takes in names as they are resolved. Needed only when there is more than one candidate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial

from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.attempt import Attempt
from neatpy.establishment.candidates import Gathered, leaf_key
from neatpy.establishment.memory import ADDRESS_DELAY, Memory
from neatpy.establishment.policy import known_stacks, no_stack_message, with_availability
from neatpy.establishment.progress import Progress
from neatpy.establishment.racing import PATH_DELAY, PROTOCOL_DELAY, Race, RaceNode
from neatpy.establishment.request import ABANDONED, RESOLVED, STARTED, WON, Established, EstablishmentRequest
from neatpy.establishment.resolution import Resolution, lookup
from neatpy.establishment.service_search import asker
from neatpy.establishment.targets import Target
from neatpy.establishment.tree import CandidateTree, ProtocolBranch
from neatpy.stacks.contract import Candidate

OPPORTUNISTIC_DELAY = 3.0
"""Seconds that opportunistic security gives its secure stacks before it resorts to plain ones; half of the timeout if
that is shorter. The secure attempts end then: one race never mixes secure and plain stacks."""


class Contest:
    """One race on the loop: it does what :class:`Race` says, and takes in names as they are resolved."""

    __slots__ = (
        "_branches",
        "_finished",
        "_gathered",
        "_loop",
        "_memory",
        "_nodes",
        "_over",
        "_progress",
        "_race",
        "_request",
        "_resolution",
        "_tasks",
        "_tree",
        "_waiter",
    )

    def __init__(
        self,
        gathered: Gathered,
        memory: Memory | None,
        progress: Progress,
        tree: CandidateTree | None = None,
    ) -> None:
        self._gathered = gathered
        self._request = gathered.request
        self._memory = memory
        self._progress = progress
        self._tree = tree
        self._loop = asyncio.get_running_loop()
        self._resolution: Resolution | None = None
        self._race: Race[Candidate] | None = None
        self._nodes: dict[ProtocolBranch, RaceNode[Candidate]] = {}
        self._branches: dict[Candidate, ProtocolBranch] = {}
        self._tasks: dict[asyncio.Task[float], Attempt] = {}
        self._finished: list[asyncio.Task[float]] = []
        self._waiter: asyncio.Future[None] | None = None
        self._over = False

    async def run(self) -> Established:
        try:
            if self._tree is None:
                self._tree = await self._resolved_tree()
            phases = sorted({ranked.phase for ranked in self._gathered.stacks})
            for phase in phases:
                bounded = phase != phases[-1]
                established = await self._raced(phase, self._patience() if bounded else None)
                if established is not None:
                    return established
            raise self._failure()
        finally:
            self._over = True
            if self._resolution is not None:
                self._resolution.cancel()
            self._abandon_running()

    async def _resolved_tree(self) -> CandidateTree:
        """Wait until the race may begin by RFC 8305, and grow the tree from what is there by then."""
        gathered = self._gathered
        request = self._request
        resolution = Resolution(
            gathered.names, self._wake, request.lookup or lookup, asker(gathered), request.security.alpn
        )
        self._resolution = resolution
        resolution.start()
        while resolution.pending and not gathered.targets:
            ready_at = resolution.ready_at()
            if ready_at is not None and ready_at <= time.monotonic():
                break
            await self._pause(ready_at)
        targets = gathered.in_order([*gathered.targets, *self._new_targets()])
        return CandidateTree(gathered, targets, self._memory, time.monotonic(), resolution.advice)

    async def _raced(self, phase: int, patience: float | None) -> Established | None:
        """Race the stacks of one phase; None if all failed or patience (in seconds) ran out."""
        race = self._race = self._new_race(phase)
        now = time.monotonic()
        limit = None if patience is None else now + patience
        self._start(race.begin(now))
        while True:
            winner = self._take_finished()
            if winner is not None:
                return winner
            self._take_in_late_targets()
            now = time.monotonic()
            self._start(race.tick(now))
            if not self._tasks and race.exhausted and not (self._resolution and self._resolution.pending):
                self._note_failed_branches()
                return None
            if limit is not None and now >= limit:
                for candidate in self._abandon_running():
                    self._progress.running.remove(candidate)
                    self._progress.failed(
                        candidate, TimeoutError("took longer than opportunistic security waits")
                    )
                return None
            await self._pause(_earliest(race.next_deadline, limit))

    def _new_race(self, phase: int) -> Race[Candidate]:
        assert self._tree is not None
        self._nodes.clear()
        path_nodes = []
        for path in self._tree.paths:
            protocol_nodes = []
            for branch in path.protocols:
                if branch.ranked.phase == phase:
                    stack = branch.ranked.stack
                    leaves = [self._leaf(branch, candidate) for candidate in branch.leaves]
                    node = RaceNode.branch(
                        leaves, PROTOCOL_DELAY, handshake=stack.features.handshake, carrier=stack.carrier
                    )
                    self._nodes[branch] = node
                    protocol_nodes.append(node)
            path_nodes.append(RaceNode.branch(protocol_nodes, PATH_DELAY))
        return Race(RaceNode.branch(path_nodes))

    def _leaf(self, branch: ProtocolBranch, candidate: Candidate) -> RaceNode[Candidate]:
        assert self._tree is not None
        self._branches[candidate] = branch
        delay = ADDRESS_DELAY if self._memory is None else self._memory.delay(leaf_key(candidate))
        return RaceNode.leaf(candidate, delay)

    def _start(self, candidates: list[Candidate]) -> None:
        trace = self._request.trace
        for candidate in candidates:
            attempt = Attempt(candidate)
            self._progress.running.append(candidate)
            if trace is not None:
                trace(STARTED, candidate, None)
            loading = candidate.stack.load()
            if loading is not None and self._race is not None:
                self._race.getting_ready(candidate, time.monotonic())
                loading = self._loaded(candidate, loading)
            task = self._loop.create_task(_timed(attempt, self._request, loading))
            self._tasks[task] = attempt
            task.add_done_callback(partial(self._attempt_ended, attempt))

    async def _loaded(self, candidate: Candidate, loading: Awaitable[object]) -> None:
        await loading
        if self._race is not None:
            self._race.ready(candidate, time.monotonic())
            self._wake()

    def _attempt_ended(self, attempt: Attempt, task: asyncio.Task[float]) -> None:
        if task in self._tasks and not self._over:
            self._finished.append(task)
            self._wake()
        elif not task.cancelled() and task.exception() is None:
            attempt.abort()

    def _take_finished(self) -> Established | None:
        """Deal with the attempts that have ended; the first that succeeded wins, and all others end."""
        finished, self._finished = self._finished, []
        winner: asyncio.Task[float] | None = None
        failed: list[tuple[Candidate, BaseException]] = []
        for task in finished:
            error = asyncio.CancelledError("it was cancelled") if task.cancelled() else task.exception()
            if error is not None:
                attempt = self._tasks.pop(task)
                self._progress.running.remove(attempt.candidate)
                failed.append((attempt.candidate, error))
            elif winner is None:
                winner = task
        if winner is None:
            for candidate, error in failed:
                self._start(self._failed(candidate, error))
            return None
        for candidate, error in failed:
            self._failed(candidate, error)
        attempt = self._tasks.pop(winner)
        assert attempt.flow is not None
        self._won(attempt.candidate, winner.result())
        self._abandon_running()
        return Established(attempt.flow, attempt.candidate, attempt)

    def _won(self, candidate: Candidate, handshake_time: float) -> None:
        assert self._race is not None
        assert self._tree is not None
        self._race.won(candidate)
        self._trace(WON, candidate)
        self._note_failed_branches()
        memory = self._memory
        if memory is not None and candidate.stack.features.handshake:
            memory.succeeded(leaf_key(candidate), handshake_time)
            for key in self._tree.host_keys(self._branches[candidate]):
                memory.succeeded(key, handshake_time)

    def _failed(self, candidate: Candidate, error: BaseException) -> list[Candidate]:
        """Note the failure; returns what the race would start now."""
        assert self._race is not None
        assert self._tree is not None
        now = time.monotonic()
        self._progress.failed(candidate, error)
        if self._memory is not None:
            self._memory.failed(leaf_key(candidate), now)
        return self._race.failed(candidate, now)

    def _note_failed_branches(self) -> None:
        if self._memory is None or self._tree is None:
            return
        now = time.monotonic()
        for branch, node in self._nodes.items():
            if node.failed and branch.leaves:
                for key in self._tree.host_keys(branch):
                    self._memory.failed(key, now)

    def _abandon_running(self) -> list[Candidate]:
        """End every attempt that is still on its way; returns their candidates."""
        running, self._tasks = self._tasks, {}
        for task, attempt in running.items():
            if task.done():
                # It completed in the very iteration in which another one won or the caller gave up.
                if not task.cancelled() and task.exception() is None:
                    attempt.abort()
            else:
                task.cancel()
            self._trace(ABANDONED, attempt.candidate)
        self._finished.clear()
        return [attempt.candidate for attempt in running.values()]

    def _take_in_late_targets(self) -> None:
        targets = self._new_targets()
        if not targets:
            return
        assert self._race is not None
        assert self._tree is not None
        now = time.monotonic()
        for branch, candidates in self._tree.add(self._gathered.in_order(targets)):
            node = self._nodes.get(branch)
            if node is not None:
                leaves = [self._leaf(branch, candidate) for candidate in candidates]
                self._start(self._race.add(node, leaves, now))

    def _new_targets(self) -> list[Target]:
        if self._resolution is None:
            return []
        targets = self._resolution.take()
        if targets and self._request.trace is not None:
            for name in {target.server_name for target in targets}:
                found = [target.address for target in targets if target.server_name == name]
                self._request.trace(RESOLVED, name, list(dict.fromkeys(found)))
        return targets

    def _failure(self) -> EstablishmentError:
        assert self._tree is not None
        failures = self._progress.failures
        if self._resolution is not None:
            failures.extend(self._resolution.failures)
        if not failures:
            lines = [f"no address of {self._request.goal} can be used"]
            lines.extend(f"  {entry!r}" for entry in self._tree.ruled_out_addresses)
            lines.extend(f"  {line}" for line in self._why_not())
            return EstablishmentError("\n".join(lines), Reason.NO_CANDIDATES)
        error = self._progress.all_failed()
        error.__cause__ = failures[-1][1]
        return error

    def _why_not(self) -> list[str]:
        """Of the stacks that endpoints are for, why they are no candidates."""
        asked_for = {(endpoint.protocol or "").lower() for endpoint in self._request.remote_endpoints}
        ruled_out = [entry for entry in self._gathered.ruled_out_stacks if entry.what in asked_for]
        if not ruled_out:
            return []
        return no_stack_message(with_availability(ruled_out, known_stacks(self._request.stacks))).splitlines()

    def _patience(self) -> float:
        timeout = self._request.timeout
        return OPPORTUNISTIC_DELAY if timeout is None else min(OPPORTUNISTIC_DELAY, timeout / 2)

    def _trace(self, event: str, candidate: Candidate) -> None:
        if self._request.trace is not None:
            self._request.trace(event, candidate, None)

    async def _pause(self, until: float | None) -> None:
        """Wait until something has happened or this time has come."""
        self._waiter = self._loop.create_future()
        timer = None
        if until is not None:
            timer = self._loop.call_later(max(until - time.monotonic(), 0), self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _timed(attempt: Attempt, request: EstablishmentRequest, loading: Awaitable[object] | None) -> float:
    """Run one attempt; gives the seconds that its handshakes took."""
    if loading is not None:
        await loading
    began = time.monotonic()
    await attempt.connect(request.prepare)
    return time.monotonic() - began


def _earliest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)
