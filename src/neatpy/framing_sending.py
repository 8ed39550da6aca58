"""The sending half of the layer of framers: what a Message becomes on its way down, what framers send of their own, and
the account of what was Sent. The room does not know what arrives, nor how framers start and end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neatpy.errors import Reason, SendError
from neatpy.framing_layer import OWN, LayeredFlow, Several
from neatpy.message import MessageContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from neatpy.framer_handle import Handle
    from neatpy.stacks.contract import Data, Flow

# ruff: noqa: D102 - the contract documents the methods of a Flow

OUTBOX_LIMIT = 256 * 1024
"""Bytes of the framers' own (answers to the peer, say) that may wait before nothing more is read from the peer."""

_JOIN_LIMIT = 64 * 1024
"""What one Message becomes is joined up to this size (bytes); larger pieces leave one by one, coalesced below."""

Piece = tuple["Data", "MessageContext | None", bool]


class FramedSending(LayeredFlow):
    """A Flow of Messages, as far as they are sent."""

    __slots__ = (
        "_accepted",
        "_corked",
        "_finish_waits",
        "_finished",
        "_outbox",
        "_outbox_size",
        "_pieces",
        "_submitted",
        "_taken",
        "_top",
        "_whole_frame",
        "over",
    )

    _top: Handle
    """The handle of the topmost framer."""
    _whole_frame: Callable[..., bytes | None] | None
    """Where one framer is all there is, and while it frames: what a whole Message becomes in one step."""

    def __init__(self, lower: Flow) -> None:
        self._lower = lower
        self.over = False
        self._finished = self._finish_waits = self._corked = False
        # What the send that is in progress has become so far.
        self._pieces: list[Piece] | None = None
        # What the framers sent of their own and the Flow below has not been given.
        self._outbox: deque[Piece] | None = None
        self._outbox_size = 0
        # Sends that the Flow below did not take at once, and how many of these it has settled since.
        self._submitted = self._taken = 0
        # Sends that a framer kept whole, and how many must be settled before each.
        self._accepted: deque[tuple[int, object]] | None = None

    @property
    def writable(self) -> bool:  # type: ignore[override]
        """Whether the Flow below takes more and nothing of the framers' own waits for it."""
        return self._outbox is None and self._lower.writable

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        whole_frame = self._whole_frame
        if whole_frame is not None and end_of_message and type(data) is bytes:
            try:
                framed = whole_frame(self._top, data, context)
            except SendError:
                raise
            except Exception as error:
                raise _failed(error, context) from error
            if framed is not None:
                if self._lower.send(framed, context, True, token):
                    return True
                self._submitted += 1
                return False
        if self.over:
            raise _aborted(context)
        pieces: list[Piece] = []
        self._pieces = pieces
        try:
            self._top.push(data, context, end_of_message)
        except SendError:
            raise
        except Exception as error:
            raise _failed(error, context) from error
        finally:
            self._pieces = None
        if len(pieces) == 1:
            data, piece_context, end_of_message = pieces[0]
            return self._pass_down(data, piece_context or context, end_of_message, token)
        if self.over:
            raise _aborted(context)
        if not pieces:
            return self._accept(token)
        return self._send_several(coalesced(pieces, self._lower.preserves_boundaries), context, token)

    def send_several(self, messages: Sequence[bytes], context: MessageContext, token: object) -> bool:
        if self.over:
            raise _aborted(context)
        pieces: list[Piece] = []
        self._pieces = pieces
        push = self._top.push
        whole_frame = self._whole_frame
        try:
            for data in messages:
                framed = None if whole_frame is None else whole_frame(self._top, data, context)
                if framed is None:
                    push(data, context, True)
                else:
                    pieces.append((framed, None, True))
        except SendError:
            raise
        except Exception as error:
            raise _failed(error, context) from error
        finally:
            self._pieces = None
        if not pieces:
            return self._accept(token)
        return self._pass_down(b"".join([data for data, _, _ in pieces]), context, True, token)

    def cork(self) -> None:
        self._corked = True
        self._lower.cork()

    def uncork(self) -> None:
        self._corked = False
        self._lower.uncork()

    def output(self, data: Data, context: MessageContext | None, end_of_message: bool) -> None:
        """The lowest framer sends: for a Message that is being sent, or of its own."""
        if self._pieces is not None:
            self._pieces.append((data, context, end_of_message))
        elif self.over or self._finished:
            return  # nobody there to read it
        elif self._outbox is None and self._lower.writable:
            self._send_own(data, context, end_of_message)
        else:
            if self._outbox is None:
                self._outbox = deque()
            self._outbox.append((bytes(data), context, end_of_message))
            self._outbox_size += len(self._outbox[-1][0])
            if self._outbox_size > OUTBOX_LIMIT:
                self._lower.pause_receiving()

    def _pass_down(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        if self._lower.send(data, context, end_of_message, token):
            return True
        self._submitted += 1
        return False

    def _send_own(self, data: Data, context: MessageContext | None, end_of_message: bool) -> None:
        if not self._lower.send(data, context or MessageContext(), end_of_message, OWN):
            self._submitted += 1

    def _send_several(self, pieces: list[Piece], context: MessageContext, token: object) -> bool:
        """What one send has become. The token is settled when the last piece is."""
        lower = self._lower
        several = Several(token, len(pieces))
        cork = not self._corked and len(pieces) > 1
        if cork:
            lower.cork()
        try:
            for data, piece_context, end_of_message in pieces:
                if lower.send(data, piece_context or context, end_of_message, several):
                    several.left -= 1
                else:
                    self._submitted += 1
        finally:
            if cork:
                lower.uncork()
        several.in_send = False
        return several.left == 0

    def _accept(self, token: object) -> bool:
        """A framer keeps all of this send: it is Sent, though not before those that went before it."""
        if self._taken == self._submitted:
            return True
        if self._accepted is None:
            self._accepted = deque()
        self._accepted.append((self._submitted, token))
        return False

    def settled(self) -> None:
        """The Flow below has settled one more of what it had not taken at once."""
        self._taken += 1
        accepted = self._accepted
        while accepted and accepted[0][0] <= self._taken:
            self.observer.sent(accepted.popleft()[1])

    def flush_outbox(self) -> None:
        """The Flow below takes more: give it what waits of the framers' own."""
        outbox = self._outbox
        if outbox is None:
            return
        while outbox and self._lower.writable:
            data, context, end_of_message = outbox.popleft()
            self._outbox_size -= len(data)
            self._send_own(data, context, end_of_message)
        if outbox:
            return
        self._outbox = None
        self.outbox_is_empty()

    def outbox_is_empty(self) -> None:
        """All that waited of the framers' own has left."""
        if self._finish_waits:
            self._lower.finish()

    def finish(self) -> None:
        if not self._finished and not self.over:
            self._finished = True
            if self._outbox is None:
                self._lower.finish()
            else:
                self._finish_waits = True

    def backlog(self) -> int:
        return self._lower.backlog() + self._outbox_size


def _failed(error: Exception, context: MessageContext) -> SendError:
    return SendError(f"a framer failed: {error!r}", Reason.PROTOCOL_FAILED, context)


def _aborted(context: MessageContext) -> SendError:
    return SendError("the connection has failed", Reason.CONNECTION_ABORTED, context)


def coalesced(pieces: list[Piece], boundaries: bool) -> list[Piece]:
    """Small pieces joined; over a stack with boundaries, all pieces of one Message, whatever their size."""
    result: list[Piece] = []
    run: list[Data] = []
    size = 0
    for data, context, end_of_message in pieces:
        length = memoryview(data).nbytes
        small = size + length <= _JOIN_LIMIT
        if run and not boundaries and not small:
            result.append((b"".join(run), context, False))
            run, size = [], 0
        run.append(data)
        size += length
        if end_of_message and boundaries:
            result.append((b"".join(run), context, True))
            run, size = [], 0
    if run:
        _, context, end_of_message = pieces[-1]
        result.append((run[0] if len(run) == 1 else b"".join(run), context, end_of_message))
    return result
