"""``explain()``: the candidate tree as it would be raced, with the reason for every decision.

It gathers exactly as establishment does, and then starts nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neatpy.establishment.candidates import Gathered, gather
from neatpy.establishment.establish import memory_for
from neatpy.establishment.policy import known_stacks, with_availability
from neatpy.establishment.resolution import Resolution, lookup
from neatpy.establishment.ruled_out import RuledOut
from neatpy.establishment.service_bindings import NO_ADVICE
from neatpy.establishment.service_search import asker
from neatpy.establishment.tree import CandidateTree, PathBranch, ProtocolBranch

if TYPE_CHECKING:
    from neatpy.establishment.request import EstablishmentRequest
    from neatpy.stacks.contract import Candidate


class SelectionNode:
    """One node of the tree: its RFC 9623 label, what it stands for, and why it is where it is."""

    __slots__ = ("candidate", "children", "endpoint", "label", "path", "protocol", "reasons")

    def __init__(
        self,
        label: str,
        endpoint: str,
        path: str,
        protocol: str,
        reasons: Sequence[str],
        children: Sequence[SelectionNode] = (),
        candidate: Candidate | None = None,
    ) -> None:
        self.label = label
        self.endpoint = endpoint
        self.path = path
        self.protocol = protocol
        self.reasons = tuple(reasons)
        self.children = tuple(children)
        self.candidate = candidate

    def __str__(self) -> str:
        return f"{self.label} [{self.endpoint}, {self.path}, {self.protocol}]"


class Selection:
    """What ``initiate`` would try and in which order, and why everything else was ruled out or ranked lower.

    ``tree`` holds the paths, below them the protocols, below them the endpoints; ``candidates`` are the leaves in
    order; ``ruled_out`` names every stack, path, name and address that is no candidate, each with its reasons.
    ``str()`` gives all of it, in the notation of RFC 9623 section 4.1, one reason a line.
    """

    __slots__ = ("candidates", "ruled_out", "tree")

    def __init__(
        self, tree: Sequence[SelectionNode], candidates: Sequence[Candidate], ruled_out: Sequence[RuledOut]
    ) -> None:
        self.tree = tuple(tree)
        self.candidates = tuple(candidates)
        self.ruled_out = tuple(ruled_out)

    def __str__(self) -> str:
        lines = [line for node in self.tree for line in _lines(node, "")]
        if not self.candidates:
            lines.append("no candidates")
        if self.ruled_out:
            lines.append("ruled out")
            for entry in self.ruled_out:
                lines.append(f"  {entry.what}")
                lines.extend(f"      {reason}" for reason in entry.reasons)
        return "\n".join(lines)


async def explain(request: EstablishmentRequest) -> Selection:
    """Say what ``establish`` would do with this request; resolves names, but starts no attempt.

    Raises EstablishmentError as ``establish`` does for what cannot be understood (INVALID_CONFIGURATION, unknown
    services); that nothing is left to try is no error here.
    """
    gathered = gather(request)
    targets = list(gathered.targets)
    failures: list[RuledOut] = []
    advice = NO_ADVICE
    if gathered.names and gathered.stacks and gathered.paths:
        resolution = await _resolved(gathered)
        targets += resolution.take()
        advice = resolution.advice
        failures = [
            RuledOut(f"name {name}", (f"it was not resolved: {error}",))
            for name, error in resolution.failures
        ]
    tree = CandidateTree(gathered, gathered.in_order(targets), memory_for(request), time.monotonic(), advice)
    stacks = known_stacks(request.stacks)
    ruled_out = [
        *with_availability(gathered.ruled_out_stacks, stacks),
        *gathered.ruled_out_paths,
        *failures,
        *tree.ruled_out_addresses,
    ]
    nodes = [_path_node(branch, request.goal, tree) for branch in tree.paths if gathered.stacks]
    return Selection(nodes, tree.leaves(), ruled_out)


async def _resolved(gathered: Gathered) -> Resolution:
    """Wait for every answer, however late."""
    answered = asyncio.Event()
    request = gathered.request
    resolution = Resolution(
        gathered.names, answered.set, request.lookup or lookup, asker(gathered), request.security.alpn
    )
    resolution.start()
    await resolution.wait(answered)
    return resolution


def _path_node(branch: PathBranch, goal: str, tree: CandidateTree) -> SelectionNode:
    reasons = [*branch.path.reasons, *_route(branch)]
    children = [_protocol_node(protocol, goal, tree) for protocol in branch.protocols]
    return SelectionNode(branch.label, goal, str(branch.path), "any stack", reasons, children)


def _protocol_node(branch: ProtocolBranch, goal: str, tree: CandidateTree) -> SelectionNode:
    stack = branch.ranked.stack
    reasons = [*branch.advised, *branch.ranked.reasons]
    if branch.demoted:
        reasons.append(_FAILED_LATELY)
    if not stack.features.handshake:
        reasons.append(
            "it has no handshake, so it waits for the stacks before it to have failed or had their time"
        )
    siblings = len(branch.leaves) > 1
    leaves = [
        SelectionNode(
            leaf.label,
            str(leaf.remote),
            str(branch.path),
            stack.name,
            list(_leaf_reasons(leaf, branch, siblings and tree.is_demoted(leaf))),
            (),
            leaf,
        )
        for leaf in branch.leaves
    ]
    return SelectionNode(branch.label, goal, str(branch.path), stack.name, reasons, leaves)


_FAILED_LATELY = "it failed lately, so it comes behind its equals"


def _leaf_reasons(leaf: Candidate, branch: ProtocolBranch, demoted: bool) -> Iterator[str]:
    binding = branch.bindings.get(leaf)
    if binding is not None:
        yield binding.location(leaf.stack.name)
    elif leaf.server_name is not None:
        yield f"an address of {leaf.server_name}"
    if leaf.local is not None:
        yield f"from {leaf.local}"
    if demoted:
        yield _FAILED_LATELY


def _route(branch: PathBranch) -> Iterator[str]:
    """Which interface the system would choose now, as far as that can be told."""
    if branch.path.interface is not None:
        return
    from neatpy.system.interfaces import routed_by

    address = next((leaf.remote for protocol in branch.protocols for leaf in protocol.leaves), None)
    interface = routed_by(address.ip, address.scope) if address is not None else None
    if interface is not None:
        yield f"now {interface}, for {address}"


def _lines(node: SelectionNode, indent: str) -> Iterator[str]:
    yield f"{indent}{node}"
    for reason in node.reasons:
        yield f"{indent}      {reason}"
    for child in node.children:
        yield from _lines(child, indent + "  ")
