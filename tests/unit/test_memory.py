"""What a loop remembers of earlier attempts."""

from __future__ import annotations

import asyncio
import gc

from neatpy.establishment.memory import FAILURE_LIFETIME, Memories, Memory

KEY = ("192.0.2.1", 443, "tls/tcp", None)
OTHER = ("192.0.2.2", 443, "tls/tcp", None)


def test_an_unknown_address_gets_the_delay_of_rfc_8305() -> None:
    assert Memory().delay(KEY) == 0.25


def test_a_known_handshake_time_sets_the_delay_within_bounds() -> None:
    memory = Memory()
    memory.succeeded(KEY, 0.2)
    assert memory.delay(KEY) == 0.4
    memory.succeeded(OTHER, 0.0001)
    assert memory.delay(OTHER) == 0.1
    memory.succeeded(OTHER, 90.0)
    assert memory.delay(OTHER) == 2.0


def test_a_failure_demotes_for_a_while() -> None:
    memory = Memory()
    memory.failed(KEY, 100.0)
    assert memory.demotes(KEY, 101.0)
    assert not memory.demotes(OTHER, 101.0)
    assert not memory.demotes(KEY, 100.0 + FAILURE_LIFETIME)


def test_a_success_forgives_a_failure() -> None:
    memory = Memory()
    memory.failed(KEY, 100.0)
    memory.succeeded(KEY, 0.1)
    assert not memory.demotes(KEY, 101.0)


def test_memory_is_bounded_and_forgets_the_least_recently_updated() -> None:
    memory = Memory(limit=2)
    for port in (1, 2, 1, 3):
        memory.failed(("host", port, "tcp", None), 0.0)
    assert len(memory) == 2
    assert memory.demotes(("host", 1, "tcp", None), 1.0)
    assert not memory.demotes(("host", 2, "tcp", None), 1.0)


def test_each_loop_has_a_memory_of_its_own_that_ends_with_it() -> None:
    memories = Memories()
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert memories.of(first) is memories.of(first)
        assert memories.of(first) is not memories.of(second)
    finally:
        first.close()
        second.close()
    del first, second
    gc.collect()
    assert len(memories) == 0
