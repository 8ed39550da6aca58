"""``explain()`` and ``establish()`` on toy stacks."""

from __future__ import annotations

import asyncio

import pytest
from establishment_toys import RELIABLE, V4, V6, Names, ToyStack, request, until
from hypothesis import given
from hypothesis import strategies as st

from neatpy.endpoint import RemoteEndpoint
from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.establish import establish
from neatpy.establishment.memory import Memory
from neatpy.establishment.request import Established, EstablishmentRequest
from neatpy.establishment.selection import explain
from neatpy.properties import TransportProperties
from neatpy.security import SecurityParameters
from neatpy.stacks.contract import Flow, FlowObserver
from neatpy.stacks.features import Provision

FIRST, SECOND, THIRD = (RemoteEndpoint(f"192.0.2.{n}", 80) for n in (1, 2, 3))
BOTH = {("example.com", V6): ["2001:db8::1"], ("example.com", V4): ["192.0.2.1"]}
NAMED = RemoteEndpoint("example.com", 80)


class Recorder(FlowObserver):
    def __init__(self, *, takes_siblings: bool = False) -> None:
        self.events: list[tuple[object, ...]] = []
        self._takes_siblings = takes_siblings

    def received(self, data: bytes, context: object, end_of_message: bool, last: bool = False) -> None:
        self.events.append(("received", data))

    def finished(self) -> None:
        self.events.append(("finished",))

    def sibling(self, flow: Flow) -> None:
        self.events.append(("sibling", flow))
        if self._takes_siblings:
            flow.observer = self


def waiting() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def failure(asked: EstablishmentRequest) -> EstablishmentError:
    with pytest.raises(EstablishmentError) as caught:
        await establish(asked)
    return caught.value


async def test_explain_prints_the_tree_with_one_reason_a_line() -> None:
    toys = (
        ToyStack("tls/tcp", secure=True),
        ToyStack("quic", selection={}, secure=True, rank=1),
        ToyStack("tcp"),
    )
    selection = await explain(request(NAMED, *toys, security=SecurityParameters(), lookup=Names(BOTH)))
    lines = str(selection).splitlines()
    assert "1 [example.com:80, any, any stack]" in lines
    assert "  1.1 [example.com:80, any, tls/tcp]" in lines
    assert "    1.1.1 [[2001:db8::1]:80, any, tls/tcp]" in lines
    assert "    1.1.2 [192.0.2.1:80, any, tls/tcp]" in lines
    ruled_out = lines[lines.index("ruled out") :]
    assert "  quic" in ruled_out
    assert "      it does not provide reliability, which is required" in ruled_out
    assert "      it is not secure" in ruled_out
    assert [candidate.label for candidate in selection.candidates] == ["1.1.1", "1.1.2"]


async def test_explain_starts_nothing() -> None:
    toy = ToyStack()
    await explain(request(FIRST, toy))
    assert toy.started == []


async def test_explain_without_candidates_still_says_why() -> None:
    selection = await explain(request(FIRST, ToyStack(), security=SecurityParameters()))
    assert "no candidates" in str(selection)
    assert repr(selection.ruled_out[0]) == "toy: it is not secure"


async def test_explain_names_what_could_not_be_resolved() -> None:
    selection = await explain(request(NAMED, ToyStack(), lookup=Names({})))
    assert selection.candidates == ()
    assert "name example.com" in str(selection)


async def test_a_sole_candidate_runs_in_the_calling_task() -> None:
    toy = ToyStack()
    before = asyncio.all_tasks()
    established = await establish(request(FIRST, toy))
    assert established.flow is toy.flows[0]
    assert established.candidate.label == "1.1.1"
    assert asyncio.all_tasks() == before


async def test_a_refused_candidate_starts_the_next_at_once() -> None:
    toy = ToyStack(outcomes={"192.0.2.1": ConnectionRefusedError(111, "refused")})
    established = await establish(request([FIRST, SECOND], toy))
    assert established.candidate.remote.ip == "192.0.2.2"


async def test_when_all_fail_the_error_has_every_attempt_with_its_own_error() -> None:
    errors = [ConnectionRefusedError(111, "refused"), OSError(113, "no route")]
    toy = ToyStack(outcomes={"192.0.2.1": errors[0], "192.0.2.2": errors[1]})
    error = await failure(request([FIRST, SECOND], toy))
    assert error.reason is Reason.ESTABLISHMENT_FAILED
    assert [attempt.error for attempt in error.attempts] == errors
    assert "1.1.2 [192.0.2.2:80, any, toy]: [Errno 113] no route" in str(error)


async def test_a_reason_that_all_attempts_share_is_the_reason_of_the_error() -> None:
    refused = EstablishmentError("the certificate is not trusted", Reason.POLICY_PROHIBITED)
    toy = ToyStack(outcomes={"192.0.2.1": refused, "192.0.2.2": refused})
    assert (await failure(request([FIRST, SECOND], toy))).reason is Reason.POLICY_PROHIBITED
    assert (await failure(request(FIRST, toy))).reason is Reason.POLICY_PROHIBITED


