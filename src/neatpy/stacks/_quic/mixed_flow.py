"""The first stream of a QUIC connection with datagrams (RFC 9221) beside it, for reliability Message by Message.

A Message that may be lost leaves as one DATAGRAM frame with the very bytes that it would have been on the stream: as
they are, or as framers made them. Where that is not possible (the peer takes no datagrams, it does not fit, it is sent
in parts, it ends the stream, or its frame means nothing by itself) it is part of the stream, and reliable. Datagrams
have nothing that would tell several streams' apart, so that they are this stream's alone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from neatpy.stacks._quic.datagram_flow import WAITING, Held, datagram_context
from neatpy.stacks._quic.flow import QuicFlow

if TYPE_CHECKING:
    from neatpy.message import MessageContext
    from neatpy.properties import TransportProperties
    from neatpy.stacks._quic.connection import QuicTransport
    from neatpy.stacks.contract import Data, FlowObserver, Stack


class MixedFlow(QuicFlow):
    """One stream, and all datagrams of its connection."""

    __slots__ = ("_datagrams", "_end_written", "_in_parts", "_sends_apart", "_waits_for_datagrams")

    def __init__(
        self, transport: QuicTransport, stream: int, observer: FlowObserver, properties: TransportProperties
    ) -> None:
        super().__init__(transport, stream, observer, properties)
        self._sends_apart = True
        self._datagrams = Held()
        self._in_parts = self._end_written = False
        self._waits_for_datagrams = False
        """The engine holds enough datagrams for now, or those before the end of the stream."""
        transport.take_datagram = self.take_datagram

    @property
    def stack(self) -> Stack:
        stack = self._transport.stack
        return stack if self._sends_apart and self._transport.engine.takes_datagrams else stack.alone

    # Sending

    @property
    def sends_apart(self) -> bool:
        return self._sends_apart

    def keep_together(self) -> None:
        self._sends_apart = False

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        whole = end_of_message and not self._in_parts
        self._in_parts = not end_of_message
        if whole and context.msg_reliable is False and not context.final and self._send_apart(data):
            return True
        return super().send(data, context, end_of_message, token)

    def _send_apart(self, data: Data) -> bool:
        """Send it as a datagram, if that is possible."""
        engine = self._transport.engine
        if (
            not self._sends_apart
            or not self._can_send
            or self._finishing
            or self._early
            or self._refused is not None
            or not 0 < len(data) <= engine.largest_datagram()
        ):
            return False
        engine.send_unreliably(data if type(data) is bytes else bytes(data))
        if engine.datagrams_waiting >= WAITING:
            self.writable = False
            self._wait_for_datagrams()
        self._transport.schedule()
        return True

    def send_last(self, data: Data, context: MessageContext, token: object) -> bool:
        if self._waits_for_datagrams or self._transport.engine.datagrams_waiting:
            taken = self.send(data, context, True, token)
            self.finish()
            return taken
        taken = super().send_last(data, context, token)
        self._end_written = self._end_written or self._rests is None
        return taken

    def _wait_for_datagrams(self) -> None:
        self._waits_for_datagrams = True
        self._transport.wants_to_write(self)

    def has_room(self) -> bool:
        if self._waits_for_datagrams:
            waiting = self._transport.engine.datagrams_waiting
            if waiting > (0 if self._finishing else WAITING // 2):
                return False
            if self._rests is None:
                return True
        return super().has_room()

    def write_on(self) -> bool:
        self._waits_for_datagrams = False
        return super().write_on() and not self._waits_for_datagrams

    def _write_end(self) -> None:
        # What was sent before leaves before: the peer takes nothing after the end.
        if self._transport.engine.datagrams_waiting:
            self._wait_for_datagrams()
            self._transport.schedule()
        elif self._usable and not self._end_written:
            self._end_written = True
            super()._write_end()

    def backlog(self) -> int:
        return super().backlog() + self._transport.engine.datagrams_waiting

    # Receiving

    def take_datagram(self, data: bytes) -> None:
        """A Message came beside the stream."""
        if self.closing or self.over or self._peer_finished:
            return
        if self._paused or self._datagrams:
            self._datagrams.add(data)
            if self._held is None:
                self._held = deque()  # the end of the stream is told after them
        elif not self.observer.received_apart(data, datagram_context()):
            self._datagrams.dropped += 1

    def _tell_held(self) -> None:
        datagrams = self._datagrams
        while datagrams and not self._paused and not self.closing and not self.over:
            if not self.observer.received_apart(datagrams.take(), datagram_context()):
                datagrams.dropped += 1
        super()._tell_held()

    def _discard_held(self) -> None:
        self._datagrams.clear()
        super()._discard_held()

    # Properties

    def read(self, name: str) -> object:
        if name == "singular_transmission_msg_max_len" and self._sends_apart:
            return self._transport.engine.largest_datagram() or None
        return super().read(name)

    def statistics(self) -> dict[str, float]:
        return {**super().statistics(), "datagrams_dropped": float(self._datagrams.dropped)}

    def __repr__(self) -> str:
        return f"<MixedFlow stream {self.stream}>"
