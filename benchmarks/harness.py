"""Starts servers and clients in processes of their own, lets contenders take turns, and sets the results in order.

Knows no API that is measured, only the names of contenders.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

SERVER_START_SECONDS = 20.0
CLIENT_SECONDS = 120.0


class Contender(NamedTuple):
    """One module of ``contenders`` on one event loop, ``asyncio`` or ``uvloop``."""

    api: str
    loop: str

    def __str__(self) -> str:
        return f"{self.api} on {self.loop}"


NEATPY = Contender("neatpy", "uvloop")
NEATPY_ASYNCIO = Contender("neatpy", "asyncio")
CLASSIC = Contender("classic", "uvloop")
CLASSIC_ASYNCIO = Contender("classic", "asyncio")
PROTOCOL = Contender("protocol", "uvloop")
PROTOCOL_ASYNCIO = Contender("protocol", "asyncio")
STREAMS = Contender("streams", "uvloop")
STREAMS_ASYNCIO = Contender("streams", "asyncio")
ALL_CONTENDERS = (NEATPY, PROTOCOL, STREAMS, NEATPY_ASYNCIO, PROTOCOL_ASYNCIO, STREAMS_ASYNCIO)


class Options(NamedTuple):
    """How thoroughly to measure, and whom; ``spread`` leaves one-way and bulk transfers unpinned."""

    quick: bool
    apis: frozenset[str]
    spread: bool = False

    def admits(self, contender: Contender) -> bool:
        """Whether this contender takes part: it was asked for and its loop is installed."""
        return contender.api in self.apis and (contender.loop != "uvloop" or self.has_uvloop())

    @staticmethod
    def has_uvloop() -> bool:
        """Whether uvloop is installed."""
        return importlib.util.find_spec("uvloop") is not None


class Floor(NamedTuple):
    """What a ratio of two medians must reach. ``at_most`` turns it into a ceiling."""

    of: str
    beside: str
    limit: float
    at_most: bool = False


class Ceiling(NamedTuple):
    """What a figure itself may be at most."""

    of: str
    limit: float


class Verdict(NamedTuple):
    """One floor or ceiling and what was measured."""

    text: str
    value: float
    limit: float
    at_most: bool
    met: bool


class Measure:
    """The figures of one measure, by the name of the contender, one figure a round."""

    def __init__(self, title: str, unit: str, limits: Sequence[Floor | Ceiling]) -> None:
        self.title = title
        self.unit = unit
        self.figures: dict[str, list[float]] = {}
        self.failures: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._limits = limits

    def add(self, name: str, figure: float) -> None:
        """One round's figure."""
        self.figures.setdefault(name, []).append(figure)

    def fail(self, name: str, error: Exception) -> None:
        """This contender could not be measured; its figures are dropped."""
        self.failures[name] = str(error)
        self.figures.pop(name, None)

    def leave_out(self, name: str, why: str) -> None:
        """This contender is not to be had here, which is no failure."""
        self.left_out[name] = why

    def typical(self, name: str) -> float:
        """The figure that stands for a contender: the median of its rounds."""
        return statistics.median(self.figures[name])

    def verdicts(self) -> Iterator[Verdict]:
        """Every limit whose contenders were measured."""
        for limit in self._limits:
            if limit.of not in self.figures:
                continue
            if isinstance(limit, Ceiling):
                value = self.typical(limit.of)
                yield Verdict(f"{limit.of}, {self.unit}", value, limit.limit, True, value <= limit.limit)
            elif limit.beside in self.figures:
                value = self.typical(limit.of) / self.typical(limit.beside)
                met = value <= limit.limit if limit.at_most else value >= limit.limit
                yield Verdict(f"{limit.of} / {limit.beside}", value, limit.limit, limit.at_most, met)


class LowestMeasure(Measure):
    """A measure of durations in fresh processes, where whatever disturbs can only add: the lowest figure counts."""

    def typical(self, name: str) -> float:
        """The lowest of a contender's figures."""
        return min(self.figures[name])


class WorkerError(Exception):
    """A server or client process could not do its work."""


def take_turns(
    measure: Measure,
    options: Options,
    work: str,
    client: Callable[[Contender, int, int], float],
    *,
    contenders: Sequence[Contender] = ALL_CONTENDERS,
    rounds: int,
    core: int | None,
) -> Measure:
    """Start one server for each contender; then in each round let every contender's client run once.

    ``client(contender, port, server_pid)`` gives the round's figure.
    """
    with ExitStack() as servers:
        running: dict[Contender, tuple[int, int]] = {}
        for contender in contenders:
            if not options.admits(contender):
                continue
            try:
                running[contender] = servers.enter_context(server(contender, work, core))
            except WorkerError as error:
                measure.fail(str(contender), error)
        for _ in range(rounds):
            for contender, (port, pid) in list(running.items()):
                try:
                    measure.add(str(contender), client(contender, port, pid))
                except WorkerError as error:
                    measure.fail(str(contender), error)
                    del running[contender]
    return measure


@contextmanager
def server(contender: Contender, work: str, core: int | None) -> Iterator[tuple[int, int]]:
    """Run ``benchmarks.server``; gives its port and process id, and stops it at the end."""
    process = _start("benchmarks.server", work, contender, core)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = _first_line(process)
        yield int(line), process.pid
    finally:
        process.stdin.close()  # the end of its input is what a server stops at
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def client(
    contender: Contender, work: str, port: int, core: int | None, **details: object
) -> dict[str, float]:
    """Run ``benchmarks.client`` once; gives what it measured, by name."""
    details["port"] = port
    process = _start("benchmarks.client", work, contender, core)
    try:
        output, _ = process.communicate(json.dumps(details), timeout=CLIENT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise WorkerError(f"the client was not done within {CLIENT_SECONDS:.0f} s") from None
    if process.returncode != 0:
        raise WorkerError(f"the client ended with code {process.returncode}")
    figures: Mapping[str, float] = json.loads(output)
    return dict(figures)


def shared_core() -> int | None:
    """The core that both sides of a pinned measure run on, or None where processes cannot be pinned."""
    if sys.platform != "linux":
        return None
    return max(os.sched_getaffinity(0))


def resident_bytes(pid: int) -> int:
    """The resident set of a process. Raises WorkerError where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError as error:
        raise WorkerError(f"the resident size of a process cannot be read: {error}") from None


def _start(module: str, work: str, contender: Contender, core: int | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, work, contender.api, contender.loop]
    if core is not None:
        command.append(str(core))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _first_line(process: subprocess.Popen[str]) -> str:
    """What a server says first, its port; bounded in time by a watchdog that kills it."""
    import threading

    assert process.stdout is not None
    watchdog = threading.Timer(SERVER_START_SECONDS, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    if not line:
        raise WorkerError(f"the server did not start (exit code {process.wait()})")
    return line
