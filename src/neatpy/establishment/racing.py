"""The order of a race: which candidates to start, and when to look again (RFC 9623 section 4.3, RFC 8305).

Pure logic: it is told the time and what failed, and says what to start. It knows neither sockets nor loops nor what a
candidate is. The rules:

- Each parent node staggers its own children. A child's ``delay`` is what it gets before its next sibling starts.
  Staggers nest (a child's own children are staggered within it) and never sum over branches.
- When the child started last has failed, its next sibling starts at once. A branch has failed when all of its children
  have.
- A child without a handshake (udp) succeeds whoever is there. It starts only when every sibling before it that has a
  handshake has failed or has run out of stagger: all of its leaves are started, and their delays are over.
- Children may say what carries them (UDP, say). When the child started last is silent, what carries it may be blocked
  as a whole: the next to start is the first that something else carries, if there is one. After a failure the order
  is kept.
- Leaves may join late (an address that came after the race began).
- A candidate that has to get ready first is not held up by its siblings for that: its delay begins when it is ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from neatpy.establishment.memory import ADDRESS_DELAY, MAXIMUM_DELAY, MINIMUM_DELAY

T = TypeVar("T")

PROTOCOL_DELAY = 0.1
"""Seconds between the starts of sibling stacks."""
PATH_DELAY = 1.0
"""Seconds between the starts of sibling paths."""
GETTING_READY = 0.5
"""Seconds for which siblings wait for a candidate that gets ready; beyond that they start."""

_NEVER = float("inf")
_AT_ONCE = float("-inf")


class RaceNode(Generic[T]):
    """One node of the tree: a leaf with its candidate, or a branch with its children in order of preference."""

    __slots__ = (
        "candidate",
        "carrier",
        "children",
        "delay",
        "due",
        "failed",
        "handshake",
        "next",
        "parent",
        "started_at",
    )

    def __init__(
        self,
        candidate: T | None,
        children: list[RaceNode[T]],
        delay: float,
        handshake: bool,
        carrier: str = "",
    ) -> None:
        self.candidate = candidate
        self.carrier = carrier
        self.children = children
        self.delay = delay
        self.handshake = handshake
        self.parent: RaceNode[T] | None = None
        self.next = 0
        self.due = _AT_ONCE
        self.started_at: float | None = None
        self.failed = False
        for child in children:
            child.parent = self

    @classmethod
    def leaf(cls, candidate: T, delay: float = ADDRESS_DELAY) -> RaceNode[T]:
        """A node that is one attempt."""
        return cls(candidate, [], min(max(delay, MINIMUM_DELAY), MAXIMUM_DELAY), True)

    @classmethod
    def branch(
        cls,
        children: Sequence[RaceNode[T]],
        delay: float = PROTOCOL_DELAY,
        *,
        handshake: bool = True,
        carrier: str = "",
    ) -> RaceNode[T]:
        """A node that is a choice; ``handshake`` False marks a stack that connects without asking the peer."""
        return cls(None, list(children), delay, handshake, carrier)


class Race(Generic[T]):
    """One race over one tree. Every method returns the candidates to start now, best first."""

    __slots__ = ("_leaves", "_over", "_root")

    def __init__(self, root: RaceNode[T]) -> None:
        self._root = root
        self._leaves: dict[int, RaceNode[T]] = {}
        self._over = False

    def begin(self, now: float) -> list[T]:
        """Start the race at this time, in seconds of any monotonic clock."""
        to_start: list[T] = []
        self._start(self._root, now, to_start)
        return to_start

    def failed(self, candidate: T, now: float) -> list[T]:
        """This candidate, started earlier, has failed."""
        if self._over:
            return []
        to_start: list[T] = []
        node = self._leaves[id(candidate)]
        node.failed = True
        self._child_failed(node, now, to_start)
        self._advance_due(self._root, now, to_start)
        return to_start

    def getting_ready(self, candidate: T, now: float) -> None:
        """This candidate, which was to start now, cannot yet; ``ready`` follows, or ``failed``."""
        self._stagger(candidate, now, GETTING_READY)

    def ready(self, candidate: T, now: float) -> None:
        """This candidate's attempt begins only now."""
        self._stagger(candidate, now, 0.0)

    def _stagger(self, candidate: T, now: float, more: float) -> None:
        """Count the delays of a candidate, and of the branches that it is in, from now."""
        node: RaceNode[T] | None = self._leaves[id(candidate)]
        while node is not None and node.parent is not None and not node.failed:
            node.started_at = now + more
            parent = node.parent
            if parent.children[parent.next - 1] is not node:
                return  # its siblings have gone on
            parent.due = now + more + node.delay
            node = parent

    def tick(self, now: float) -> list[T]:
        """Time has passed."""
        to_start: list[T] = []
        if not self._over:
            self._advance_due(self._root, now, to_start)
        return to_start

    def add(self, branch: RaceNode[T], leaves: Sequence[RaceNode[T]], now: float) -> list[T]:
        """Leaves join a branch late. They alternate with those not started yet, the late ones first (RFC 8305
        section 3: they are of the address family that has had no turn)."""
        for leaf in leaves:
            leaf.parent = branch
        waiting = branch.children[branch.next :]
        branch.children[branch.next :] = _alternate(leaves, waiting)
        if self._over or not leaves:
            return []
        to_start: list[T] = []
        node: RaceNode[T] | None = branch
        while node is not None and node.failed:
            node.failed = False
            node = node.parent
        if branch.started_at is not None:
            self._advance_if_due(branch, now, to_start)
        return to_start

    def won(self, candidate: T) -> list[T]:
        """This candidate has won: nothing starts any more. Returns the others that were started and have not failed;
        they are to be ended."""
        self._over = True
        return [
            leaf.candidate
            for leaf in self._leaves.values()
            if not leaf.failed and leaf.candidate is not None and leaf.candidate is not candidate
        ]

    @property
    def next_deadline(self) -> float | None:
        """When ``tick`` will next have something to start, or None."""
        if self._over:
            return None
        deadline = min((_start_time(branch) for branch in _open_branches(self._root)), default=_NEVER)
        return None if deadline == _NEVER else deadline

    @property
    def exhausted(self) -> bool:
        """Whether every candidate has been started and has failed."""
        return self._root.failed

    def _start(self, node: RaceNode[T], now: float, to_start: list[T]) -> None:
        node.started_at = now
        if node.candidate is not None:
            self._leaves[id(node.candidate)] = node
            to_start.append(node.candidate)
        else:
            self._advance(node, now, to_start)

    def _advance(self, branch: RaceNode[T], now: float, to_start: list[T]) -> None:
        """Start the branch's next child, and the one after it if that one is empty."""
        while branch.next < len(branch.children):
            if branch.next and _start_time(branch) > now:
                return
            if branch.next:
                _let_others_pass(branch)
            child = branch.children[branch.next]
            branch.next += 1
            branch.due = now + child.delay
            self._start(child, now, to_start)
            if not child.failed:
                return
        if all(child.failed for child in branch.children):
            branch.failed = True

    def _child_failed(self, child: RaceNode[T], now: float, to_start: list[T]) -> None:
        parent = child.parent
        while parent is not None:
            if parent.children[parent.next - 1].failed:
                self._advance(parent, now, to_start)
            if not parent.failed:
                return
            parent = parent.parent

    def _advance_due(self, branch: RaceNode[T], now: float, to_start: list[T]) -> None:
        for open_branch in list(_open_branches(branch)):
            self._advance_if_due(open_branch, now, to_start)

    def _advance_if_due(self, branch: RaceNode[T], now: float, to_start: list[T]) -> None:
        if branch.next < len(branch.children) and _start_time(branch) <= now:
            self._advance(branch, now, to_start)
            if branch.failed:
                self._child_failed(branch, now, to_start)


