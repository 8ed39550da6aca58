"""Which stacks are eligible and in which order."""

from __future__ import annotations

from random import Random

import pytest
from establishment_toys import RELIABLE, ToyStack, stacks
from hypothesis import given
from hypothesis import strategies as st

from neatpy.enumerations import Multipath, Preference
from neatpy.establishment.policy import (
    INITIATE,
    LISTEN,
    RENDEZVOUS,
    StackPolicy,
    eligible_stacks,
    no_stack_message,
)
from neatpy.properties import TransportProperties
from neatpy.security import SecurityParameters
from neatpy.stacks.contract import Availability, Stack
from neatpy.stacks.features import Provision
from neatpy.stacks.registry import stacks as our_stacks

PLAIN = SecurityParameters.disabled()


def names(
    *toys: Stack,
    properties: TransportProperties | None = None,
    security: SecurityParameters = PLAIN,
    action: str = INITIATE,
    has_framer: bool = False,
) -> list[str]:
    ranked, _ = eligible_stacks(
        properties or TransportProperties(), security, action, has_framer, stacks=stacks(*toys)
    )
    return [stack.name for stack in ranked]


def why_not(
    toy: Stack, properties: TransportProperties, security: SecurityParameters = PLAIN
) -> tuple[str, ...]:
    ranked, (ruled_out,) = eligible_stacks(properties, security, INITIATE, False, stacks=stacks(toy))
    assert not ranked
    assert ruled_out.what == toy.name
    return ruled_out.reasons


def test_a_required_feature_that_is_not_provided_rules_out() -> None:
    properties = TransportProperties().require("zero_rtt_msg")
    assert why_not(ToyStack(), properties) == ("it does not provide zero_rtt_msg, which is required",)


def test_a_prohibited_feature_rules_out_where_it_is_intrinsic_only() -> None:
    properties = TransportProperties().prohibit("keep_alive")
    by_nature = ToyStack("always", selection={**RELIABLE, "keep_alive": Provision.INTRINSIC})
    switchable = ToyStack("optional", selection={**RELIABLE, "keep_alive": Provision.OPTIONAL})
    assert names(by_nature, switchable, properties=properties) == ["optional"]


def test_an_unavailable_stack_is_ruled_out_with_its_own_reason() -> None:
    toy = ToyStack(selection={}, availability=Availability(False, "its library is missing"))
    assert why_not(toy, TransportProperties()) == ("it is unavailable: its library is missing",)


def test_availability_is_asked_each_time() -> None:
    toy = ToyStack(availability=Availability(False, "busy"))
    policy, registry = StackPolicy(), stacks(toy)
    properties = TransportProperties()
    assert policy.eligible(properties, PLAIN, INITIATE, False, registry)[0] == []
    toy.availability = Availability(True)
    assert len(policy.eligible(properties, PLAIN, INITIATE, False, registry)[0]) == 1


def test_secure_by_default_means_secure_stacks_only() -> None:
    toys = ToyStack("plain"), ToyStack("secure", secure=True)
    assert names(*toys, security=SecurityParameters()) == ["secure"]
    assert names(*toys, security=SecurityParameters.disabled()) == ["plain"]


def test_opportunistic_tries_secure_stacks_before_plain_ones() -> None:
    toys = ToyStack("plain", rank=1), ToyStack("secure", rank=2, secure=True)
    assert names(*toys, security=SecurityParameters.opportunistic()) == ["secure", "plain"]


def test_only_insecure_stacks_left_names_the_way_out() -> None:
    _, ruled_out = eligible_stacks(
        TransportProperties(), SecurityParameters(), INITIATE, False, stacks=stacks(ToyStack())
    )
    assert "SecurityParameters.disabled()" in no_stack_message(ruled_out)


def test_the_way_out_is_not_named_when_it_leads_nowhere() -> None:
    properties = TransportProperties().require("zero_rtt_msg")
    _, ruled_out = eligible_stacks(
        properties, SecurityParameters(), INITIATE, False, stacks=stacks(ToyStack())
    )
    message = no_stack_message(ruled_out)
    assert "SecurityParameters.disabled()" not in message
    assert "zero_rtt_msg" in message


def test_a_security_obstacle_rules_out_with_its_reason() -> None:
    toy = ToyStack(secure=True, obstacle="it knows no such group")
    assert why_not(toy, TransportProperties(), SecurityParameters()) == ("it knows no such group",)


