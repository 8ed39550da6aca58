"""Services found by SVCB and HTTPS records, with a DNS of our own that answers when the test says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import pytest
from establishment_toys import RELIABLE, V4, V6, Names, ToyStack, request, until

from neatpy.endpoint import RemoteEndpoint
from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment import dns_records
from neatpy.establishment.establish import establish
from neatpy.establishment.memory import Memory
from neatpy.establishment.request import STARTED, EstablishmentRequest
from neatpy.establishment.resolution import Resolution
from neatpy.establishment.selection import Selection, explain
from neatpy.establishment.service_bindings import Question, ServiceRecord, bindings_of, question_for
from neatpy.establishment.service_search import SERVICE_DELAY, SERVICE_PATIENCE
from neatpy.properties import TransportProperties
from neatpy.security import SecurityParameters
from neatpy.stacks.contract import Candidate
from neatpy.stacks.features import Provision

HOST = "www.example.com"
SITE = RemoteEndpoint(HOST, service="https")
AT_HOST = Question(HOST, "HTTPS")
ADDRESS = {(HOST, V6): [], (HOST, V4): ["192.0.2.1"]}
ELSEWHERE = {**ADDRESS, ("svc.example.net", V6): [], ("svc.example.net", V4): ["192.0.2.2"]}
Known = Mapping[Question, Sequence[ServiceRecord] | BaseException]


class Records:
    """Answers questions from what it was given, at once, or when the test says so."""

    def __init__(self, known: Known | None = None) -> None:
        self._known = known
        self.asked: dict[Question, asyncio.Future[list[ServiceRecord]]] = {}

    def __call__(self, question: Question) -> asyncio.Future[list[ServiceRecord]]:
        self.asked[question] = asyncio.get_running_loop().create_future()
        if self._known is not None:
            self.answer(question, self._known.get(question, OSError("no such records")))
        return self.asked[question]

    def answer(self, question: Question, records: Sequence[ServiceRecord] | BaseException) -> None:
        future = self.asked[question]
        if isinstance(records, BaseException):
            future.set_exception(records)
        else:
            future.set_result(list(records))


def toys() -> tuple[ToyStack, ToyStack, ToyStack]:
    return (
        ToyStack("quic", secure=True, rank=10),
        ToyStack("sctp/dtls/udp", secure=True, rank=20),
        ToyStack("tls/tcp", secure=True, rank=30),
    )


def asking(
    *records: ServiceRecord,
    names: Names | None = None,
    ask: Records | None = None,
    remote: RemoteEndpoint = SITE,
    stacks: Sequence[ToyStack] | None = None,
    alpn: Sequence[str] | None = None,
    memory: Memory | None = None,
    properties: TransportProperties | None = None,
    trace: Callable[[str, object, object], None] | None = None,
) -> EstablishmentRequest:
    security = SecurityParameters()
    if alpn is not None:
        security.set("alpn", alpn)
    return request(
        remote,
        *(stacks or toys()),
        security=security,
        properties=properties,
        lookup=names or Names(ELSEWHERE),
        ask_service=ask or Records({AT_HOST: records}),
        memory=memory or Memory(),
        trace=trace,
    )


def raced(selection: Selection) -> list[tuple[str, str]]:
    """The candidates as stack and address."""
    return [(one.stack.name, str(one.remote)) for one in selection.candidates]


def reasons(selection: Selection, stack: str) -> list[str]:
    (path,) = selection.tree
    return [reason for node in path.children if node.protocol == stack for reason in node.reasons]


# What is asked


@pytest.mark.parametrize(
    ("endpoint", "question"),
    [
        (RemoteEndpoint("example.com", service="https"), ("example.com", "HTTPS")),
        (RemoteEndpoint("example.com", 443, service="https"), ("example.com", "HTTPS")),
        (RemoteEndpoint("example.com", 8443, service="https"), ("_8443._https.example.com", "HTTPS")),
        (RemoteEndpoint("example.com", service="imaps"), ("_imaps.example.com", "SVCB")),
        (RemoteEndpoint("example.com", 1993, service="imaps"), ("_1993._imaps.example.com", "SVCB")),
        (RemoteEndpoint("example.com", 1993, service="parrot"), ("_1993._parrot.example.com", "SVCB")),
        (RemoteEndpoint("example.com", service="domain-s"), ("_dns.example.com", "SVCB")),
        (RemoteEndpoint("example.com.", service="https"), ("example.com", "HTTPS")),
    ],
)
def test_each_service_has_a_name_and_a_type_to_ask_for(
    endpoint: RemoteEndpoint, question: tuple[str, str]
) -> None:
    assert question_for(endpoint) == question


@pytest.mark.parametrize(
    "endpoint",
    [
        RemoteEndpoint("example.com", 443),
        RemoteEndpoint("example.com", service="http"),
        RemoteEndpoint("example.com", service="_imap._tcp"),
        RemoteEndpoint("192.0.2.1", service="https"),
        RemoteEndpoint("example.com", service="https", address="192.0.2.1"),
        RemoteEndpoint("localhost", service="https"),
        RemoteEndpoint("printer.local", service="https"),
    ],
)
def test_nothing_is_asked_where_there_is_no_service_or_no_name_of_the_dns(endpoint: RemoteEndpoint) -> None:
    assert question_for(endpoint) is None


async def test_nobody_is_asked_where_no_stack_could_follow_the_records() -> None:
    ask = Records({})
    await explain(asking(ask=ask, stacks=[ToyStack("sctp/dtls/udp", secure=True)]))
    assert ask.asked == {}


async def test_without_dnspython_there_are_just_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_records, "can_ask", lambda: False)
    wanted = asking()
    wanted.ask_service = None
    selection = await explain(wanted)
    assert raced(selection)[0] == ("quic", "192.0.2.1:443")
    assert "record" not in str(selection)


# What records come to


async def test_a_port_for_h3_is_tried_first_and_by_quic_alone() -> None:
    selection = await explain(asking(ServiceRecord(1, HOST, 8443, ("h3",), default_alpn=False)))
    assert raced(selection) == [
        ("quic", "192.0.2.1:8443"),
        ("quic", "192.0.2.1:443"),
        ("sctp/dtls/udp", "192.0.2.1:443"),
        ("tls/tcp", "192.0.2.1:443"),
    ]
    assert "an HTTPS record offers h3 at port 8443" in reasons(selection, "quic")
    assert "an HTTPS record offers nothing over TLS over TCP" in reasons(selection, "tls/tcp")


async def test_the_peer_is_verified_by_its_own_name_wherever_its_record_leads() -> None:
    selection = await explain(asking(ServiceRecord(1, "svc.example.net", 8443, ("h3", "h2"))))
    first = selection.candidates[0]
    assert (str(first.remote), first.server_name) == ("192.0.2.2:8443", HOST)
    assert "an HTTPS record offers h3 at svc.example.net, port 8443" in str(selection)
    assert "an HTTPS record offers h2 and http/1.1 at svc.example.net, port 8443" in str(selection)


async def test_quic_is_demoted_and_not_prohibited_where_no_record_names_it() -> None:
    selection = await explain(asking(ServiceRecord(1, HOST, alpn=("h2",))))
    assert raced(selection) == [
        ("tls/tcp", "192.0.2.1:443"),
        ("sctp/dtls/udp", "192.0.2.1:443"),
        ("quic", "192.0.2.1:443"),
    ]
    assert "an HTTPS record offers nothing over QUIC" in reasons(selection, "quic")


async def test_a_record_for_https_without_any_name_means_http_over_tls() -> None:
    selection = await explain(asking(ServiceRecord(1, HOST)))
    assert raced(selection)[0][0] == "tls/tcp"
    assert "an HTTPS record offers http/1.1 at port 443" in reasons(selection, "tls/tcp")


async def test_a_record_of_another_service_without_any_name_says_just_where_it_is() -> None:
    remote = RemoteEndpoint(HOST, service="imaps")
    ask = Records({Question(f"_imaps.{HOST}", "SVCB"): [ServiceRecord(1, "svc.example.net", 1993)]})
    selection = await explain(asking(ask=ask, remote=remote))
    assert raced(selection)[:2] == [("quic", "192.0.2.2:1993"), ("quic", "192.0.2.1:993")]
    assert "an SVCB record has the service at svc.example.net, port 1993" in str(selection)


async def test_quic_comes_first_where_both_are_offered_even_before_what_ranks_higher_otherwise() -> None:
    stacks = [ToyStack("sctp/dtls/udp", secure=True, rank=1), *toys()[::2]]
    selection = await explain(asking(ServiceRecord(1, HOST, alpn=("h2", "h3")), stacks=stacks))
    assert [name for name, _ in raced(selection)] == ["quic", "tls/tcp", "sctp/dtls/udp"]


async def test_what_the_program_prefers_outweighs_what_a_record_offers() -> None:
    properties = TransportProperties()
    properties.prefer("preserve_msg_boundaries")
    messages = {**RELIABLE, "preserve_msg_boundaries": Provision.INTRINSIC}
    stacks = [*toys(), ToyStack("sctp/dtls", selection=messages, secure=True)]
    selection = await explain(
        asking(ServiceRecord(1, HOST, alpn=("h3",)), stacks=stacks, properties=properties)
    )
    assert [name for name, _ in raced(selection)][:2] == ["sctp/dtls", "quic"]


async def test_a_stack_that_failed_lately_stays_behind_whatever_a_record_offers() -> None:
    memory = Memory()
    memory.failed((HOST, 0, "quic", None), time.monotonic())
    selection = await explain(asking(ServiceRecord(1, HOST, alpn=("h3",)), memory=memory))
    assert raced(selection)[0][0] == "tls/tcp"


async def test_a_protocol_of_the_programs_own_may_be_spoken_over_both() -> None:
    record = ServiceRecord(1, HOST, 8443, ("parrot", "h3"), default_alpn=False)
    selection = await explain(asking(record, alpn=["parrot"]))
    assert ("quic", "192.0.2.1:8443") in raced(selection)
    assert ("tls/tcp", "192.0.2.1:8443") in raced(selection)
    assert "an HTTPS record offers parrot at port 8443" in reasons(selection, "quic")


async def test_protocols_that_the_program_does_not_speak_are_none_of_its_business() -> None:
    selection = await explain(asking(ServiceRecord(1, HOST, 8443, ("h3",)), alpn=["http/1.1"]))
    assert raced(selection) == [
        ("tls/tcp", "192.0.2.1:8443"),
        ("tls/tcp", "192.0.2.1:443"),
        ("sctp/dtls/udp", "192.0.2.1:443"),
        ("quic", "192.0.2.1:443"),
    ]


async def test_the_lowest_priority_is_tried_first() -> None:
    records = [ServiceRecord(2, HOST, 2, ("h3",)), ServiceRecord(1, HOST, 1, ("h3",))]
    selection = await explain(asking(*records))
    assert [place for name, place in raced(selection) if name == "quic"] == [
        "192.0.2.1:1",
        "192.0.2.1:2",
        "192.0.2.1:443",
    ]


def test_nobody_can_fill_a_race_with_records() -> None:
    records = [ServiceRecord(1, f"{number}.example.net") for number in range(1000)]
    assert len(bindings_of(records, "HTTPS", HOST, 443, ())) == 8


async def test_hints_stand_in_for_addresses_that_there_are_none_of() -> None:
    record = ServiceRecord(1, "unknown.example.net", 8443, ("h3",), hints=("2001:db8::3", "192.0.2.3"))
    selection = await explain(asking(record))
    assert raced(selection)[:2] == [("quic", "[2001:db8::3]:8443"), ("quic", "192.0.2.3:8443")]


async def test_addresses_outweigh_hints() -> None:
    record = ServiceRecord(1, "svc.example.net", 8443, ("h3",), hints=("192.0.2.9",))
    assert raced(await explain(asking(record)))[0] == ("quic", "192.0.2.2:8443")


# Aliases


async def test_an_alias_is_followed() -> None:
    ask = Records(
        {
            AT_HOST: [ServiceRecord(0, "pool.example.net")],
            Question("pool.example.net", "HTTPS"): [ServiceRecord(1, "svc.example.net", 8443, ("h3",))],
        }
    )
    first = (await explain(asking(ask=ask))).candidates[0]
    assert (first.stack.name, str(first.remote), first.server_name) == ("quic", "192.0.2.2:8443", HOST)


async def test_an_alias_is_followed_once() -> None:
    second = Question("second.example.net", "HTTPS")
    ask = Records(
        {
            AT_HOST: [ServiceRecord(0, second.name)],
            second: [ServiceRecord(0, "third.example.net")],
        }
    )
    await explain(asking(ask=ask))
    assert list(ask.asked) == [AT_HOST, second]


async def test_an_alias_that_leads_to_no_records_gives_its_addresses_to_all_stacks() -> None:
    ask = Records({AT_HOST: [ServiceRecord(0, "svc.example.net")]})
    selection = await explain(asking(ask=ask))
    assert [place for name, place in raced(selection) if name == "quic"] == ["192.0.2.2:443", "192.0.2.1:443"]
    assert [place for name, place in raced(selection) if name == "tls/tcp"] == [
        "192.0.2.2:443",
        "192.0.2.1:443",
    ]


async def test_an_alias_of_nothing_changes_nothing() -> None:
    selection = await explain(asking(ServiceRecord(0, "")))
    assert raced(selection)[0] == ("quic", "192.0.2.1:443")


# Time, and errors


def resolving(names: Names, ask: Records, changed: Callable[[], None] = lambda: None) -> Resolution:
    resolution = Resolution([SITE], changed, names, ask)
    resolution.start()
    return resolution


async def test_records_are_asked_for_at_the_same_time_as_addresses() -> None:
    names, ask = Names(), Records()
    resolution = resolving(names, ask)
    assert set(names.asked) == {(HOST, V4), (HOST, V6)}
    assert list(ask.asked) == [AT_HOST]
    resolution.cancel()


async def test_a_race_waits_for_records_but_a_moment() -> None:
    before = time.monotonic()
    resolution = resolving(Names(ADDRESS), Records())
    await until(lambda: resolution.ready_at() is not None)
    ready_at = resolution.ready_at()
    assert ready_at is not None
    assert before + SERVICE_DELAY <= ready_at <= time.monotonic() + SERVICE_DELAY
    resolution.cancel()


async def test_a_race_does_not_wait_once_the_records_are_there() -> None:
    resolution = resolving(Names(ADDRESS), Records({AT_HOST: OSError("none")}))
    await until(lambda: not resolution.pending)
    ready_at = resolution.ready_at()
    assert ready_at is not None
    assert ready_at <= time.monotonic()
    assert resolution.failures == []
    resolution.cancel()


async def test_silence_is_taken_for_no_records() -> None:
    changed = asyncio.Event()
    before = time.monotonic()
    ask = Records()
    resolution = resolving(Names(ADDRESS), ask, changed.set)
    await resolution.wait(changed)
    assert time.monotonic() >= before + SERVICE_PATIENCE - 0.01
    assert ask.asked[AT_HOST].cancelled()
    assert resolution.failures == []


async def test_a_failing_race_does_not_wait_for_silent_records_longer_than_our_patience() -> None:
    refused = {"192.0.2.1": ConnectionRefusedError("nobody there")}
    stack = ToyStack("quic", secure=True, outcomes=refused)
    before = time.monotonic()
    with pytest.raises(EstablishmentError):
        await establish(asking(ask=Records(), stacks=[stack]))
    assert time.monotonic() - before < SERVICE_PATIENCE + 0.5


async def test_records_that_come_late_join_the_race() -> None:
    ask = Records()
    silent = {"192.0.2.1": asyncio.get_running_loop().create_future()}
    quic = ToyStack("quic", secure=True, outcomes=silent)
    started: list[object] = []

    def trace(event: str, subject: object, detail: object) -> None:
        if event == STARTED:
            started.append(subject)

    racing = asyncio.ensure_future(establish(asking(ask=ask, stacks=[quic], trace=trace)))
    await until(lambda: started)
    ask.answer(AT_HOST, [ServiceRecord(1, "svc.example.net", 8443, ("h3",))])
    established = await racing
    assert established.candidate.remote == ("192.0.2.2", 8443, "")
    assert [str(one.remote) for one in started if isinstance(one, Candidate)] == [
        "192.0.2.1:443",
        "192.0.2.2:8443",
    ]


async def test_a_host_without_addresses_of_its_own_is_reached_by_its_record() -> None:
    names = Names({("svc.example.net", V4): ["192.0.2.2"]})
    wanted = asking(ServiceRecord(1, "svc.example.net", alpn=("h2",)), names=names)
    established = await establish(wanted)
    assert str(established.candidate.remote) == "192.0.2.2:443"


async def test_a_record_that_leads_nowhere_is_no_reason_to_fail() -> None:
    wanted = asking(ServiceRecord(1, "nowhere.example.net", alpn=("h3",)))
    assert str((await establish(wanted)).candidate.remote) == "192.0.2.1:443"


async def test_a_service_without_port_that_is_not_known_still_fails_as_such() -> None:
    with pytest.raises(EstablishmentError) as caught:
        await establish(asking(remote=RemoteEndpoint(HOST, service="no-such-service")))
    assert caught.value.reason is Reason.RESOLUTION_FAILED
