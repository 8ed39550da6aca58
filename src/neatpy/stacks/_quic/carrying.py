"""The Flows that a QUIC connection carries: who gets what comes on a stream, and who takes one that the peer opens."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from neatpy.stacks._quic.carried import ABORTED, NO_ERROR, CarriedFlow, is_bound
from neatpy.stacks._quic.datagram_flow import DATAGRAMS
from neatpy.stacks._quic.engine_observer import EngineObserver
from neatpy.stacks._quic.flow import QuicFlow
from neatpy.stacks._quic.mixed_flow import MixedFlow
from neatpy.stacks._quic.order import Order

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from neatpy.properties import TransportProperties
    from neatpy.stacks._quic.engine import Engine
    from neatpy.stacks._quic.paths import Path
    from neatpy.stacks.quic import QuicStack

HANDSHAKE, HELD, OPEN, OVER = range(4)
"""The states of a connection; it is held while the program's callback decides."""


class Carrier(EngineObserver):
    """One connection, as its Flows know it. How it begins, is driven and ends is for whoever inherits."""

    __slots__ = (
        "_state",
        "_writers",
        "engine",
        "flows",
        "loop",
        "order",
        "path",
        "properties",
        "stack",
        "take_datagram",
        "unheard",
    )

    path: Path

    def __init__(
        self,
        stack: QuicStack,
        engine: Engine,
        properties: TransportProperties,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.stack = stack
        self.engine = engine
        engine.observer = self
        self.properties = properties
        self.loop = loop
        self._state = HANDSHAKE
        self.flows: dict[int, CarriedFlow] = {}
        self._writers: dict[CarriedFlow, None] = {}
        self.order = Order(properties.conn_scheduler)
        self._use_order()
        self.take_datagram: Callable[[bytes], None] | None = None
        """Where datagrams go that come: to the first Flow, if it takes them."""
        self.unheard: dict[int, None] = {}
        """Streams that the peer has opened and on which nothing came yet."""

    @property
    def over(self) -> bool:
        """Whether it is closed, as far as we are concerned."""
        return self._state == OVER

    @property
    def is_open(self) -> bool:
        """Whether the handshake is complete, and the peer trusted."""
        return self._state == OPEN

    @property
    def first_kind(self) -> type[QuicFlow]:
        """What the first stream of the connection becomes."""
        return MixedFlow if self.stack.takes_datagrams else QuicFlow

    @property
    @abstractmethod
    def is_new(self) -> bool:
        """Whether nobody has been told of the connection yet."""

    @abstractmethod
    def make(self, kind: type[QuicFlow], stream: int) -> QuicFlow:
        """A Flow that nobody has taken yet."""

    @abstractmethod
    def schedule(self) -> None:
        """Something is to be sent."""

    @abstractmethod
    def end(self, code: int) -> None:
        """Close the connection now."""

    # What comes

    def stream_opened(self, stream: int) -> None:
        flow = self.flows.get(stream)
        if flow is None:
            self.unheard[stream] = None
        elif isinstance(flow, QuicFlow):
            flow.peer_opened()

    def stream_data(self, stream: int, data: bytes, ended: bool) -> None:
        flow = self.flows.get(stream)
        if flow is None and stream in self.unheard:
            flow = self._offer(stream)
        if isinstance(flow, QuicFlow):
            flow.take(data, ended)
        else:
            self.engine.taken(stream, len(data))

    def datagram(self, data: bytes) -> None:
        if self.take_datagram is not None:
            self.take_datagram(data)

    def _offer(self, stream: int) -> CarriedFlow | None:
        """The peer opened a stream: it is the business of the oldest Flow that is left."""
        del self.unheard[stream]
        if self._state == HANDSHAKE and not self._accepts_early():
            return None
        if self._state == OVER:
            return None
        if DATAGRAMS in self.flows:
            self._refuse_stream(stream)
            return None
        parent = self._oldest()
        begin = QuicFlow if self.flows or not self.is_new else self.first_kind
        flow = self.make(begin, stream)
        self.flows[stream] = flow
        flow.peer_opened()
        if parent is not None:
            parent.observer.sibling(flow)
        else:
            self.unparented(flow)
        if not is_bound(flow):
            flow.discard()
            self._refuse_stream(stream)
            self.forget(flow)
            return None
        return flow

    def _oldest(self) -> CarriedFlow | None:
        for flow in self.flows.values():
            if not flow.over and not flow.closing:
                return flow
        return None

    def _accepts_early(self) -> bool:
        """Data came before the handshake was complete: whether they are those of a client that we know, so that its
        connection is accepted with them (0-RTT)."""
        return False

    def _refuse_stream(self, stream: int) -> None:
        """Nobody here wants this stream, which leaves all others alone."""
        self.engine.reset(stream, ABORTED)
        self.engine.stop(stream, ABORTED)
        self.schedule()

    def stream_reset(self, stream: int, code: int) -> None:
        flow = self.flows.get(stream)
        if isinstance(flow, QuicFlow):
            flow.peer_aborted(code)
        elif stream in self.unheard:
            del self.unheard[stream]
            self._refuse_stream(stream)  # our side of it too, or it would stay

    def stop_asked(self, stream: int, code: int) -> None:
        flow = self.flows.get(stream)
        if isinstance(flow, QuicFlow):
            flow.peer_refuses(code)

    def stream_delivered(self, stream: int) -> None:
        flow = self.flows.get(stream)
        if isinstance(flow, QuicFlow):
            flow.delivered()

    def forget(self, flow: CarriedFlow) -> None:
        """Nothing is left of this Flow on either side."""
        self.forget_stream(flow)
        if not self.flows and self._state in (HANDSHAKE, HELD, OPEN):
            self.unused()

    def forget_stream(self, flow: CarriedFlow) -> None:
        """This Flow has nothing more to do with its stream."""
        self._writers.pop(flow, None)
        if self.flows.get(flow.stream) is flow:
            del self.flows[flow.stream]
        self.order.forget(flow.stream)

    def unused(self) -> None:
        """Nothing is left of any Flow, and we can make no more."""
        self.end(NO_ERROR)

    def unparented(self, flow: CarriedFlow) -> None:
        """The peer opened a stream when no other was left: nobody here takes it."""

    def abandon(self, flow: CarriedFlow) -> None:
        """This Flow is aborted: the connection too if it was the last."""
        if self._state == OVER:
            return
        others = [one for one in self.flows.values() if one is not flow and not one.over]
        if not others:
            self.forget_all()
            self.end(ABORTED)
            return
        self.engine.reset(flow.stream, ABORTED)
        self.engine.stop(flow.stream, ABORTED)
        self.forget(flow)
        self.schedule()

    def forget_all(self) -> None:
        """No Flow is to hear of anything any more."""
        self.flows.clear()
        self._writers.clear()

    def linger_if_over(self) -> None:
        """A Flow has reported its end. After the last one, the peer is only listened to until it ends its side too."""
        if all(flow.over for flow in self.flows.values()):
            self.path.linger()

    # What Flows ask

    def prioritise(self, stream: int, priority: float) -> None:
        """How urgent a stream is; the lowest goes first."""
        if self.order.prioritise(stream, priority):
            self._use_order()

    def _use_order(self) -> None:
        self.engine.order = self.order.key if self.order.matters else None

    def stream_begins(self, stream: int) -> None:
        """A stream that had nothing to send is about to have something."""
        engine = self.engine
        self.order.begins(stream, engine.sent(stream), engine.busy())
