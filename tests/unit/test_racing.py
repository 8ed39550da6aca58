"""The order and timing of a race, with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatpy.establishment.memory import ADDRESS_DELAY
from neatpy.establishment.racing import GETTING_READY, PATH_DELAY, PROTOCOL_DELAY, Race, RaceNode


class Candidate:
    """A leaf by the place that it has in the tree."""

    def __init__(self, *place: int) -> None:
        self.place = place

    def __repr__(self) -> str:
        return ".".join(map(str, self.place))


def tree(
    *paths: list[int], last_without_handshake: bool = False
) -> tuple[RaceNode[Candidate], list[Candidate]]:
    """A tree of paths; each path lists how many addresses each of its stacks has."""
    leaves: list[Candidate] = []
    path_nodes = []
    for p, stacks in enumerate(paths):
        protocol_nodes = []
        for s, addresses in enumerate(stacks):
            own = [Candidate(p, s, a) for a in range(addresses)]
            leaves.extend(own)
            handshake = not (last_without_handshake and s == len(stacks) - 1)
            nodes = [RaceNode.leaf(leaf) for leaf in own]
            protocol_nodes.append(RaceNode.branch(nodes, PROTOCOL_DELAY, handshake=handshake))
        path_nodes.append(RaceNode.branch(protocol_nodes, PATH_DELAY))
    return RaceNode.branch(path_nodes), leaves


def run(
    race: Race[Candidate], fails_after: Callable[[Candidate], float | None] = lambda _: None
) -> dict[str, float]:
    """Let the race run until nothing more happens; gives when each candidate was started."""
    started: dict[str, float] = {}
    ends: list[tuple[float, int, Candidate]] = []
    now = 0.0

    def note(candidates: list[Candidate]) -> None:
        for candidate in candidates:
            assert repr(candidate) not in started
            started[repr(candidate)] = now
            after = fails_after(candidate)
            if after is not None:
                ends.append((now + after, len(ends), candidate))

    note(race.begin(now))
    while True:
        ends.sort(key=lambda end: end[:2])
        deadline = race.next_deadline
        if ends and (deadline is None or ends[0][0] <= deadline):
            now, _, candidate = ends.pop(0)
            note(race.failed(candidate, now))
        elif deadline is not None:
            assert deadline >= now
            now = deadline
            note(race.tick(now))
            assert (later := race.next_deadline) is None or later > now
        else:
            return started


def test_a_single_candidate_needs_no_timer() -> None:
    root, (only,) = tree([1])
    race = Race(root)
    assert race.begin(5.0) == [only]
    assert race.next_deadline is None
    assert race.failed(only, 6.0) == []
    assert race.exhausted


def test_addresses_start_a_quarter_of_a_second_apart() -> None:
    root, _ = tree([3])
    assert run(Race(root)) == {"0.0.0": 0, "0.0.1": ADDRESS_DELAY, "0.0.2": 2 * ADDRESS_DELAY}


def test_stacks_start_a_tenth_of_a_second_apart_whatever_their_addresses_do() -> None:
    root, _ = tree([5, 2, 1])
    started = run(Race(root))
    assert started["0.1.0"] == pytest.approx(PROTOCOL_DELAY)
    assert started["0.2.0"] == pytest.approx(2 * PROTOCOL_DELAY)
    assert started["0.1.1"] == pytest.approx(PROTOCOL_DELAY + ADDRESS_DELAY)


def carried(*carriers: str) -> tuple[Race[Candidate], list[Candidate]]:
    """A race of stacks with one address each, carried by these."""
    leaves = [Candidate(0, number, 0) for number in range(len(carriers))]
    branches = [
        RaceNode.branch([RaceNode.leaf(leaf)], PROTOCOL_DELAY, carrier=carrier)
        for leaf, carrier in zip(leaves, carriers, strict=True)
    ]
    return Race(RaceNode.branch([RaceNode.branch(branches, PATH_DELAY)])), leaves


def test_where_one_over_udp_is_silent_the_next_is_one_that_something_else_carries() -> None:
    race, _ = carried("udp", "udp", "")
    started = run(race)
    assert started["0.2.0"] == pytest.approx(PROTOCOL_DELAY)
    assert started["0.1.0"] == pytest.approx(2 * PROTOCOL_DELAY)


def test_where_one_over_udp_is_refused_the_order_is_kept() -> None:
    race, (first, second, _) = carried("udp", "udp", "")
    assert race.begin(0.0) == [first]
    assert race.failed(first, 0.01) == [second]


def test_where_all_are_carried_alike_the_order_is_kept() -> None:
    race, _ = carried("udp", "udp")
    assert run(race) == {"0.0.0": 0, "0.1.0": pytest.approx(PROTOCOL_DELAY)}


def test_a_refused_candidate_starts_the_next_at_once() -> None:
    root, leaves = tree([3])
    race = Race(root)
    race.begin(0.0)
    assert race.failed(leaves[0], 0.01) == [leaves[1]]
    assert race.next_deadline == pytest.approx(0.01 + ADDRESS_DELAY)


def test_an_earlier_failure_leaves_the_stagger_of_the_latest_alone() -> None:
    root, leaves = tree([3])
    race = Race(root)
    race.begin(0.0)
    assert race.tick(ADDRESS_DELAY) == [leaves[1]]
    assert race.failed(leaves[0], 0.3) == []
    assert race.next_deadline == pytest.approx(2 * ADDRESS_DELAY)


def test_a_branch_fails_with_its_last_child_and_its_sibling_starts_at_once() -> None:
    root, leaves = tree([2, 1], [1])
    race = Race(root)
    race.begin(0.0)
    assert race.failed(leaves[0], 0.01) == [leaves[1]]
    assert race.failed(leaves[1], 0.02) == [leaves[2]]
    assert race.failed(leaves[2], 0.03) == [leaves[3]]
    assert not race.exhausted
    assert race.failed(leaves[3], 0.04) == []
    assert race.exhausted


def test_a_late_tick_starts_one_child_of_each_level_not_all() -> None:
    root, leaves = tree([4])
    race = Race(root)
    race.begin(0.0)
    assert race.tick(100.0) == [leaves[1]]
    assert race.next_deadline == pytest.approx(100 + ADDRESS_DELAY)


def test_udp_waits_until_the_stacks_before_it_have_run_out_of_stagger() -> None:
    root, _ = tree([2, 1], last_without_handshake=True)
    started = run(Race(root))
    assert started["0.1.0"] == pytest.approx(2 * ADDRESS_DELAY)


def test_udp_starts_at_once_when_the_stacks_before_it_have_failed() -> None:
    root, leaves = tree([1, 1, 1], last_without_handshake=True)
    race = Race(root)
    race.begin(0.0)
    assert race.tick(PROTOCOL_DELAY) == [leaves[1]]
    assert race.failed(leaves[1], 0.12) == []
    assert race.failed(leaves[0], 0.13) == [leaves[2]]


def test_udp_starts_at_once_when_it_is_first() -> None:
    root, (only,) = tree([1], last_without_handshake=True)
    assert Race(root).begin(0.0) == [only]


def test_late_addresses_take_turns_with_those_that_wait() -> None:
    root, leaves = tree([3])
    branch = root.children[0].children[0]
    race = Race(root)
    race.begin(0.0)
    late = [Candidate(9, 0), Candidate(9, 1)]
    assert race.add(branch, [RaceNode.leaf(one) for one in late], 0.1) == []
    order = [node.candidate for node in branch.children]
    assert order == [leaves[0], late[0], leaves[1], late[1], leaves[2]]


def test_a_late_address_revives_a_branch_that_had_failed() -> None:
    root, leaves = tree([1])
    branch = root.children[0].children[0]
    race = Race(root)
    race.begin(0.0)
    race.failed(leaves[0], 0.1)
    assert race.exhausted
    late = Candidate(9)
    assert race.add(branch, [RaceNode.leaf(late)], 0.2) == [late]
    assert not race.exhausted


def test_an_empty_branch_costs_no_time() -> None:
    root, leaves = tree([0, 1], [1])
    assert Race(root).begin(0.0) == [leaves[0]]


def test_a_tree_without_leaves_is_exhausted_from_the_start() -> None:
    root, _ = tree([0, 0], [])
    race = Race(root)
    assert race.begin(0.0) == []
    assert race.exhausted
    assert race.next_deadline is None


def test_the_delay_of_an_address_is_kept_within_bounds() -> None:
    assert RaceNode.leaf(Candidate(), 0.001).delay == 0.1
    assert RaceNode.leaf(Candidate(), 60.0).delay == 2.0


shapes = st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=3)
failures = st.lists(st.one_of(st.none(), st.floats(0.0, 3.0)), min_size=60, max_size=60)


def failing(leaves: list[Candidate], plan: list[float | None]) -> Callable[[Candidate], float | None]:
    after = {id(leaf): plan[index] for index, leaf in enumerate(leaves)}
    return lambda candidate: after[id(candidate)]


@given(shapes, failures, st.booleans())
def test_the_same_inputs_give_the_same_starts(
    shape: list[list[int]], plan: list[float | None], udp: bool
) -> None:
    runs = []
    for _ in range(2):
        root, leaves = tree(*shape, last_without_handshake=udp)
        runs.append(list(run(Race(root), failing(leaves, plan)).items()))
    assert runs[0] == runs[1]


@given(shapes, failures, st.booleans())
def test_everything_is_started_once_and_a_race_whose_all_fail_is_exhausted(
    shape: list[list[int]], plan: list[float | None], udp: bool
) -> None:
    root, leaves = tree(*shape, last_without_handshake=udp)
    race = Race(root)
    started = run(race, failing(leaves, plan))
    assert set(started) == {repr(leaf) for leaf in leaves}
    assert race.exhausted == all(after is not None for _, after in zip(leaves, plan, strict=False))


@given(shapes, failures)
def test_staggers_nest_and_never_sum_over_branches(shape: list[list[int]], plan: list[float | None]) -> None:
    root, leaves = tree(*shape)
    for name, at in run(Race(root), failing(leaves, plan)).items():
        path, stack, address = map(int, name.split("."))
        assert at <= path * PATH_DELAY + stack * PROTOCOL_DELAY + address * ADDRESS_DELAY + 1e-9


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), failures)
def test_udp_comes_last(addresses: list[int], plan: list[float | None]) -> None:
    root, leaves = tree([*addresses, 1], last_without_handshake=True)
    plan_of = failing(leaves, plan)
    started = run(Race(root), plan_of)
    udp_at = started.pop(repr(leaves[-1]))
    for leaf in leaves[:-1]:
        began = started[repr(leaf)]
        fails_after = plan_of(leaf)
        out_of_stagger = began + ADDRESS_DELAY
        assert udp_at >= min(
            out_of_stagger, began + fails_after if fails_after is not None else out_of_stagger
        )


@given(shapes, failures, st.data())
def test_a_winner_closes_all_others(
    shape: list[list[int]], plan: list[float | None], data: st.DataObject
) -> None:
    root, _ = tree(*shape)
    race = Race(root)
    running: list[Candidate] = race.begin(0.0)
    for after in plan[:10]:
        deadline = race.next_deadline
        if after is not None and running:
            running += race.failed(running.pop(0), after)
        elif deadline is not None:
            running += race.tick(deadline)
    if not running:
        return
    winner = data.draw(st.sampled_from(running))
    losers = race.won(winner)
    assert {id(one) for one in losers} == {id(one) for one in running if one is not winner}
    assert race.next_deadline is None
    assert race.tick(1e9) == []
    assert all(race.failed(loser, 1e9) == [] for loser in losers)


# Getting ready


def test_who_gets_ready_is_not_held_up_for_it_and_has_its_delay_from_then_on() -> None:
    root, (first, second) = tree([1, 1])
    race = Race(root)
    assert race.begin(0.0) == [first]
    race.getting_ready(first, 0.0)
    assert race.tick(PROTOCOL_DELAY) == []
    race.ready(first, 0.3)
    assert race.next_deadline == pytest.approx(0.3 + PROTOCOL_DELAY)
    assert race.tick(0.3 + PROTOCOL_DELAY) == [second]


def test_siblings_do_not_wait_for_ever_for_one_that_gets_ready() -> None:
    root, (first, second) = tree([1, 1])
    race = Race(root)
    race.begin(0.0)
    race.getting_ready(first, 0.0)
    assert race.tick(GETTING_READY + PROTOCOL_DELAY) == [second]
    race.ready(first, 2.0)
    assert race.failed(second, 2.1) == []
    assert race.failed(first, 2.2) == []
    assert race.exhausted


def test_who_fails_while_it_gets_ready_makes_room_at_once() -> None:
    root, (first, second) = tree([1, 1])
    race = Race(root)
    race.begin(0.0)
    race.getting_ready(first, 0.0)
    assert race.failed(first, 0.05) == [second]


def test_getting_ready_holds_the_next_path_back_as_well() -> None:
    root, (first, second) = tree([1], [1])
    race = Race(root)
    race.begin(0.0)
    race.getting_ready(first, 0.0)
    race.ready(first, 0.4)
    assert race.next_deadline == pytest.approx(0.4 + PATH_DELAY)
    assert race.tick(0.4 + PATH_DELAY) == [second]