def test_a_framer_satisfies_require_of_message_boundaries() -> None:
    properties = TransportProperties().require("preserve_msg_boundaries")
    assert names(ToyStack(), properties=properties) == []
    assert names(ToyStack(), properties=properties, has_framer=True) == ["toy"]


def test_a_framer_does_not_help_against_prohibit_of_message_boundaries() -> None:
    toy = ToyStack(selection={**RELIABLE, "preserve_msg_boundaries": Provision.INTRINSIC})
    properties = TransportProperties().prohibit("preserve_msg_boundaries")
    assert names(toy, properties=properties, has_framer=True) == []


def test_stacks_that_may_duplicate_need_replayable_messages() -> None:
    toy = ToyStack(may_duplicate=True)
    assert names(toy) == []
    properties = TransportProperties()
    properties.set("safely_replayable", True)
    assert names(toy, properties=properties) == ["toy"]


def test_prefer_ranks_before_avoid_and_both_before_rank() -> None:
    liked = ToyStack("liked", rank=9, selection={**RELIABLE, "zero_rtt_msg": Provision.OPTIONAL})
    disliked = ToyStack("disliked", rank=1, selection={**RELIABLE, "keep_alive": Provision.INTRINSIC})
    neutral = ToyStack("neutral", rank=5)
    properties = TransportProperties().prefer("zero_rtt_msg").avoid("keep_alive")
    assert names(disliked, neutral, liked, properties=properties) == ["liked", "neutral", "disliked"]


def remembering(
    *toys: Stack, failed: Stack | None = None, properties: TransportProperties | None = None
) -> list[str]:
    """The order in which they are tried after one of them has failed lately."""
    ranked, _ = StackPolicy().eligible(
        properties or TransportProperties(), PLAIN, INITIATE, False, stacks(*toys)
    )
    ranked.sort(key=lambda candidate: candidate.order(candidate.stack is failed))
    return [candidate.stack.name for candidate in ranked]


STREAMS = {**RELIABLE, "multistreaming": Provision.INTRINSIC}


def test_streams_are_preferred_unless_the_application_says_otherwise() -> None:
    toys = ToyStack("alone", rank=1), ToyStack("streams", rank=2, selection=STREAMS)
    assert TransportProperties().multistreaming is Preference.PREFER
    assert names(*toys) == ["streams", "alone"]
    indifferent = TransportProperties().no_preference("multistreaming")
    assert names(*toys, properties=indifferent) == ["alone", "streams"]


def test_what_failed_lately_comes_behind_although_it_has_what_is_preferred_by_default() -> None:
    alone, streams = ToyStack("alone", rank=1), ToyStack("streams", rank=2, selection=STREAMS)
    assert remembering(alone, streams) == ["streams", "alone"]
    assert remembering(alone, streams, failed=streams) == ["alone", "streams"]
    assert remembering(alone, streams, failed=alone) == ["streams", "alone"]


def test_what_the_application_prefers_comes_first_although_it_failed_lately() -> None:
    alone, streams = ToyStack("alone", rank=1), ToyStack("streams", rank=2, selection=STREAMS)
    insisting = TransportProperties().prefer("multistreaming")  # the default, but said aloud
    assert remembering(alone, streams, failed=streams, properties=insisting) == ["streams", "alone"]


def test_what_the_application_avoids_comes_last_although_all_others_failed_lately() -> None:
    quiet = ToyStack("quiet", rank=2)
    loud = ToyStack("loud", rank=1, selection={**STREAMS, "keep_alive": Provision.INTRINSIC})
    avoiding = TransportProperties().avoid("keep_alive")
    assert remembering(quiet, loud, failed=quiet, properties=avoiding) == ["quiet", "loud"]


def test_what_the_application_said_counts_more_than_all_that_is_preferred_by_default() -> None:
    loud = ToyStack("loud", rank=1, selection={**STREAMS, "keep_alive": Provision.INTRINSIC})
    quiet = ToyStack("quiet", rank=2)
    assert names(quiet, loud) == ["loud", "quiet"]
    assert names(quiet, loud, properties=TransportProperties().avoid("keep_alive")) == ["quiet", "loud"]


def test_among_what_failed_and_what_did_not_the_defaults_and_then_the_rank_decide() -> None:
    first, second = ToyStack("first", rank=1), ToyStack("second", rank=2)
    streams = ToyStack("streams", rank=3, selection=STREAMS)
    assert remembering(second, first, streams) == ["streams", "first", "second"]
    assert remembering(second, first, streams, failed=first) == ["streams", "second", "first"]


