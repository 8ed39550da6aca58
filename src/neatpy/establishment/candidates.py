"""What a request comes to: eligible stacks, paths and targets, and the candidate if there can be but one.

If there may be more, the :mod:`~neatpy.establishment.tree` combines them. The same inputs give the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neatpy.enumerations import Preference
from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.paths import paths
from neatpy.establishment.policy import RankedStack, known_stacks, policy
from neatpy.establishment.targets import Target, check_remote, literal
from neatpy.stacks.contract import Candidate

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.establishment.memory import Key
    from neatpy.establishment.request import EstablishmentRequest
    from neatpy.establishment.ruled_out import RuledOut


class Gathered:
    """What a request comes to before names are resolved: the ingredients of the tree."""

    __slots__ = ("_ruled_out_stacks", "names", "paths", "request", "ruled_out_paths", "stacks", "targets")

    def __init__(self, request: EstablishmentRequest) -> None:
        self.request = request
        self._ruled_out_stacks: list[RuledOut] | None = None
        self.stacks: list[RankedStack] = _scoped_stacks(request)
        if not self.stacks:
            self.stacks, self._ruled_out_stacks = _all_stacks(request)
        self.paths, self.ruled_out_paths = paths(
            request.properties, request.local_endpoints, request.remote_endpoints, request.list_interfaces
        )
        self.targets: list[Target] = []
        self.names: list[RemoteEndpoint] = []
        for endpoint in request.remote_endpoints:
            check_remote(endpoint)
            target = literal(endpoint)
            if target is None:
                self.names.append(endpoint)
            else:
                self.targets.append(target)

    @property
    def ruled_out_stacks(self) -> list[RuledOut]:
        """The stacks that are not eligible: asked for by what is said of them, not by what is raced."""
        if self._ruled_out_stacks is None:
            _, self._ruled_out_stacks = _all_stacks(self.request)
        return self._ruled_out_stacks

    def in_order(self, targets: Sequence[Target]) -> list[Target]:
        """Targets in the order of the endpoints that they were derived from."""
        places = {id(endpoint): place for place, endpoint in enumerate(self.request.remote_endpoints)}
        return sorted(targets, key=lambda target: places[id(target.endpoint)])


def gather(request: EstablishmentRequest) -> Gathered:
    """Everything that can be known at once.

    Raises EstablishmentError(INVALID_CONFIGURATION) for remote endpoints that are missing or incomplete, and
    RESOLUTION_FAILED for unknown services.
    """
    if not request.remote_endpoints:
        raise EstablishmentError("there is no remote endpoint to connect to", Reason.INVALID_CONFIGURATION)
    return Gathered(request)


def sole_candidate(gathered: Gathered) -> Candidate | None:
    """The leaf of a tree that has but one and that nothing could rule out; None if it takes a tree to tell."""
    request = gathered.request
    if gathered.names or request.local_endpoints:
        return None
    stacks, paths, targets = gathered.stacks, gathered.paths, gathered.targets
    if len(targets) != 1 or len(paths) != 1 or paths[0].interface is not None:
        return None
    target = targets[0]
    endpoint = target.endpoint
    if endpoint.protocol:
        stacks = [ranked for ranked in stacks if ranked.stack.name == endpoint.protocol]
    if len(stacks) != 1 or endpoint.interface:
        return None
    properties = request.properties
    if properties.use_temporary_local_address is Preference.REQUIRE:
        return None
    return Candidate(
        stacks[0].stack,
        target.address,
        properties,
        request.security,
        server_name=target.server_name,
        label="1.1.1",
        hop_limit=hop_limit(endpoint, request.local_endpoints),
        early=request.early,
    )


def leaf_key(leaf: Candidate) -> Key:
    """Under which name results of this leaf's address are remembered."""
    return (leaf.remote.ip, leaf.remote.port, leaf.stack.name, leaf.interface)


def _all_stacks(request: EstablishmentRequest) -> tuple[list[RankedStack], list[RuledOut]]:
    return policy.eligible(
        request.properties,
        request.security,
        request.action,
        request.has_framers,
        known_stacks(request.stacks),
        _scopes(request.remote_endpoints),
    )


def _scoped_stacks(request: EstablishmentRequest) -> list[RankedStack]:
    """The eligible stacks if each endpoint is for one stack, and some are eligible."""
    scopes = _scopes(request.remote_endpoints)
    if scopes is None:
        return []
    return policy.eligible_of(
        scopes,
        request.properties,
        request.security,
        request.action,
        request.has_framers,
        known_stacks(request.stacks),
    )


def _scopes(endpoints: Sequence[RemoteEndpoint]) -> frozenset[str] | None:
    """The stacks that endpoints are for, if each is for one."""
    scopes = frozenset(endpoint.protocol for endpoint in endpoints if endpoint.protocol)
    return scopes if scopes and all(endpoint.protocol for endpoint in endpoints) else None


def hop_limit(remote: RemoteEndpoint, local_endpoints: Sequence[LocalEndpoint]) -> int | None:
    """The Remote Endpoint's limit, else that of the first Local Endpoint that has one."""
    if remote.hop_limit is not None or not local_endpoints:
        return remote.hop_limit
    return next((endpoint.hop_limit for endpoint in local_endpoints if endpoint.hop_limit is not None), None)
