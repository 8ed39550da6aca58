"""A slow link between two network namespaces, with bandwidth, delay, a queue, loss and reordering as told.

It is a program that moves packets between two TUN devices, one in each namespace, since few kernels come with netem.
``python -m benchmarks.link NEAR FAR SETTINGS`` runs it; :func:`slow_link` makes all of it, and takes it away.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

NEAR_ADDRESS, FAR_ADDRESS = "10.77.0.1", "10.77.0.2"

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_START_SECONDS = 5.0
_LARGEST = 65536


class Settings(NamedTuple):
    """``rate`` in bits per second, ``delay`` one way in seconds, ``queue`` in bytes for each direction; ``loss`` and
    ``reordered`` are shares of the packets, and those reordered come later by ``behind`` seconds."""

    rate: float = 5e6
    delay: float = 0.015
    queue: int = 64 * 1024
    loss: float = 0.0
    reordered: float = 0.0
    behind: float = 0.010
    mtu: int = 1500


class NoLinkError(Exception):
    """Namespaces or TUN devices cannot be made here."""


class Sides(NamedTuple):
    """The names of the two namespaces; their addresses are always the same."""

    near: str
    far: str


@contextmanager
def slow_link(settings: Settings) -> Iterator[Sides]:
    """Two namespaces and the link between them. Raises NoLinkError."""
    sides = Sides(*(f"neatpy-link-{os.getpid()}-{side}" for side in Sides._fields))
    try:
        for name in sides:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        command = (sys.executable, "-m", "benchmarks.link", *sides, json.dumps(settings))
        process = subprocess.Popen(
            ["ip", "netns", "exec", sides.near, *command],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            if (
                not select.select([process.stdout], [], [], _START_SECONDS)[0]
                or not process.stdout.readline()
            ):
                raise NoLinkError("the link's program did not start: there may be no TUN devices here")
            yield sides
        finally:
            process.kill()
            process.communicate()
    finally:
        for name in sides:
            with suppress(NoLinkError):
                _ip("netns", "del", name)


class _Direction:
    """From one device to the other: a queue that drains at the link's rate, then the delay."""

    def __init__(self, source: int, target: int, settings: Settings) -> None:
        self.source = source
        self._target = target
        self._settings = settings
        self._free_at = 0.0
        self._under_way: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._random = random.Random(settings.rate)

    def take(self, packet: bytes, now: float) -> None:
        settings = self._settings
        waiting = max(0.0, self._free_at - now) * settings.rate / 8
        if waiting + len(packet) > settings.queue or self._random.random() < settings.loss:
            return
        self._free_at = max(now, self._free_at) + len(packet) * 8 / settings.rate
        arrives = self._free_at + settings.delay
        if self._random.random() < settings.reordered:
            arrives += settings.behind
        self._count += 1
        heapq.heappush(self._under_way, (arrives, self._count, packet))

    def deliver(self, now: float) -> float:
        """Hand over what has arrived; gives when the next does."""
        while self._under_way and self._under_way[0][0] <= now:
            os.write(self._target, heapq.heappop(self._under_way)[2])
        return self._under_way[0][0] if self._under_way else now + 1


def _run(near: str, far: str, settings: Settings) -> None:
    devices = _device("link-near"), _device("link-far")
    _ip("link", "set", "link-far", "netns", far)
    for name, device, own, peer in (
        (near, "link-near", NEAR_ADDRESS, FAR_ADDRESS),
        (far, "link-far", FAR_ADDRESS, NEAR_ADDRESS),
    ):
        _ip("-n", name, "address", "add", own, "peer", peer, "dev", device)
        _ip("-n", name, "link", "set", device, "mtu", str(settings.mtu), "up")
    print("up", flush=True)
    directions = (_Direction(devices[0], devices[1], settings), _Direction(devices[1], devices[0], settings))
    ready: list[int] = []
    while True:
        now = time.monotonic()
        for direction in directions:
            if direction.source in ready:
                with suppress(BlockingIOError):
                    while True:
                        direction.take(os.read(direction.source, _LARGEST), now)
        due = min(direction.deliver(now) for direction in directions)
        ready = select.select(devices, [], [], max(0.0, due - time.monotonic()))[0]


def _device(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLinkError(f"ip {' '.join(arguments)}: {error}") from error
    if done.returncode != 0:
        raise NoLinkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2], Settings(*json.loads(sys.argv[3])))
