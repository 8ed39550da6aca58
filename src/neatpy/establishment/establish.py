"""Establishment itself: gather candidates, race them, hand over the winner (RFC 9623 section 4).

The usual case, one candidate, needs no timer or thread, and not even a task if its stack connects at once. A real race
has one task for each attempt that was started and one timer. Whatever way it ends, nothing of the losers is left.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.attempt import Attempt
from neatpy.establishment.candidates import (
    Gathered,
    gather,
    leaf_key,
    sole_candidate,
)
from neatpy.establishment.memory import Memory, memories
from neatpy.establishment.policy import known_stacks, no_stack_message, registered_stacks, with_availability
from neatpy.establishment.progress import Progress
from neatpy.establishment.request import (
    ABANDONED,
    STARTED,
    WON,
    Established,
    EstablishmentRequest,
)

if TYPE_CHECKING:
    from neatpy.stacks.contract import Candidate, Flow


def begin(request: EstablishmentRequest) -> Established | Coroutine[Any, Any, Established]:
    """Start to establish: gives the winner if it is there at once, else what a task has to run for it.

    Raises EstablishmentError if it is clear at once that there will be none.
    """
    progress = Progress(request)
    candidate = _planned(request)
    if candidate is None:
        gathered = gather(request)
        require_candidates(gathered)
        candidate = sole_candidate(gathered)
        if candidate is None:
            return _limited(progress, _chosen(gathered, progress))
        if request.plan is not None:
            request.plan.candidate = candidate
            request.plan.stacks = known_stacks(request.stacks)
    attempt = _SoleAttempt(candidate, progress)
    started = attempt.begin()
    if type(started) is CoroutineType or request.prepare is not None:
        return _limited(progress, attempt.finish(started))
    return attempt.won()


async def establish(request: EstablishmentRequest) -> Established:
    """Give the first candidate whose handshakes, the framers' included, complete.

    Raises EstablishmentError with every attempt and one reason; cancelling ends every attempt.
    """
    outcome = begin(request)
    return await outcome if isinstance(outcome, CoroutineType) else cast(Established, outcome)


def memory_for(request: EstablishmentRequest) -> Memory | None:
    """Where results of this request are remembered; None for isolated sessions, which neither read nor write it."""
    if request.properties.isolate_session:
        return None
    if request.memory is not None:
        return request.memory
    return memories.of(request.loop or asyncio.get_running_loop())


def require_candidates(gathered: Gathered) -> None:
    """Raises EstablishmentError(NO_CANDIDATES), with every reason, if there is no stack or no path."""
    request = gathered.request
    if not gathered.stacks:
        ruled_out = with_availability(gathered.ruled_out_stacks, known_stacks(request.stacks))
        raise EstablishmentError(no_stack_message(ruled_out), Reason.NO_CANDIDATES)
    if not gathered.paths:
        lines = ["no network path satisfies the properties and endpoints"]
        lines.extend(f"  {entry!r}" for entry in gathered.ruled_out_paths)
        raise EstablishmentError("\n".join(lines), Reason.NO_CANDIDATES)


def _planned(request: EstablishmentRequest) -> Candidate | None:
    """The one candidate that the same request came to before, if that still holds."""
    plan = request.plan
    if plan is None or plan.candidate is None or plan.stacks is not registered_stacks():
        return None
    return plan.candidate if plan.candidate.stack.available().available else None


async def _limited(progress: Progress, establishing: Coroutine[Any, Any, Established]) -> Established:
    """Within the request's timeout."""
    timeout = progress.request.timeout
    if timeout is None or timeout == math.inf:
        return await establishing
    # What asyncio.timeout does, at half its cost: this is on the way of every Connection.
    task = asyncio.current_task()
    assert task is not None
    already_cancelled = task.cancelling()
    timer = asyncio.get_running_loop().call_later(timeout, progress.expire, task)
    try:
        return await establishing
    except asyncio.CancelledError as error:
        if progress.expired and task.uncancel() <= already_cancelled:
            raise progress.timed_out(timeout) from error
        raise
    finally:
        timer.cancel()


async def _chosen(gathered: Gathered, progress: Progress) -> Established:
    """Race what there is, once it is known."""
    memory = memory_for(gathered.request)
    if gathered.names:
        from neatpy.establishment.contest import Contest

        return await Contest(gathered, memory, progress).run()
    from neatpy.establishment.tree import CandidateTree

    tree = CandidateTree(gathered, gathered.targets, memory, time.monotonic())
    leaves = tree.leaves()
    if len(leaves) == 1:
        attempt = _SoleAttempt(leaves[0], progress)
        return await attempt.finish(attempt.begin())
    from neatpy.establishment.contest import Contest

    return await Contest(gathered, memory, progress, tree).run()


class _SoleAttempt:
    """The usual case: one candidate, without task, timer or thread of its own."""

    __slots__ = ("_attempt", "_began", "_progress")

    def __init__(self, candidate: Candidate, progress: Progress) -> None:
        self._attempt = Attempt(candidate)
        self._progress = progress
        self._began = time.monotonic()

    def begin(self) -> Flow | Coroutine[Any, Any, Flow]:
        """Start; raises EstablishmentError if that fails at once."""
        attempt = self._attempt
        self._progress.running.append(attempt.candidate)
        self._trace(STARTED)
        try:
            return attempt.begin()
        except Exception as error:
            raise self._failed(error) from error

    async def finish(self, started: Flow | Coroutine[Any, Any, Flow]) -> Established:
        """Wait for the handshakes, the framers' included."""
        try:
            await self._attempt.connect_on(started, self._progress.request.prepare)
        except Exception as error:
            raise self._failed(error) from error
        except asyncio.CancelledError:
            self._trace(ABANDONED)
            raise
        return self.won()

    def won(self) -> Established:
        """It is connected."""
        attempt = self._attempt
        candidate = attempt.candidate
        memory = memory_for(self._progress.request)
        if memory is not None and candidate.stack.features.handshake:
            memory.succeeded(leaf_key(candidate), time.monotonic() - self._began)
        self._trace(WON)
        assert attempt.flow is not None
        return Established(attempt.flow, candidate, attempt)

    def _failed(self, error: Exception) -> EstablishmentError:
        candidate = self._attempt.candidate
        memory = memory_for(self._progress.request)
        if memory is not None:
            memory.failed(leaf_key(candidate), time.monotonic())
        self._progress.failed(candidate, error)
        return self._progress.all_failed()

    def _trace(self, event: str) -> None:
        trace = self._progress.request.trace
        if trace is not None:
            trace(event, self._attempt.candidate, None)
