"""What one establishment has tried so far, and the error that comes of it when nothing is left to try."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from neatpy.errors import Attempted, EstablishmentError, Reason
from neatpy.establishment.request import FAILED
from neatpy.stacks.contract import Candidate

if TYPE_CHECKING:
    from neatpy.establishment.request import EstablishmentRequest


class Progress:
    """What has been tried so far, for the error if it comes to that."""

    __slots__ = ("expired", "failures", "request", "running")

    def __init__(self, request: EstablishmentRequest) -> None:
        self.request = request
        self.failures: list[tuple[Candidate | str, BaseException]] = []
        self.running: list[Candidate] = []
        self.expired = False

    def expire(self, task: asyncio.Task[object]) -> None:
        """The time is over: cancel the task that establishes."""
        self.expired = True
        task.cancel()

    def failed(self, candidate: Candidate, error: BaseException) -> None:
        self.failures.append((candidate, error))
        trace = self.request.trace
        if trace is not None:
            trace(FAILED, candidate, error)

    def attempts(self) -> list[Attempted]:
        return [
            Attempted(repr(what) if isinstance(what, Candidate) else f"name {what}", error)
            for what, error in self.failures
        ]

    def timed_out(self, timeout: float) -> EstablishmentError:
        unfinished = [Attempted(repr(one), TimeoutError("was still in progress")) for one in self.running]
        waiting = "" if self.failures or unfinished else ", since its name was not resolved"
        message = f"{self.request.goal} could not be reached within {timeout:g} s{waiting}"
        return EstablishmentError(message, Reason.TIMEOUT, [*self.attempts(), *unfinished])

    def all_failed(self) -> EstablishmentError:
        """The error when nothing is left to try: with the reason that all failures share, if they share one."""
        failures = self.failures
        reasons = {_reason(what, error) for what, error in failures}
        reason = reasons.pop() if len(reasons) == 1 else Reason.ESTABLISHMENT_FAILED
        goal = self.request.goal
        if reason is Reason.RESOLUTION_FAILED:
            message = f"the name of {goal} could not be resolved"
        elif len(failures) == 1:
            message = f"{goal} could not be reached: {str(failures[0][1]) or type(failures[0][1]).__name__}"
        else:
            message = f"{goal} could not be reached, after {len(failures)} failed attempts"
        return EstablishmentError(message, reason, self.attempts())


def _reason(what: Candidate | str, error: BaseException) -> Reason:
    if isinstance(error, EstablishmentError):
        return error.reason
    if not isinstance(what, Candidate):
        return Reason.RESOLUTION_FAILED
    if isinstance(error, PermissionError):
        return Reason.POLICY_PROHIBITED
    return Reason.TIMEOUT if isinstance(error, TimeoutError) else Reason.ESTABLISHMENT_FAILED
