"""The first reply from nothing, over an RTT of 30 ms: 64 bytes are asked, and something comes back.

The link is between two network namespaces (:mod:`benchmarks.link`), which takes the rights of root. A full handshake of
QUIC, or of TCP, and the reply take two round trips; with 0-RTT, or with TCP Fast Open, it is one. TLS over TCP takes
three, and two where its hello travels with the SYN. What comes on top is the work of both sides. Beside them are TCP
and TLS by asyncio's streams, and what one round trip takes over UDP alone, which is what the link itself adds.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from benchmarks.harness import Ceiling, Measure, Options
from benchmarks.identity import one_identity
from benchmarks.link import FAR_ADDRESS, NoLinkError, Settings, Sides, slow_link
from benchmarks.sides import client_inside, server_inside

ROUND_TRIP, WORK = 30, 15
"""Milliseconds: of the link, and what may come on top."""
LINK = Settings(rate=100e6, delay=ROUND_TRIP / 2 / 1000)
KINDS = (
    ("one round trip over UDP", "udp", False),
    ("quic", "quic", False),
    ("quic, 0-RTT", "quic", True),
    ("tcp", "tcp", False),
    ("tcp, Fast Open", "tcp", True),
    ("tls/tcp", "tls/tcp", False),
    ("tls/tcp, Fast Open", "tls/tcp", True),
    ("streams", "streams", False),
    ("streams, TLS", "streams-tls", False),
)


def measure(options: Options) -> Iterator[Measure]:
    """One measure."""
    limits = (
        Ceiling("quic", 2 * ROUND_TRIP + WORK),
        Ceiling("quic, 0-RTT", ROUND_TRIP + WORK),
        Ceiling("tcp, Fast Open", ROUND_TRIP + WORK),
        Ceiling("tls/tcp, Fast Open", 2 * ROUND_TRIP + WORK),
    )
    times, rounds = (7, 1) if options.quick else (7, 3)
    result = Measure(f"first reply over an RTT of {ROUND_TRIP} ms", "ms", limits)
    try:
        with one_identity(), slow_link(LINK) as sides:
            fast = _allow_fast_open(sides)
            for _ in range(rounds):
                for name, kind, early in KINDS:
                    if early and kind != "quic" and not fast:
                        result.leave_out(name, "the kernel allows no Fast Open")
                    elif name not in result.failures:
                        _add(result, sides, name, kind, early, times)
    except NoLinkError as error:
        result.leave_out("all", str(error))
    yield result


def _add(result: Measure, sides: Sides, name: str, kind: str, early: bool, times: int) -> None:
    try:
        with server_inside(sides.far, "benchmarks.asking", kind, FAR_ADDRESS) as port:
            details = {"port": port, "times": times, "early": early}
            found = client_inside(sides.near, "benchmarks.asking", "replies", kind, FAR_ADDRESS, details)
    except (subprocess.SubprocessError, ValueError) as error:
        result.fail(name, error)
        return
    for figure in found:
        result.add(name, figure)


def _allow_fast_open(sides: Sides) -> bool:
    """Let both kernels use it as a client and as a server; whether they do."""
    try:
        for name in sides:
            command = ["ip", "netns", "exec", name, "sysctl", "-q", "-w", "net.ipv4.tcp_fastopen=3"]
            subprocess.run(command, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
