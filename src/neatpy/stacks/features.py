"""The feature table: what a stack provides for each property and what each property does there.

A stack's rows stand in its own module as one :class:`Features`; selection, ``explain()``, ``get_properties()``, the
documentation and the tests read them here. A name that a table leaves out is not provided, or has no effect, on that
stack: nothing is accepted and silently idle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum


class Provision(Enum):
    """How a stack provides the feature that a Selection Property of type Preference asks for."""

    INTRINSIC = "intrinsic"
    """Always there; Prohibit rules the stack out."""
    OPTIONAL = "optional"
    """Can be switched on and off; Prohibit switches it off."""
    NOT_PROVIDED = "not provided"
    """Never there; Require rules the stack out."""


class Features:
    """The rows of one stack. Property names are in snake_case.

    ``rank`` is the place in the order of stacks when everything else ties; the lowest is tried first. ``selection``
    maps Selection Properties that are a Preference to how they are provided. ``effects`` maps Connection and Message
    Properties that act to what they do on this stack, in a phrase. ``secure``: the stack authenticates and encrypts.
    ``handshake``: connecting exchanges packets with the peer (udp does not: it is connected at once, whoever is
    there). ``may_duplicate``: a Message may arrive twice, so that Messages must be safely replayable (RFC 9622
    section 9.1.3.4). ``preserves_boundaries``: Messages keep their boundaries without a framer. ``namespace``: the
    protocol's namespace of properties (``tcp`` for ``tcp.userTimeoutValue``), or none. ``only``: of properties in
    ``effects`` some values of which do nothing, those that act.
    """

    __slots__ = (
        "effects",
        "handshake",
        "may_duplicate",
        "namespace",
        "only",
        "preserves_boundaries",
        "rank",
        "secure",
        "selection",
    )

    def __init__(
        self,
        rank: int,
        selection: Mapping[str, Provision],
        effects: Mapping[str, str],
        *,
        secure: bool = False,
        handshake: bool = True,
        may_duplicate: bool = False,
        preserves_boundaries: bool = False,
        namespace: str = "",
        only: Mapping[str, Collection[object]] | None = None,
    ) -> None:
        self.rank = rank
        self.selection = selection
        self.effects = effects
        self.secure = secure
        self.handshake = handshake
        self.may_duplicate = may_duplicate
        self.preserves_boundaries = preserves_boundaries
        self.namespace = namespace
        self.only = only or {}

    def provides(self, name: str) -> Provision:
        """How this stack provides the feature of that name."""
        return self.selection.get(name, Provision.NOT_PROVIDED)

    def acts(self, name: str, value: object) -> bool:
        """Whether a Connection or Message Property of this value acts."""
        return name in self.effects and (name not in self.only or value in self.only[name])

    def below(self, rank: int, effects: Mapping[str, str], lacking: Collection[str] = ()) -> Features:
        """The rows of a security layer over this stack: what acts here acts through it, and ``effects`` besides; what
        is ``lacking`` does not get through."""
        return Features(
            rank,
            {name: provision for name, provision in self.selection.items() if name not in lacking},
            {**self.effects, **effects},
            secure=True,
            handshake=self.handshake,
            may_duplicate=self.may_duplicate,
            preserves_boundaries=self.preserves_boundaries,
            namespace=self.namespace,
            only=self.only,
        )
