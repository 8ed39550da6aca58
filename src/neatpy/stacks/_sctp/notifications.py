"""What usrsctp tells of an association beside its data, taken apart (RFC 6458 section 6.1).

Pure functions over the bytes that a notification comes in. Numbers are in the host's order.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from neatpy.stacks._sctp.library import (
    ASSOC_CHANGE,
    PARTIAL_DELIVERY_EVENT,
    RESET_INCOMING,
    STREAM_RESET_EVENT,
)

_HEADER = struct.Struct("=HHI")
_ASSOCIATION = struct.Struct("=HHHHI")
_FAILED = struct.Struct("=IHHIII")
_PARTIAL = struct.Struct("=III")
_TWO_LONG = struct.Struct("=II")
_TWO_SHORT = struct.Struct("=HH")
_CAUSE = struct.Struct("!HH")

_AFTER_HEADER = _HEADER.size
_AFTER_ASSOCIATION = _AFTER_HEADER + _ASSOCIATION.size
_PATH_STATE = _AFTER_HEADER + 128  # after a sockaddr_storage
_STREAM_LIST = _AFTER_HEADER + 4  # after the association's number
_CHUNK_HEADER = 4


class AssociationChange(NamedTuple):
    """The association came up or ended. ``info`` is a list of features, or the ABORT chunk."""

    state: int
    error: int
    streams_out: int
    streams_in: int
    info: bytes


class SendFailed(NamedTuple):
    """A piece of a message was given up."""

    error: int
    stream: int
    context: int


def kind_of(notification: bytes) -> tuple[int, int]:
    """The type and the flags; type 0 for what is too short."""
    if len(notification) < _AFTER_HEADER:
        return 0, 0
    kind, flags, _ = _HEADER.unpack_from(notification)
    return kind, flags


def association_change(notification: bytes) -> AssociationChange:
    """Of an SCTP_ASSOC_CHANGE."""
    state, error, out, into, _ = _ASSOCIATION.unpack_from(notification, _AFTER_HEADER)
    return AssociationChange(state, error, out, into, notification[_AFTER_ASSOCIATION:])


def path_state(notification: bytes) -> int:
    """The new state, of an SCTP_PEER_ADDR_CHANGE."""
    return int(_TWO_LONG.unpack_from(notification, _PATH_STATE)[0])


def remote_error(notification: bytes) -> int:
    """The cause code that the peer's ERROR chunk gave, of an SCTP_REMOTE_ERROR."""
    return int.from_bytes(notification[_AFTER_HEADER : _AFTER_HEADER + 2], "big")


def send_failed(notification: bytes) -> SendFailed:
    """Of an SCTP_SEND_FAILED_EVENT."""
    error, stream, _, _, context, _ = _FAILED.unpack_from(notification, _AFTER_HEADER)
    return SendFailed(error, stream, context)


def unended(notification: bytes) -> int | None:
    """The stream whose message will not be completed, of an SCTP_PARTIAL_DELIVERY_EVENT; None of another one."""
    if kind_of(notification)[0] != PARTIAL_DELIVERY_EVENT:
        return None
    return int(_PARTIAL.unpack_from(notification, _AFTER_HEADER)[1])


def reset_by_peer(notification: bytes) -> tuple[int, ...]:
    """The streams that the peer has reset, of an SCTP_STREAM_RESET_EVENT; none of another one."""
    kind, flags = kind_of(notification)
    return streams_reset(notification) if kind == STREAM_RESET_EVENT and flags & RESET_INCOMING else ()


def changes_association(notification: bytes) -> bool:
    """Whether it is an SCTP_ASSOC_CHANGE."""
    return kind_of(notification)[0] == ASSOC_CHANGE


def streams_reset(notification: bytes) -> tuple[int, ...]:
    """The streams' numbers, none for all, of an SCTP_STREAM_RESET_EVENT."""
    count = max(0, len(notification) - _STREAM_LIST) // 2
    return struct.unpack_from(f"={count}H", notification, _STREAM_LIST)


def stream_counts(notification: bytes) -> tuple[int, int]:
    """How many incoming and outgoing streams were added or are there now, of an SCTP_STREAM_CHANGE_EVENT."""
    into, out = _TWO_SHORT.unpack_from(notification, _STREAM_LIST)
    return into, out


def abort_reason(chunk: bytes) -> tuple[int, bytes]:
    """The first cause of an ABORT chunk and what it says; (0, b"") if it gives none."""
    if len(chunk) < _CHUNK_HEADER + _CAUSE.size:
        return 0, b""
    cause, length = _CAUSE.unpack_from(chunk, _CHUNK_HEADER)
    return cause, chunk[_CHUNK_HEADER + _CAUSE.size : _CHUNK_HEADER + max(length, _CAUSE.size)]
