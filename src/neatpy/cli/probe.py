"""``probe``: race the candidates of a peer once, and draw when each began and how it ended. Nothing is exchanged."""

from __future__ import annotations

import time
from contextlib import suppress

from neatpy import ConnectionError, EstablishmentError, Preconnection, trace
from neatpy.cli.console import err, hint_for, out, report, say

WIDTH = 40
"""Columns of the time axis."""

_WITHOUT_HANDSHAKE = ("udp", "udp-lite")
_ENDINGS = {trace.CandidateWon: "won", trace.CandidateFailed: "failed", trace.CandidateAbandoned: "abandoned"}


class _Attempt:
    """One candidate: when it began and ended, in seconds of the race, and how."""

    def __init__(self, name: str, began: float) -> None:
        self.name = name
        self.began = began
        self.ended: float | None = None
        self.ending = "still in progress"
        self.why = ""


async def probe(preconnection: Preconnection, where: str, timeout: float | None) -> int:
    """Race once; 0 if a candidate won."""
    attempts: dict[object, _Attempt] = {}
    start = time.monotonic()

    def watch(event: trace.Event) -> None:
        candidate = event.details.get("candidate")
        at = event.time - start
        if type(event) is trace.CandidateStarted:
            attempts[candidate] = _Attempt(repr(candidate), at)
        elif type(event) in _ENDINGS and candidate in attempts:
            attempt = attempts[candidate]
            attempt.ended, attempt.ending = at, _ENDINGS[type(event)]
            attempt.why = event.written().get("error", "")

    unsubscribe = trace.subscribe(watch)
    connection = preconnection.initiate(timeout)
    failure: EstablishmentError | None = None
    try:
        await connection
    except EstablishmentError as error:
        failure = error
    finally:
        took = time.monotonic() - start
        unsubscribe()
    _draw(list(attempts.values()), took)
    if failure is None:
        if connection.stack in _WITHOUT_HANDSHAKE:
            say(err(), f"{connection.stack} has no handshake: nothing tells whether anybody is there")
        with suppress(ConnectionError):  # it was there, which is all that was asked
            await connection.close()
    if failure is not None and not attempts:
        report(failure, f"cannot probe {where}", hint_for(failure))
    elif failure is not None:
        say(err(), f"no candidate for {where} was established")
    return 0 if failure is None else 1


def _draw(attempts: list[_Attempt], took: float) -> None:
    if not attempts:
        return
    names = max(len(attempt.name) for attempt in attempts)
    say(out(), f"{'':{names}}  0{'':{WIDTH - 2}}{took * 1000:.0f} ms")
    for attempt in attempts:
        ended = took if attempt.ended is None else attempt.ended
        left = min(WIDTH - 1, int(attempt.began / took * WIDTH))
        right = max(left + 1, min(WIDTH, round(ended / took * WIDTH)))
        bar = " " * left + "=" * (right - left)
        style = "bold green" if attempt.ending == "won" else ""
        why = f": {attempt.why}" if attempt.why else ""
        when = f"{attempt.began * 1000:.1f} to {ended * 1000:.1f} ms"
        say(out(), f"{attempt.name:{names}} |{bar:{WIDTH}}| {when}, {attempt.ending}{why}", style)
