"""The feature table: what a stack provides for each property and what each property does there.

A stack's rows stand in its own module as one :class:`Features`; selection, ``explain()``, ``get_properties()``, the
documentation and the tests read them here. A name that a table leaves out is not provided, or has no effect, on that
stack: nothing is accepted and silently idle.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Provision(Enum):
    """How a stack provides the feature that a Selection Property of type Preference asks for."""

    INTRINSIC = "intrinsic"
    """Always there; Prohibit rules the stack out."""
    OPTIONAL = "optional"
    """Can be switched on and off; Prohibit switches it off."""
    NOT_PROVIDED = "not provided"
    """Never there; Require rules the stack out."""


class Features(NamedTuple):
    """The rows of one stack. Property names are in snake_case."""

    rank: int
    """Place in the order of stacks when everything else ties; the lowest is tried first."""

    selection: Mapping[str, Provision]
    """Selection Properties that are a Preference -> how they are provided."""

    effects: Mapping[str, str]
    """Connection and Message Properties that act -> what they do on this stack, in a phrase."""

    secure: bool = False
    """Whether the stack authenticates and encrypts."""

    handshake: bool = True
    """Whether connecting exchanges packets with the peer. False (udp): connected at once, whoever is there."""

    may_duplicate: bool = False
    """Whether a Message may arrive twice, so that Messages must be safely replayable (RFC 9622 section 9.1.3.4)."""

    preserves_boundaries: bool = False
    """Whether Messages keep their boundaries without a framer."""

    namespace: str = ""
    """The protocol's namespace of properties (``tcp`` for ``tcp.userTimeoutValue``), or none."""

    def provides(self, name: str) -> Provision:
        """How this stack provides the feature of that name."""
        return self.selection.get(name, Provision.NOT_PROVIDED)
