"""What receive handlers get."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class MessageDataObject:
    """The data of a received Message, or of part of one."""

    data: bytes
    length: int
