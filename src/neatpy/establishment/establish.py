"""Establishment itself: gather candidates, race them, hand over the winner (RFC 9623 section 4).

The usual case, one candidate, runs in the calling task with no task, timer or thread of its own. A real race has one
task for each attempt that was started and one timer. Whatever way it ends, nothing of the losers is left.
"""

from __future__ import annotations

import asyncio
import math
import time

from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.attempt import Attempt
from neatpy.establishment.candidates import (
    CandidateTree,
    Gathered,
    gather,
    leaf_key,
    sole_candidate,
)
from neatpy.establishment.memory import Memory, memories
from neatpy.establishment.policy import no_stack_message, registered_stacks, with_availability
from neatpy.establishment.progress import Progress
from neatpy.establishment.request import (
    ABANDONED,
    STARTED,
    WON,
    Established,
    EstablishmentRequest,
)
from neatpy.stacks.contract import Candidate


async def establish(request: EstablishmentRequest) -> Established:
    """Give the first candidate whose handshakes, the framers' included, complete.

    Raises EstablishmentError with every attempt and one reason; cancelling ends every attempt.
    """
    progress = Progress(request)
    timeout = request.timeout
    if timeout is None or timeout == math.inf:
        return await _establish(request, progress)
    # What asyncio.timeout does, at half its cost: this is on the way of every Connection.
    task = asyncio.current_task()
    assert task is not None
    already_cancelled = task.cancelling()
    timer = asyncio.get_running_loop().call_later(timeout, progress.expire, task)
    try:
        return await _establish(request, progress)
    except asyncio.CancelledError as error:
        if progress.expired and task.uncancel() <= already_cancelled:
            raise progress.timed_out(timeout) from error
        raise
    finally:
        timer.cancel()


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
        stacks = request.stacks if request.stacks is not None else registered_stacks()
        ruled_out = with_availability(gathered.ruled_out_stacks, stacks)
        raise EstablishmentError(no_stack_message(ruled_out), Reason.NO_CANDIDATES)
    if not gathered.paths:
        lines = ["no network path satisfies the properties and endpoints"]
        lines.extend(f"  {entry!r}" for entry in gathered.ruled_out_paths)
        raise EstablishmentError("\n".join(lines), Reason.NO_CANDIDATES)


async def _establish(request: EstablishmentRequest, progress: Progress) -> Established:
    gathered = gather(request)
    require_candidates(gathered)
    memory = memory_for(request)
    candidate = sole_candidate(gathered)
    if candidate is not None:
        return await _sole_attempt(candidate, memory, progress)
    if gathered.names:
        from neatpy.establishment.contest import Contest

        return await Contest(gathered, memory, progress).run()
    tree = CandidateTree(gathered, gathered.targets, memory, time.monotonic())
    leaves = tree.leaves()
    if len(leaves) == 1:
        return await _sole_attempt(leaves[0], memory, progress)
    from neatpy.establishment.contest import Contest

    return await Contest(gathered, memory, progress, tree).run()


async def _sole_attempt(candidate: Candidate, memory: Memory | None, progress: Progress) -> Established:
    request = progress.request
    trace = request.trace
    attempt = Attempt(candidate)
    progress.running.append(candidate)
    if trace is not None:
        trace(STARTED, candidate, None)
    began = time.monotonic()
    try:
        flow = await attempt.connect(request.prepare)
    except Exception as error:
        if memory is not None:
            memory.failed(leaf_key(candidate), time.monotonic())
        progress.failed(candidate, error)
        raise progress.all_failed() from error
    except asyncio.CancelledError:
        if trace is not None:
            trace(ABANDONED, candidate, None)
        raise
    if memory is not None and candidate.stack.features.handshake:
        memory.succeeded(leaf_key(candidate), time.monotonic() - began)
    if trace is not None:
        trace(WON, candidate, None)
    return Established(flow, candidate, attempt)