def _open_branches(node: RaceNode[T]) -> Iterator[RaceNode[T]]:
    """The started branches that have not failed, parents first: better paths and stacks come first."""
    if node.candidate is not None or node.failed or node.started_at is None:
        return
    for child in node.children[: node.next]:
        yield from _open_branches(child)
    yield node


def _let_others_pass(branch: RaceNode[T]) -> None:
    """If the child started last is silent, put the first one that something else carries before those that share what
    carries it. A child without a handshake waits for the others in any case."""
    last, waiting = branch.children[branch.next - 1], branch.children[branch.next :]
    if last.failed or not last.carrier:
        return
    for child in waiting:
        if child.carrier != last.carrier and child.handshake:
            waiting.remove(child)
            branch.children[branch.next :] = [child, *waiting]
            return


def _start_time(branch: RaceNode[T]) -> float:
    """When the branch's next child may start; never, if it has none or waits for others to go on."""
    if branch.next >= len(branch.children):
        return _NEVER
    started = branch.children[: branch.next]
    time = _AT_ONCE if not started or started[-1].failed else branch.due
    if not branch.children[branch.next].handshake:
        for sibling in started:
            if sibling.handshake and not sibling.failed:
                time = max(time, _out_of_stagger(sibling))
    return time


def _out_of_stagger(node: RaceNode[T]) -> float:
    """When everything below this node has been started and has had its delay; never, if that is not yet settled."""
    if node.started_at is None:
        return _NEVER
    if node.candidate is not None:
        return node.started_at + node.delay
    if node.next < len(node.children):
        return _NEVER
    return max((_out_of_stagger(child) for child in node.children if not child.failed), default=_AT_ONCE)


def _alternate(first: Sequence[RaceNode[T]], second: Sequence[RaceNode[T]]) -> list[RaceNode[T]]:
    merged: list[RaceNode[T]] = []
    for index in range(max(len(first), len(second))):
        merged.extend(first[index : index + 1])
        merged.extend(second[index : index + 1])
    return merged
