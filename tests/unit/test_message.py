"""Messages and their contexts: cheap values, independent copies, identity."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, assert_type

import pytest

from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.enumerations import CapacityProfile, PropertyKind
from neatpy.errors import PropertyError
from neatpy.message import Message, MessageContext
from neatpy.properties import PROPERTIES

MESSAGE_PROPERTIES = [name for name, row in PROPERTIES.items() if row.kind is PropertyKind.MESSAGE]
OTHERS = [name for name, row in PROPERTIES.items() if row.kind is not PropertyKind.MESSAGE]


class Framing:
    """Stands for a framer: any object is a scope of metadata."""


class Origin:
    """Stands for the Connection that received a Message."""

    local_endpoint = LocalEndpoint(80)
    remote_endpoint = RemoteEndpoint("192.0.2.1", 4711)


# Messages


def test_a_message_has_data_context_and_end() -> None:
    context = MessageContext()
    message = Message(b"hello", context, False)
    assert (message.data, message.context, message.end_of_message) == (b"hello", context, False)
    assert bytes(message) is message.data
    assert len(message) == 5


def test_an_empty_message_is_true() -> None:
    assert Message(b"", MessageContext(), True)
    assert len(Message(b"", MessageContext(), True)) == 0


def test_messages_are_shown_in_short() -> None:
    assert repr(Message(b"hello", MessageContext(), True)) == "Message(b'hello')"
    assert repr(Message(b"hello", MessageContext(), False)) == "Message(b'hello', partial)"
    shown = repr(Message(bytes(1 << 20), MessageContext(), True))
    assert len(shown) < 200
    assert "1048576 bytes" in shown


def test_messages_are_told_apart_by_identity() -> None:
    context = MessageContext()
    first, second = Message(b"x", context, True), Message(b"x", context, True)
    assert first != second
    assert len({first, second}) == 2


# Message Properties of a context


def test_a_new_context_has_the_defaults_of_the_rfc() -> None:
    context = MessageContext()
    assert context.explicit() == {}
    for name in MESSAGE_PROPERTIES:
        assert context.get(name) == PROPERTIES[name].default
    assert (context.ecn, context.early_data, context.final) == (None, False, False)
    assert context.local_endpoint is None
    assert context.remote_endpoint is None


def test_properties_are_set_by_keyword_name_or_attribute() -> None:
    by_keyword = MessageContext(msg_lifetime=2, msgPriority=7)
    by_name = MessageContext().set("MSGLIFETIME", 2).add("msg_priority", 7)
    by_attribute = MessageContext()
    by_attribute.msg_lifetime = 2
    by_attribute.msg_priority = 7
    for context in (by_keyword, by_name, by_attribute):
        assert context.explicit() == {"msg_lifetime": 2, "msg_priority": 7}
        assert context.get("msgLifetime") == context.msg_lifetime == 2


def test_attributes_are_typed() -> None:
    context = MessageContext(neatpy_payload_protocol_id=51)
    assert_type(context.msg_lifetime, float)
    assert_type(context.msg_ordered, bool | None)
    assert_type(context.msg_capacity_profile, CapacityProfile | None)
    assert_type(context.final, bool)
    assert_type(context.ecn, int | None)
    assert_type(context.remote_endpoint, RemoteEndpoint | None)
    assert_type(context.set("final", True), MessageContext)
    assert_type(context.add("framer", "key", 1), MessageContext)
    assert context.get("_neatpy.payloadProtocolId") == 51


@pytest.mark.parametrize("name", OTHERS)
def test_properties_of_other_kinds_are_refused(name: str) -> None:
    for use in (
        lambda: MessageContext(**{name: 1}),
        lambda: MessageContext().set(name, 1),
        lambda: MessageContext().add(name, 1),
        lambda: MessageContext().get(name),
    ):
        with pytest.raises(PropertyError, match=f"{name} is no Message Property"):
            use()


def test_wrong_names_and_values_are_refused() -> None:
    with pytest.raises(PropertyError, match="msg_priority"):
        MessageContext(msg_prio=1)
    with pytest.raises(TypeError, match="msg_priority takes"):
        MessageContext(msg_priority="high")
    with pytest.raises(ValueError, match="msg_lifetime takes"):
        MessageContext(msg_lifetime=math.nan)
    with pytest.raises(AttributeError):
        MessageContext().msg_prio = 1  # type: ignore[attr-defined]


# Metadata of framers


def test_metadata_belongs_to_a_framer_and_a_key() -> None:
    first, second = Framing(), Framing()
    context = MessageContext().add(first, "type", 1).add(second, "type", 2).add(first, "flags", 3)
    assert (context.get(first, "type"), context.get(second, "type"), context.get(first, "flags")) == (1, 2, 3)
    assert context.get(second, "flags") is None
    assert MessageContext().get(first, "type") is None
    assert context.explicit() == {}


@pytest.mark.parametrize("arguments", [(), ("a",), ("a", "b", "c", "d")])
def test_add_takes_two_or_three_arguments(arguments: Any) -> None:
    with pytest.raises(TypeError, match="framer, key, value"):
        MessageContext().add(*arguments)


@pytest.mark.parametrize("arguments", [(), ("a", "b", "c")])
def test_get_takes_one_or_two_arguments(arguments: Any) -> None:
    with pytest.raises(TypeError, match="framer, key"):
        MessageContext().get(*arguments)


# What is told of received Messages


def test_the_endpoints_are_those_of_the_connection_it_came_by() -> None:
    context = MessageContext()
    context.origin = Origin()
    assert context.local_endpoint == LocalEndpoint(80)
    assert context.remote_endpoint == RemoteEndpoint("192.0.2.1", 4711)


# Copies


@pytest.mark.parametrize("copied", [MessageContext.copy, copy.copy, copy.deepcopy])
def test_copies_are_independent(copied: Callable[[MessageContext], MessageContext]) -> None:
    framer = Framing()
    original = MessageContext(msg_priority=1).add(framer, "type", 1)
    other = copied(original)
    assert other.explicit() == {"msg_priority": 1}
    assert other.get(framer, "type") == 1
    other.set("msg_priority", 2).set("final", True).add(framer, "type", 2)
    assert original.explicit() == {"msg_priority": 1}
    assert original.get(framer, "type") == 1
    original.set("msg_lifetime", 5).add(framer, "flags", 1)
    assert other.explicit() == {"msg_priority": 2, "final": True}
    assert other.get(framer, "flags") is None


def test_a_copy_of_an_empty_context_is_independent_too() -> None:
    original = MessageContext()
    original.copy().set("final", True)
    assert not original.final


def test_a_copy_keeps_what_was_told_of_a_received_message() -> None:
    original = MessageContext()
    original.ecn, original.early_data, original.origin = 3, True, Origin()
    other = original.copy()
    assert (other.ecn, other.early_data, other.remote_endpoint) == (3, True, original.remote_endpoint)


def test_update_takes_over_what_the_other_has_set() -> None:
    framer = Framing()
    context = MessageContext(msg_priority=1, msg_lifetime=2).add(framer, "type", 1)
    context.update(MessageContext(msg_priority=3).add(framer, "flags", 2))
    context.update(MessageContext())
    assert context.explicit() == {"msg_priority": 3, "msg_lifetime": 2}
    assert (context.get(framer, "type"), context.get(framer, "flags")) == (1, 2)
    fresh = MessageContext()
    fresh.update(context)
    fresh.set("final", True)
    assert not context.final


def test_contexts_are_told_apart_by_identity() -> None:
    first, second = MessageContext(final=True), MessageContext(final=True)
    assert first != second
    assert len({first, second, first}) == 2


def test_the_representation_shows_what_was_set() -> None:
    assert repr(MessageContext()) == "MessageContext()"
    assert repr(MessageContext(msg_priority=3, final=True)) == "MessageContext(msg_priority=3, final=True)"
