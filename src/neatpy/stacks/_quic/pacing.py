"""When packets may leave aioquic's engine: by how large they are (RFC 9002 section 7.7).

The engine's own pacer takes every packet for a full one. Many small ones would wait for one another though they fill no
path, and the engine would ask to be woken for them a fraction of a millisecond later: with an event loop whose timers
have whole milliseconds, again and again until then. Like the adapter and its streams this room knows private names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.recovery import QuicPacketPacer

if TYPE_CHECKING:
    from aioquic.quic.packet_builder import QuicPacketBuilder


class Pacer(QuicPacketPacer):
    """Spends the time of a full packet for so many bytes, not for a packet."""

    builder: QuicPacketBuilder
    """What makes the packets at present."""

    def update_after_send(self, now: float) -> None:
        full = self.packet_time
        if full is not None:
            self.update_bucket(now=now)
            builder = self.builder
            size = builder._buffer.tell() - builder._packet_start
            self.bucket_time = max(0.0, self.bucket_time - full * size / self._max_datagram_size)
