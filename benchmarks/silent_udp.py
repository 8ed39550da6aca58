"""A peer whose UDP is never answered and whose TLS over TCP is open: how soon a secure Connection is Ready.

``quic``, and other stacks over UDP where they are installed, are tried first. TLS starts when the first of them has
been silent for the stagger delay, and then takes its own time, which is measured beside it. At loopback, and, where
root may make one, over a link with an RTT of 30 ms (:mod:`benchmarks.link`).
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator

from benchmarks.harness import Ceiling, Measure, Options
from benchmarks.identity import one_identity
from benchmarks.link import FAR_ADDRESS, NoLinkError, Settings, slow_link
from benchmarks.sides import client_inside, server_inside
from neatpy.establishment.racing import PROTOCOL_DELAY

LINK = Settings(rate=100e6, delay=0.015)
WORK = 20
"""Milliseconds that may come on top of the stagger delay and of TLS's own time."""
ALONE, RACED, LATER = "tls/tcp alone", "tls/tcp after silent UDP", "later than alone"


def measure(options: Options) -> Iterator[Measure]:
    """One measure at loopback, one over the link."""
    with one_identity():
        result = _new("at loopback")
        _add(result, options, None, None, "127.0.0.1")
        yield result
        result = _new("over an RTT of 30 ms")
        try:
            with slow_link(LINK) as sides:
                _add(result, options, sides.near, sides.far, FAR_ADDRESS)
        except NoLinkError as error:
            result.leave_out("all", str(error))
        yield result


def _new(where: str) -> Measure:
    return Measure(
        f"Ready where UDP is silent, {where}", "ms", (Ceiling(LATER, PROTOCOL_DELAY * 1000 + WORK),)
    )


def _add(result: Measure, options: Options, near: str | None, far: str | None, host: str) -> None:
    if importlib.util.find_spec("aioquic") is None:
        result.leave_out("all", "aioquic is not installed")
        return
    times = 7 if options.quick else 21
    try:
        with server_inside(far, "benchmarks.asking", "silent", host) as port:
            details = {"port": port, "times": times}
            found = client_inside(near, "benchmarks.asking", "race", "silent", host, details)
    except (subprocess.SubprocessError, ValueError) as error:
        result.fail("all", error)
        return
    for alone, raced in zip(found["alone"], found["raced"], strict=True):
        result.add(ALONE, alone)
        result.add(RACED, raced)
        result.add(LATER, raced - alone)
