"""Which stacks are eligible, and in which order (RFC 9623 section 4.1.3).

Decided by the feature table (``stacks/features.py``) alone: Prohibit and Require prune, then Prefer ranks, then Avoid,
then remembered results, then what the peer's records say (:mod:`~neatpy.establishment.service_bindings`), then the
stacks' own rank. Each decision has a reason. It knows no stack by name, but that those built on mptcp come first when
multipath is active.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from neatpy.enumerations import Preference, PropertyKind
from neatpy.properties import PROPERTIES
from neatpy.security import SecurityMode
from neatpy.stacks.features import Provision
from neatpy.stacks.registry import stacks

if TYPE_CHECKING:
    from neatpy.enumerations import Multipath
    from neatpy.establishment.ruled_out import RuledOut
    from neatpy.properties import TransportProperties
    from neatpy.security import SecurityParameters
    from neatpy.stacks.contract import Stack

INITIATE = "initiate"
LISTEN = "listen"
RENDEZVOUS = "rendezvous"

Stacks = Mapping[str, "Stack"]

_CACHED_VERDICTS = 64
_TEMPORARY_ADDRESS = "use_temporary_local_address"
_PREFERENCES = tuple(
    name
    for name, declared in PROPERTIES.items()
    if declared.kind is PropertyKind.SELECTION
    and (isinstance(declared.default, Preference) or name == _TEMPORARY_ADDRESS)
)


class RankedStack:
    """An eligible stack. ``phase`` 1 is only raced when everything of phase 0 has failed; ``standing`` sorts within
    the phase by what the application said, the lowest first, ``usual`` counts the preferences that hold unless it says
    otherwise, and ``reasons`` explain it all."""

    __slots__ = ("phase", "reasons", "stack", "standing", "usual")

    def __init__(
        self, stack: Stack, phase: int, standing: tuple[int, int, int], usual: int, reasons: tuple[str, ...]
    ) -> None:
        self.stack = stack
        self.phase = phase
        self.standing = standing
        self.usual = usual
        self.reasons = reasons

    def order(
        self, demoted: bool, advice: int = 0
    ) -> tuple[int, tuple[int, int, int], bool, int, int, int, str]:
        """The sort key, with what is remembered of the stack and what the peer's records advise, the lowest first. The
        defaults of properties come after that: nobody who has said nothing of streams shall wait for a stack that is
        known not to answer, or have an unreliable one passed over for its sake."""
        rank, name = self.stack.features.rank, self.stack.name
        return (self.phase, self.standing, demoted, advice, -self.usual, rank, name)

    def __repr__(self) -> str:
        return self.stack.name


registered_stacks: Callable[[], Stacks] = stacks
"""The stacks of this process; loads them when first asked."""


class StackPolicy:
    """Judges stacks. What depends on properties alone is kept for the next time, since programs repeat themselves."""

    __slots__ = ("_stacks", "_verdicts")

    def __init__(self) -> None:
        self._stacks: Stacks | None = None
        self._verdicts: dict[object, tuple[list[RankedStack], list[RuledOut]]] = {}

    def eligible(
        self,
        properties: TransportProperties,
        security: SecurityParameters,
        action: str,
        has_framer: bool,
        stacks: Stacks,
        only: Collection[str] | None = None,
    ) -> tuple[list[RankedStack], list[RuledOut]]:
        """The eligible stacks, best first, and those ruled out with all their reasons. ``only``: every endpoint is for
        one of these; the others are not even asked whether they could."""
        suitable, ruled_out = self._suitable(properties, security.mode, action, has_framer, stacks)
        if only is not None and not any(candidate.stack.name in only for candidate in suitable):
            only = None  # what is said of each endpoint then explains more
        ranked = []
        obstructed: list[RuledOut] = []
        for candidate in suitable:
            if only is not None and candidate.stack.name not in only:
                obstructed.append(_ruled_out(candidate.stack.name, ("every endpoint is for another stack",)))
                continue
            obstacle = _obstacle(candidate.stack, security, action)
            if obstacle is None:
                ranked.append(candidate)
            else:
                obstructed.append(
                    _ruled_out(candidate.stack.name, (obstacle,), candidate.stack.features.secure)
                )
        return ranked, [*obstructed, *ruled_out] if obstructed else ruled_out

    def eligible_of(
        self,
        only: frozenset[str],
        properties: TransportProperties,
        security: SecurityParameters,
        action: str,
        has_framer: bool,
        stacks: Stacks,
    ) -> list[RankedStack]:
        """Those of ``eligible`` that have these names; no other stack is judged, or even loaded."""
        suitable, _ = self._suitable(properties, security.mode, action, has_framer, stacks, only)
        return [candidate for candidate in suitable if _obstacle(candidate.stack, security, action) is None]

    def _suitable(
        self,
        properties: TransportProperties,
        mode: SecurityMode,
        action: str,
        has_framer: bool,
        stacks: Stacks,
        only: frozenset[str] | None = None,
    ) -> tuple[list[RankedStack], list[RuledOut]]:
        if stacks is not self._stacks:
            self._stacks = stacks
            self._verdicts.clear()
        key = (tuple(properties.explicit().items()), mode, action, has_framer, only)
        try:
            verdict = self._verdicts.get(key)
        except TypeError:  # a value that cannot be hashed
            return _judge(properties, mode, action, has_framer, _named(stacks, only))
        if verdict is None:
            if len(self._verdicts) >= _CACHED_VERDICTS:
                del self._verdicts[next(iter(self._verdicts))]
            verdict = _judge(properties, mode, action, has_framer, _named(stacks, only))
            self._verdicts[key] = verdict
        return verdict


policy = StackPolicy()


def known_stacks(own: Stacks | None) -> Stacks:
    """The stacks that a request brings, or else those that are registered."""
    return registered_stacks() if own is None else own


def eligible_stacks(
    properties: TransportProperties,
    security: SecurityParameters,
    action: str,
    has_framer: bool,
    *,
    stacks: Stacks | None = None,
) -> tuple[list[Stack], list[RuledOut]]:
    """The stacks that may be used for this action, best first, and those ruled out with their reasons."""
    stacks = known_stacks(stacks)
    ranked, ruled_out = policy.eligible(properties, security, action, has_framer, stacks)
    return [candidate.stack for candidate in ranked], with_availability(ruled_out, stacks)


def with_availability(ruled_out: Sequence[RuledOut], stacks: Stacks) -> list[RuledOut]:
    """The same, but of a stack that this host cannot run at all nothing else is said."""
    told = []
    for entry in ruled_out:
        stack = stacks.get(entry.what)
        available = stack.available() if stack is not None else None
        if available is not None and not available.available:
            entry = _ruled_out(entry.what, (f"it is unavailable: {available.reason}",))
        told.append(entry)
    return sorted(told, key=lambda entry: entry.what)


def no_stack_message(ruled_out: Sequence[RuledOut]) -> str:
    """One sentence for NO_CANDIDATES, followed by the reasons of every stack, one a line."""
    sentence = "no protocol stack satisfies the properties and security parameters"
    # Whoever set a parameter that nothing here can honour is not advised to give up security altogether.
    if not any(entry.by_parameters for entry in ruled_out) and any(
        entry.reasons == (_INSECURE,) for entry in ruled_out
    ):
        sentence = (
            "only stacks without security are left, and security is on by default: "
            "SecurityParameters.disabled() allows them"
        )
    return "\n".join([sentence, *(f"  {entry!r}" for entry in ruled_out)])


_INSECURE = "it is not secure"


def _ruled_out(what: str, reasons: tuple[str, ...], by_parameters: bool = False) -> RuledOut:
    from neatpy.establishment.ruled_out import RuledOut

    return RuledOut(what, reasons, by_parameters)


def _named(stacks: Stacks, only: frozenset[str] | None) -> Iterable[Stack]:
    return stacks.values() if only is None else [stacks[name] for name in only if name in stacks]


def _judge(
    properties: TransportProperties,
    mode: SecurityMode,
    action: str,
    has_framer: bool,
    stacks: Iterable[Stack],
) -> tuple[list[RankedStack], list[RuledOut]]:
    ranked = []
    ruled_out = []
    for each in stacks:
        stack = each.form(properties)
        obstacles = _security_mismatch(stack, mode) + _shortcomings(stack, properties, action, has_framer)
        if obstacles:
            ruled_out.append(_ruled_out(stack.name, tuple(obstacles)))
        else:
            ranked.append(_ranked(stack, properties, mode, has_framer))
    ranked.sort(key=lambda candidate: candidate.order(False))
    return ranked, ruled_out


def _obstacle(stack: Stack, security: SecurityParameters, action: str) -> str | None:
    """What may differ from one time to the next, and so is asked each time."""
    available = stack.available()
    if not available.available:
        return f"it is unavailable: {available.reason}"
    if stack.features.secure:
        return stack.security_obstacle(security, listening=action == LISTEN)
    return None


def _security_mismatch(stack: Stack, mode: SecurityMode) -> list[str]:
    if mode is SecurityMode.SECURE and not stack.features.secure:
        return [_INSECURE]
    if mode is SecurityMode.DISABLED and stack.features.secure:
        return ["security is disabled, and it is secure"]
    return []


def _shortcomings(stack: Stack, properties: TransportProperties, action: str, has_framer: bool) -> list[str]:
    features = stack.features
    found = []
    for name in _PREFERENCES:
        preference = getattr(properties, name)
        if preference is Preference.REQUIRE:
            if features.provides(name) is Provision.NOT_PROVIDED and not _framed(name, has_framer):
                hint = " (a framer would do)" if _framed(name, True) else ""
                found.append(f"it does not provide {name}, which is required{hint}")
        elif preference is Preference.PROHIBIT and features.provides(name) is Provision.INTRINSIC:
            found.append(f"it always has {name}, which is prohibited")
    if action == RENDEZVOUS:
        found.append("it does not offer simultaneous establishment by both peers")
    if features.may_duplicate and not properties.safely_replayable:
        found.append("it may deliver a Message twice, and safely_replayable is not set")
    return found


def _ranked(
    stack: Stack, properties: TransportProperties, mode: SecurityMode, has_framer: bool
) -> RankedStack:
    satisfied = violated = usual = 0
    said = properties.explicit()
    reasons = []
    for name in _PREFERENCES:
        preference = getattr(properties, name)
        provision = stack.features.provides(name)
        if preference is Preference.PREFER:
            if provision is not Provision.NOT_PROVIDED or _framed(name, has_framer):
                if name in said:
                    satisfied += 1
                else:
                    usual += 1
                reasons.append(f"it has the preferred {name}")
            else:
                reasons.append(f"it lacks the preferred {name}")
        elif preference is Preference.AVOID and provision is Provision.INTRINSIC:
            violated += 1
            reasons.append(f"it always has {name}, which is to be avoided")
        elif preference in _UNWANTED and provision is Provision.OPTIONAL:
            reasons.append(f"{name} is switched off")
    multipath = "mptcp" in stack.name.split("/") and _is_active(properties.multipath)
    if multipath:
        reasons.append("multipath is active")
    phase = int(mode is SecurityMode.OPPORTUNISTIC and not stack.features.secure)
    if phase:
        reasons.append("it is not secure, so it waits until every secure stack has failed")
    reasons.append(f"place {stack.features.rank} in the order of stacks")
    return RankedStack(stack, phase, (-int(multipath), -satisfied, violated), usual, tuple(reasons))


def _is_active(multipath: Multipath | None) -> bool:
    from neatpy.enumerations import Multipath

    return multipath is Multipath.ACTIVE


_UNWANTED = frozenset({Preference.AVOID, Preference.PROHIBIT})


def _framed(name: str, has_framer: bool) -> bool:
    return has_framer and name == "preserve_msg_boundaries"