async def test_an_unknown_name_is_resolution_failed_without_any_attempt() -> None:
    toy = ToyStack()
    error = await failure(request(NAMED, toy, lookup=Names({})))
    assert error.reason is Reason.RESOLUTION_FAILED
    assert toy.started == []


async def test_no_candidates_gives_every_reason() -> None:
    properties = TransportProperties().require("zero_rtt_msg")
    error = await failure(request(FIRST, ToyStack("a"), ToyStack("b"), properties=properties))
    assert error.reason is Reason.NO_CANDIDATES
    assert "a: it does not provide zero_rtt_msg" in str(error)
    assert "b: it does not provide zero_rtt_msg" in str(error)


async def test_a_timeout_names_what_was_tried() -> None:
    toy = ToyStack(outcomes={"192.0.2.1": waiting()})
    error = await failure(request(FIRST, toy, timeout=0.001))
    assert error.reason is Reason.TIMEOUT
    assert "192.0.2.1:80" in str(error.attempts[0])
    assert len(toy.cancelled) == 1


async def test_a_timeout_of_a_race_ends_every_attempt() -> None:
    toys = ToyStack("a", outcomes={"192.0.2.1": waiting()}), ToyStack("b", outcomes={"192.0.2.1": waiting()})
    error = await failure(request(FIRST, *toys, timeout=0.15))
    assert error.reason is Reason.TIMEOUT
    assert len(error.attempts) == 2
    await until(lambda: all(toy.cancelled for toy in toys))


async def test_cancelling_ends_every_attempt() -> None:
    toy = ToyStack(outcomes={"192.0.2.1": OSError("refused"), "192.0.2.2": waiting()})
    task = asyncio.create_task(establish(request([FIRST, SECOND], toy)))
    await until(lambda: len(toy.started) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: toy.cancelled)
    assert len(asyncio.all_tasks()) == 1


async def test_of_two_that_complete_in_one_iteration_one_wins_and_the_other_is_aborted() -> None:
    futures = [waiting(), waiting()]
    toy = ToyStack(outcomes={"2001:db8::1": futures[0], "192.0.2.1": futures[1]})
    task = asyncio.create_task(establish(request(NAMED, toy, lookup=Names(BOTH))))
    await until(lambda: len(toy.started) == 2)
    for future in futures:
        future.set_result(None)
    established = await task
    loser = next(flow for flow in toy.flows if flow is not established.flow)
    assert not toy.flows[toy.flows.index(established.flow)].aborted  # type: ignore[arg-type]
    await until(lambda: loser.aborted)


async def test_a_late_address_joins_the_race() -> None:
    names = Names()
    toy = ToyStack(outcomes={"2001:db8::1": OSError("unreachable")})
    task = asyncio.create_task(establish(request(NAMED, toy, lookup=names)))
    await until(lambda: names.asked)
    names.answer("example.com", V6, ["2001:db8::1"])
    await until(lambda: toy.started)
    names.answer("example.com", V4, ["192.0.2.1"])
    assert (await task).candidate.label == "1.1.2"


async def test_a_name_that_ends_in_nothing_ends_the_race() -> None:
    names = Names()
    toy = ToyStack(outcomes={"2001:db8::1": OSError("unreachable")})
    task = asyncio.create_task(establish(request(NAMED, toy, lookup=names)))
    await until(lambda: names.asked)
    names.answer("example.com", V6, ["2001:db8::1"])
    await until(lambda: toy.started)
    names.answer("example.com", V4, OSError("none"))
    with pytest.raises(EstablishmentError) as caught:
        await task
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED


async def test_a_failed_handshake_of_the_framers_fails_its_attempt_and_the_race_goes_on() -> None:
    async def prepare(flow: Flow) -> Flow:
        if flow.remote_address.ip == "192.0.2.1":
            raise EstablishmentError("not my protocol", Reason.PROTOCOL_FAILED)
        return flow

    toy = ToyStack()
    established = await establish(request([FIRST, SECOND], toy, prepare=prepare))
    assert established.candidate.remote.ip == "192.0.2.2"
    assert [flow.aborted for flow in toy.flows] == [True, False]


async def test_opportunistic_security_resorts_to_plain_stacks_only_when_secure_ones_failed() -> None:
    secure = ToyStack("secure", secure=True, outcomes={"192.0.2.1": OSError("no")})
    plain = ToyStack("plain")
    asked = request(FIRST, secure, plain, security=SecurityParameters.opportunistic())
    assert (await establish(asked)).candidate.stack is plain
    assert len(secure.started) == 1


async def test_opportunistic_security_never_runs_secure_and_plain_together() -> None:
    secure = ToyStack("secure", secure=True, outcomes={"192.0.2.1": waiting()})
    plain = ToyStack("plain")
    asked = request(FIRST, secure, plain, security=SecurityParameters.opportunistic(), timeout=0.2)
    assert (await establish(asked)).candidate.stack is plain
    assert len(secure.cancelled) == 1


