"""What of a first Message may travel with a handshake (0-RTT, RFC 9622 sections 6.2.5 and 9.1.3.4)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from neatpy.enumerations import Preference
from neatpy.message import MessageContext

if TYPE_CHECKING:
    from neatpy.intent import Intent
    from neatpy.stacks.contract import Data

LARGEST = 8192
"""Bytes of a Message beyond which it waits for the handshake: little enough for the first flight of any protocol."""


def early_data(intent: Intent, data: Data, context: MessageContext | None) -> bytes | None:
    """The bytes of this Message on a byte stream, if it may be sent early: it is marked safely replayable, never
    expires, and no framer has to speak to the peer first. None otherwise.

    With framers it takes one whose frames depend on nothing but the Message, as those of ``neatpy.framers`` with a
    header do."""
    properties = intent.properties
    if properties.zero_rtt_msg in (Preference.AVOID, Preference.PROHIBIT) or not 0 < len(data) <= LARGEST:
        return None
    defaults = intent.message_defaults
    message = MessageContext() if defaults is None else defaults.copy()
    if context is not None:
        message.update(context)
    if not message.safely_replayable or message.msg_lifetime != math.inf:
        return None
    whole = bytes(data)
    if not intent.framers:
        return whole
    if len(intent.framers) > 1:
        return None
    from neatpy.framer import Framer
    from neatpy.framer_shortcuts import shortcut_of

    framer = intent.framers[0]
    frame = shortcut_of(framer, "whole_frame")
    if frame is None or type(framer).start is not Framer.start:
        return None
    framed: bytes | None = frame(_NEW, whole, message)
    return framed


class _NewHandle:
    """What a framer has kept of a Connection on which nothing was sent yet."""

    state = None


_NEW = _NewHandle()