def ours(properties: TransportProperties) -> list[str]:
    """What this library's own stacks come to without security, as far as this host can run them."""
    ranked, _ = eligible_stacks(properties, PLAIN, INITIATE, False)
    return [stack.name for stack in ranked]


def on_this_host(*names: str) -> list[str]:
    return [name for name in names if our_stacks()[name].available().available]


def test_a_reliable_stream_goes_over_sctp_and_else_over_tcp() -> None:
    assert ours(TransportProperties()) == on_this_host("sctp", "tcp")
    assert ours(TransportProperties.reliable_inorder_stream()) == on_this_host("sctp", "tcp")


def test_a_reliable_message_goes_over_sctp() -> None:
    assert ours(TransportProperties.reliable_message()) == on_this_host("sctp")


def test_an_unreliable_datagram_goes_over_udp_and_else_over_sctp() -> None:
    assert ours(TransportProperties.unreliable_datagram()) == on_this_host("udp", "sctp")


def test_what_tcp_alone_has_is_preferred_to_the_streams_of_sctp() -> None:
    assert ours(TransportProperties().prefer("active_read_before_send")) == on_this_host("tcp", "sctp")


def test_who_prohibits_boundaries_gets_a_stream_of_bytes() -> None:
    assert ours(TransportProperties().prohibit("preserve_msg_boundaries")) == ["tcp"]


def test_active_multipath_puts_mptcp_first() -> None:
    toys = ToyStack("tcp", rank=1), ToyStack("tls/mptcp", rank=2)
    properties = TransportProperties()
    properties.set("multipath", Multipath.ACTIVE)
    assert names(*toys) == ["tcp", "tls/mptcp"]
    assert names(*toys, properties=properties) == ["tls/mptcp", "tcp"]


def test_no_stack_offers_rendezvous() -> None:
    assert names(ToyStack(), action=RENDEZVOUS) == []
    assert names(ToyStack(), action=LISTEN) == ["toy"]


def test_a_change_of_properties_is_not_answered_from_the_cache() -> None:
    policy, registry = StackPolicy(), stacks(ToyStack())
    properties = TransportProperties()
    assert len(policy.eligible(properties, PLAIN, INITIATE, False, registry)[0]) == 1
    properties.require("zero_rtt_msg")
    assert len(policy.eligible(properties, PLAIN, INITIATE, False, registry)[0]) == 0


FEATURES = ("zero_rtt_msg", "keep_alive", "multistreaming", "per_msg_reliability", "soft_error_notify")
wishes = st.dictionaries(st.sampled_from(FEATURES), st.sampled_from(list(Preference)))
toys = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(FEATURES), st.sampled_from(list(Provision))), st.integers(0, 3)
    ),
    max_size=5,
)


Described = list[tuple[dict[str, Provision], int]]


def made(described: Described) -> list[ToyStack]:
    return [
        ToyStack(f"toy{number}", selection={**RELIABLE, **selection}, rank=rank)
        for number, (selection, rank) in enumerate(described)
    ]


def wishing(wishes: dict[str, Preference]) -> TransportProperties:
    properties = TransportProperties()
    for name, preference in wishes.items():
        properties.set(name, preference)
    return properties


@given(toys, wishes, st.randoms())
def test_the_same_inputs_give_the_same_order_however_they_are_listed(
    described: Described, wished: dict[str, Preference], random: Random
) -> None:
    first = made(described)
    second = made(described)
    random.shuffle(second)
    assert names(*first, properties=wishing(wished)) == names(*second, properties=wishing(wished))


@given(toys, wishes)
def test_a_prohibited_stack_never_appears_and_nothing_required_is_missing(
    described: Described, wished: dict[str, Preference]
) -> None:
    made_stacks = made(described)
    ranked, ruled_out = eligible_stacks(wishing(wished), PLAIN, INITIATE, False, stacks=stacks(*made_stacks))
    for stack in ranked:
        for name, preference in wished.items():
            provision = stack.features.provides(name)
            assert not (preference is Preference.PROHIBIT and provision is Provision.INTRINSIC)
            assert not (preference is Preference.REQUIRE and provision is Provision.NOT_PROVIDED)
    assert len(ranked) + len(ruled_out) == len(made_stacks)
    assert all(entry.reasons for entry in ruled_out)


@pytest.mark.parametrize("preference", list(Preference))
def test_every_preference_is_understood_for_every_feature(preference: Preference) -> None:
    for name in FEATURES:
        names(ToyStack(), properties=wishing({name: preference}))