async def test_results_are_remembered() -> None:
    memory = Memory()
    first = ToyStack("first", rank=1, outcomes={"192.0.2.1": OSError("refused")})
    second = ToyStack("second", rank=2)
    await establish(request(FIRST, first, second, memory=memory))
    await establish(request(FIRST, first, second, memory=memory))
    assert len(first.started) == 1
    assert len(second.started) == 2


async def test_isolated_sessions_neither_read_nor_write_the_memory() -> None:
    memory = Memory()
    properties = TransportProperties()
    properties.set("isolate_session", True)
    toy = ToyStack(outcomes={"192.0.2.1": OSError("refused")})
    await failure(request(FIRST, toy, memory=memory, properties=properties))
    await establish(request(SECOND, toy, memory=memory, properties=properties))
    assert len(memory) == 0


async def test_every_step_is_traced() -> None:
    seen: list[str] = []
    toy = ToyStack(outcomes={"192.0.2.1": OSError("refused")})
    await establish(
        request([FIRST, SECOND], toy, trace=lambda event, subject, _: seen.append(f"{event} {subject}"))
    )
    assert [line.partition(" [")[0] for line in seen] == [
        "started 1.1.1",
        "failed 1.1.1",
        "started 1.1.2",
        "won 1.1.2",
    ]


async def test_what_a_flow_says_before_it_is_bound_is_replayed_in_order() -> None:
    toy = ToyStack()
    established = await establish(request(FIRST, toy))
    established.flow.observer.received(b"early", None, False)
    established.flow.observer.finished()
    recorder = Recorder()
    established.attempt.bind(recorder)
    assert recorder.events == [("received", b"early"), ("finished",)]
    assert established.flow.observer is recorder


async def test_a_layer_between_hears_what_was_recorded_and_is_recorded_itself() -> None:
    toy = ToyStack()
    established = await establish(request(FIRST, toy))
    attempt, layer, recorder = established.attempt, Recorder(), Recorder()
    attempt.received(b"below", None, False)
    attempt.insert(layer, established.flow)
    assert layer.events == [("received", b"below")]
    attempt.received(b"above", None, True)
    attempt.bind(recorder)
    assert recorder.events == [("received", b"above")]


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_stream_opened_before_binding_is_handed_over_or_aborted(wanted: bool) -> None:
    toy = ToyStack()
    established = await establish(request(FIRST, toy))
    stream = (await establish(request(FIRST, toy))).flow
    established.attempt.sibling(stream)
    stream.observer.received(b"early", None, False)
    recorder = Recorder(takes_siblings=wanted)
    established.attempt.bind(recorder)
    assert recorder.events == [("sibling", stream), ("received", b"early")][: 1 + wanted]
    assert toy.flows[1].aborted is not wanted


async def test_an_aborted_attempt_leaves_nothing_behind() -> None:
    toy = ToyStack()
    established = await establish(request(FIRST, toy))
    stream = (await establish(request(FIRST, toy))).flow
    established.attempt.sibling(stream)
    established.attempt.abort()
    assert [flow.aborted for flow in toy.flows] == [True, True]


async def test_a_flow_that_nobody_hears_yet_is_paused_when_it_says_too_much() -> None:
    toy = ToyStack()
    established = await establish(request(FIRST, toy))
    for _ in range(300):
        established.attempt.received(bytes(1024), None, False)
    assert toy.flows[0].paused
    established.attempt.bind(Recorder())
    assert not toy.flows[0].paused


async def test_udp_waits_for_the_stacks_with_a_handshake() -> None:
    tcp = ToyStack("tcp", rank=1, outcomes={"192.0.2.1": OSError("refused")})
    udp = ToyStack("udp", rank=2, handshake=False, selection={**RELIABLE, "keep_alive": Provision.OPTIONAL})
    assert (await establish(request(FIRST, tcp, udp))).candidate.stack is udp
    assert len(tcp.started) == 1


@given(st.lists(st.sampled_from(["fail", "win", "hang"]), min_size=1, max_size=5))
def test_a_winner_is_the_only_one_left(plan: list[str]) -> None:
    async def race() -> None:
        outcomes: dict[str, object] = {}
        futures = []
        for number, what in enumerate(plan):
            outcome = waiting()
            outcomes[f"192.0.2.{number}"] = (
                outcome if what == "hang" else OSError("no") if what == "fail" else None
            )
            futures.append(outcome)
        toy = ToyStack(outcomes=outcomes)
        remotes = [RemoteEndpoint(f"192.0.2.{number}", 80) for number in range(len(plan))]
        task = asyncio.create_task(establish(request(remotes, toy)))
        await until(lambda: task.done() or "hang" in plan[: len(toy.started)])
        if not task.done():
            futures[plan.index("hang")].set_result(None)
        (result,) = await asyncio.gather(task, return_exceptions=True)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        left = [flow for flow in toy.flows if not flow.aborted]
        if isinstance(result, EstablishmentError):
            assert set(plan) == {"fail"}
            assert len(result.attempts) == len(plan)
            assert left == []
        else:
            assert isinstance(result, Established)
            assert left == [result.flow]

    asyncio.run(race())
