"""How the streams of one connection share the memory for what came and nobody receives.

A protocol with streams bounds what a peer may make us keep: by credit for all streams together (QUIC), or by reading
no more (SCTP). Either way one stream that nobody receives from uses up what the others need, so that there is much of
it; and what has gone up to a Connection no longer counts, so that little of it goes there unasked.
"""

from __future__ import annotations

UNREAD_BY_ALL = 64 * 1024 * 1024
"""Bytes that all streams of one connection keep together before the peer is stopped on all of them."""

_AHEAD, _AHEAD_BY_ALL, _LEAST_AHEAD = 64 * 1024, 16 * 1024 * 1024, 4 * 1024


def read_ahead(streams: int) -> int:
    """``Flow.reads_ahead`` for a stream where there are so many."""
    return _AHEAD if streams * _AHEAD <= _AHEAD_BY_ALL else max(_LEAST_AHEAD, _AHEAD_BY_ALL // streams)
