"""The stack dtls/udp against networks that lose, double, reorder and invent datagrams, and against hostile clients."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterable
from typing import Any

import pytest
from dtls_tools import (
    CLIENT,
    Relay,
    connected,
    datagrams,
    dtls_of,
    going_to,
    listening,
    offering,
    refusal,
    trusting,
)

from api.loopback import HOST, port_of, turns, until
from neatpy import (
    Connection,
    ConnectionState,
    Preference,
    Reason,
    ReceiveError,
    SendError,
    TransportServicesError,
    TrustVerification,
)
from neatpy.message import MessageContext
from neatpy.stacks._datagram import UdpFlow
from neatpy.stacks._dtls import accepting, parting
from neatpy.stacks._dtls import flow as dtls_flow
from neatpy.stacks._dtls.records import is_client_hello
from neatpy.stacks.contract import Address, Flow, FlowObserver, ListenRequest
from neatpy.stacks.registry import stacks
from neatpy.system.datagrams import DatagramPort, DatagramPorts

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


async def talk(client: Connection, server: Connection, count: int = 3) -> None:
    """Exchange Messages, and nothing else arrives."""
    for number in range(count):
        await client.send(b"question %d" % number)
        assert (await server.receive()).data == b"question %d" % number
        await server.send(b"answer %d" % number)
        assert (await client.receive()).data == b"answer %d" % number


# Losing, doubling, reordering


@pytest.mark.parametrize("lost", [{1}, {2}], ids=str)
@pytest.mark.parametrize("from_client", [True, False], ids=["from the client", "from the server"])
async def test_a_handshake_survives_loss(lost: set[int], from_client: bool) -> None:
    def decide(datagram: bytes, came_from_client: bool, index: int) -> Iterable[bytes]:
        return () if came_from_client is from_client and index in lost else (datagram,)

    async with (
        listening() as listener,
        Relay.to(port_of(listener), decide) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        relay.decide = lambda datagram, *_: (datagram,)
        await talk(client, server)


async def test_doubled_datagrams_are_received_once() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener), lambda datagram, *_: (datagram, datagram)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await talk(client, server, 20)


async def test_datagrams_that_overtake_one_another_all_arrive() -> None:
    held: list[bytes] = []

    def swap(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        if not from_client:
            return (datagram,)
        if not held:
            held.append(datagram)
            return ()
        return (datagram, held.pop())

    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        relay.decide = swap
        for number in range(10):
            await client.send(b"%d" % number)
        assert b"".join([(await server.receive()).data for _ in range(10)]) == b"1032547698"


async def test_large_records_get_smaller_when_they_seem_to_get_lost() -> None:
    def decide(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        return () if len(datagram) > 600 else (datagram,)

    security, serving = trusting(), offering()
    async with (
        listening(serving) as listener,
        Relay.to(port_of(listener), decide) as relay,
        connected(going_to(relay.port, security), listener) as (client, server),
    ):
        await talk(client, server)
        assert max(map(len, relay.seen[False])) > 600


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_callback_may_take_longer_than_the_peer_is_patient(who: str) -> None:
    asked, decided = asyncio.Event(), asyncio.Event()

    async def decide(trust: TrustVerification) -> bool:
        asked.set()
        await decided.wait()
        return True

    ours, theirs = trusting(client_certificate=CLIENT), offering()
    (ours if who == "client" else theirs).set("trust_verification_callback", decide)
    async with listening(theirs) as listener, Relay.to(port_of(listener)) as relay:
        connection = going_to(relay.port, ours).initiate(timeout=10)
        await until(lambda: asked.is_set())
        from_patient = relay.seen[who == "server"]
        sent = len(from_patient)
        await until(
            lambda: len(from_patient) > sent
        )  # the other side has lost its patience, and sent it all again
        decided.set()
        await connection
        server = await listener.accept()
        await talk(connection, server)
        connection.abort()
        server.abort()


# Replays and garbage


async def test_replayed_and_garbled_datagrams_change_nothing() -> None:
    chance = random.Random(9147)
    soft: list[TransportServicesError] = []
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        client.on_soft_error = lambda _, error: soft.append(error)
        await talk(client, server)
        recorded = {from_client: list(seen) for from_client, seen in relay.seen.items()}
        for from_client in (True, False):
            for genuine in recorded[from_client]:
                for _ in range(20):
                    garbled = bytearray(genuine)
                    garbled[chance.randrange(len(garbled))] ^= 1 << chance.randrange(8)
                    relay.inject(bytes(garbled), from_client)
                relay.inject(genuine, from_client)
                relay.inject(genuine[: chance.randrange(len(genuine))], from_client)
                relay.inject(genuine + chance.randbytes(30), from_client)
                relay.inject(genuine[:13] + chance.randbytes(64), from_client)
            await talk(client, server)
        for size in (0, 1, 12, 13, 14, 500):
            relay.inject(chance.randbytes(size), True)
            relay.inject(chance.randbytes(size), False)
        await talk(client, server)
        assert client.state is server.state is ConnectionState.ESTABLISHED
        assert not soft


async def test_garbage_leaves_no_state_at_a_listener_and_gets_no_answer() -> None:
    chance = random.Random(6347)
    async with listening() as listener, Relay.to(port_of(listener)) as relay:
        async with connected(going_to(relay.port), listener) as both:
            await talk(*both)
            genuine = list(relay.seen[True])
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            stranger.connect((HOST, port_of(listener)))
            stranger.setblocking(False)
            for datagram in genuine[1:]:
                if not is_client_hello(datagram):
                    stranger.send(datagram)
                    stranger.send(datagram[: chance.randrange(len(datagram))])
            for size in range(0, 400, 7):
                stranger.send(b"\x16\xfe\xff" + chance.randbytes(size))
                stranger.send(genuine[0][: 13 + size // 8])
            await turns(20)
            assert len(dtls_of(listener)._port) == 0
            with pytest.raises(BlockingIOError):
                stranger.recv(1)
        async with connected(going_to(port_of(listener)), listener) as both:
            await talk(*both)


# Cookies and bounds


async def test_a_flood_of_first_datagrams_leaves_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as listener, Relay.to(port_of(listener)) as relay:
        async with connected(going_to(relay.port), listener):
            hello = relay.seen[True][0]
        assert is_client_hello(hello)
        below = dtls_of(listener)
        answered: list[bytes] = []
        monkeypatch.setattr(DatagramPort, "try_send", lambda _, *arguments: answered.append(arguments[0]))
        for port in range(1, 3000):
            below._port.datagram_received(hello, ("198.51.100.7", port), 0, b"")
        assert len(below._port) == len(below._waiting) == 0
        assert len(set(answered)) == 2999  # each with a cookie of its own
        assert max(map(len, answered)) < len(hello)  # and no use as an amplifier
    await turns()


async def test_a_cookie_is_no_good_from_another_address() -> None:
    async with listening() as listener, Relay.to(port_of(listener)) as relay:
        async with connected(going_to(relay.port), listener):
            proven = relay.seen[True][1]
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            stranger.connect((HOST, port_of(listener)))
            stranger.setblocking(False)
            stranger.send(proven)
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stranger, 2000), 5)
        assert answer[13] == 3  # HelloVerifyRequest: prove your own
        assert len(dtls_of(listener)._port) == 0


async def test_handshakes_in_progress_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKES", 2)
    async with listening() as listener:
        relays = []
        stuck = []
        for _ in range(4):
            made = Relay.to(
                port_of(listener), lambda datagram, from_client, index: (datagram,) if index < 2 else ()
            )
            relay = await made.__aenter__()
            relays.append((made, relay))
            stuck.append(going_to(relay.port).initiate(timeout=10))
            seen = relay.seen[True]
            await until(lambda: len(seen) > 2)  # noqa: B023 - called in this turn; its second flight is lost
            assert len(dtls_of(listener)._waiting) == len(dtls_of(listener)._port) <= 2
        for connection in stuck:
            connection.abort()
        for made, _ in relays:
            await made.__aexit__(None, None, None)
        await turns()


async def test_handshakes_in_progress_are_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_TIME", 0.05)
    async with (
        listening() as listener,
        Relay.to(
            port_of(listener), lambda datagram, from_client, index: (datagram,) if index < 2 else ()
        ) as relay,
    ):
        connection = going_to(relay.port).initiate(timeout=10)
        await until(lambda: len(dtls_of(listener)._waiting) == 1)
        await until(lambda: len(dtls_of(listener)._waiting) == len(dtls_of(listener)._port) == 0)
        connection.abort()
        await turns()


async def test_stopping_a_listener_ends_handshakes_in_progress_at_once() -> None:
    async with (
        listening() as listener,
        Relay.to(
            port_of(listener), lambda datagram, from_client, index: (datagram,) if index < 2 else ()
        ) as relay,
    ):
        connection = going_to(relay.port).initiate(timeout=10)
        below = dtls_of(listener)
        await until(lambda: len(below._waiting) == 1)
        await listener.stop()
        assert len(below._waiting) == len(below._port) == 0
        connection.abort()
        await turns()


# Beginning anew


async def test_a_client_that_lost_its_state_begins_anew_on_the_same_addresses() -> None:
    async with listening() as listener, Relay.to(port_of(listener)) as relay:
        first = going_to(relay.port).initiate(timeout=10)
        await first
        server = await listener.accept()
        await talk(first, server)
        relay.decide = lambda *_: ()  # its last words are lost
        first.abort()
        await turns(20)
        relay.decide = lambda datagram, *_: (datagram,)
        async with connected(going_to(relay.port), listener) as (second, again):
            await talk(second, again)
            with pytest.raises(ReceiveError) as caught:
                await server.receive()
            assert caught.value.reason is Reason.CONNECTION_ABORTED
            assert "begun anew" in str(caught.value)
            assert len(dtls_of(listener)._port) == 1
            assert len(dtls_of(listener)._waiting) == 0
        assert len(dtls_of(listener)._port) == 0


async def test_replaying_a_proven_hello_does_not_end_the_association() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await talk(client, server)
        hello, proven = relay.seen[True][:2]
        for _ in range(5):
            relay.inject(hello, True)
            relay.inject(proven, True)
        await until(lambda: len(dtls_of(listener)._waiting) == 1)  # one handshake, which nobody can complete
        await talk(client, server)
        assert server.state is ConnectionState.ESTABLISHED
        await server.close()
        assert len(dtls_of(listener)._waiting) == 0
        await turns()


# Nobody there


async def test_a_port_that_nobody_listens_on_ends_the_attempt_at_once() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind((HOST, 0))
        port = holder.getsockname()[1]
    error = await asyncio.wait_for(refusal(going_to(port)), 0.9)
    assert "nobody listens on that UDP port" in str(error)
    assert isinstance(error.attempts[0].error, ConnectionRefusedError)


async def test_a_silent_peer_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtls_flow, "HANDSHAKE_TIME", 0.05)
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        error = await refusal(going_to(silent.getsockname()[1]))
        assert "did not complete the DTLS handshake in time" in str(error)


async def test_cancelling_an_attempt_tells_the_server_and_frees_everything() -> None:
    async def never(trust: TrustVerification) -> bool:
        await asyncio.Event().wait()
        return True

    async with listening() as listener:
        below = dtls_of(listener)
        connection = going_to(port_of(listener), trusting(trust_verification_callback=never)).initiate()
        await until(lambda: len(below._waiting) == 1)
        await turns(20)
        connection.abort()
        await until(lambda: len(below._waiting) == len(below._port) == 0, 0.9)


async def test_a_peer_that_is_gone_later_is_a_soft_error() -> None:
    soft: list[TransportServicesError] = []
    properties = datagrams(soft_error_notify=Preference.PREFER)
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port, None, properties), listener) as (client, server),
    ):
        await talk(client, server)
        client.on_soft_error = lambda _, error: soft.append(error)
        relay.stop()
        await turns()
        await client.send(b"into the void")
        await until(lambda: soft)
        assert "Connection refused" in str(soft[0])
        assert client.state is ConnectionState.ESTABLISHED


async def test_messages_are_packed_for_the_paths_mtu_also_when_it_falls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unfragmented = 1472
    read = UdpFlow.read

    def told(flow: UdpFlow, name: str) -> object:
        return unfragmented if name == "singular_transmission_msg_max_len" else read(flow, name)

    monkeypatch.setattr(UdpFlow, "read", told)
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        for unfragmented in (1472, 1252):
            for connection, peer in ((client, server), (server, client)):
                largest = connection.get_properties()["send_msg_max_len"]
                assert largest == unfragmented - 37
                await connection.send(bytes(largest))
                assert len((await peer.receive()).data) == largest
                with pytest.raises(SendError) as caught:
                    await connection.send(bytes(largest + 1))
                assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
            assert max(map(len, relay.seen[True])) <= 1472


# Stacks above


class Above:
    """A stack above DTLS that takes those who begin with a letter of its own."""

    def __init__(self) -> None:
        self.stack: Any = stacks()["dtls/udp"]
        self.flows: list[tuple[str, Flow, Recorder]] = []
        self.request = ListenRequest(
            Address(HOST, 0),
            None,
            datagrams(),
            offering(),
            DatagramPorts(asyncio.get_running_loop()),
        )

    def takes(self, name: str) -> Any:
        """What to do with an accepted Flow."""

        def accepted(flow: Flow) -> None:
            recorder = Recorder()
            flow.observer = recorder
            self.flows.append((name, flow, recorder))

        return accepted


class Recorder(FlowObserver):
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        self.messages.append(data)


async def test_stacks_above_share_the_port_and_part_at_the_first_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parting, "SILENCE", 0.05)
    above = Above()
    upper = await above.stack.listen_above(
        above.request, above.takes("above"), lambda first: first.startswith(b"A")
    )
    alone = await above.stack.listen(above.request, above.takes("alone"))
    port = upper.local_address.port
    assert alone.local_address.port == port
    clients = []
    for first in (b"Above", b"below", None):
        client = going_to(port).initiate(timeout=10)
        await client
        if first is not None:
            client.send(first)
        clients.append(client)
        await until(lambda: len(above.flows) == len(clients))
    assert [(name, recorder.messages) for name, _, recorder in above.flows] == [
        ("above", [b"Above"]),
        ("alone", [b"below"]),
        ("alone", []),
    ]
    alone.close()
    client = going_to(port).initiate(timeout=10)
    await client
    client.send(b"not of those above")
    with pytest.raises(ReceiveError):  # nobody takes it
        await client.receive()
    upper.close()
    assert not above.stack._ports
    for connection in (*clients, client):
        connection.abort()
    for _, flow, _ in above.flows:
        flow.abort()
    await turns()
