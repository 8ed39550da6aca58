"""The stack tls/tcp over real sockets: between two of ours, and against OpenSSL's command line both ways."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tls_parties import (
    AUTHORITY,
    BULK,
    CLIENT,
    IDENTITY,
    always,
    engines,
    offering,
    trusting,
    versions,
)
from tls_tools import (
    PlainStack,
    connect,
    nothing_stays_open,
    openssl,
    send,
    serving,
    tls_stack,
    written,
)

from neatpy.certificate import Certificate
from neatpy.errors import ConnectionError, EstablishmentError, Reason
from neatpy.security import SecurityParameters
from neatpy.stacks._tls import accepting, flow
from neatpy.stacks.features import Provision

__all__ = ["nothing_stays_open"]
pytestmark = pytest.mark.usefixtures("nothing_stays_open")


# Data


@engines
@versions
async def test_data_flows_both_ways_and_each_side_ends_its_own(client: Any, version: str) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, client(allowed_security_protocols=version))
        theirs = await server.accept()
        send(ours, b"question")
        ours.flow.finish()
        await theirs.seen.until(lambda seen: seen.is_finished)
        assert theirs.seen.data == b"question"
        assert theirs.seen.ends == []
        send(theirs, BULK)
        theirs.flow.close()
        await ours.seen.until(lambda seen: seen.is_finished)
        assert ours.seen.data == BULK
        ours.flow.close()
        await ours.seen.until(lambda seen: seen.ends)
        await theirs.seen.until(lambda seen: seen.ends)
        assert ours.seen.ends == theirs.seen.ends == [None]


@engines
async def test_data_received_while_both_directions_are_full_is_whole(client: Any) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, client())
        theirs = await server.accept()
        for peer in (ours, theirs):
            peer.flow.pause_receiving()
            assert not send(peer, bytearray(BULK), "long")
            assert not peer.flow.writable
        for peer in (ours, theirs):
            peer.flow.resume_receiving()
        for peer in (ours, theirs):
            await peer.seen.until(lambda seen: len(seen.data) == len(BULK))
            await peer.seen.until(lambda seen: seen.writables and seen.tokens)
            assert peer.seen.data == BULK
            assert peer.seen.tokens == ["long"]
            assert peer.flow.writable


async def test_sent_comes_once_for_each_message_in_order_under_backpressure() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        expected = bytearray()
        tokens: list[object] = []
        while ours.flow.writable:
            piece = bytes([len(tokens) % 251]) * 100_000
            if not send(ours, piece, len(tokens)):
                tokens.append(len(tokens))
            else:
                assert not tokens
            expected += piece
        ours.flow.finish()
        theirs.flow.resume_receiving()
        await theirs.seen.until(lambda seen: seen.is_finished)
        assert theirs.seen.data == expected
        assert len(ours.seen.tokens) == len(tokens)


async def test_a_buffer_may_be_changed_after_send_has_returned() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        buffer = bytearray(BULK)
        send(ours, buffer)
        buffer[:] = bytes(len(buffer))
        theirs.flow.resume_receiving()
        await theirs.seen.until(lambda seen: len(seen.data) == len(BULK))
        assert theirs.seen.data == BULK


async def test_small_messages_of_a_batch_share_a_record() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        lower = ours.flow.lower  # type: ignore[attr-defined]
        before = len(lower.sends)
        ours.flow.cork()
        assert [send(ours, b"abc", token) for token in range(20)] == [False] * 20
        ours.flow.uncork()
        await theirs.seen.until(lambda seen: len(seen.data) == 60)
        assert ours.seen.tokens == list(range(20))
        assert len(lower.sends) == before + 1
        assert lower.sends[-1] < 100


async def test_pausing_holds_data_back_until_resumed() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        send(ours, b"later")
        send(theirs, b"first")
        await ours.seen.until(lambda seen: seen.data == b"first")
        assert theirs.seen.data == b""
        theirs.flow.resume_receiving()
        await theirs.seen.until(lambda seen: seen.data == b"later")


async def test_closing_delivers_what_a_slow_peer_has_yet_to_read() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        send(ours, BULK)
        ours.flow.close()
        theirs.flow.resume_receiving()
        await theirs.seen.until(lambda seen: seen.is_finished)
        assert theirs.seen.data == BULK


async def test_closing_gives_up_on_a_peer_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LINGER", 0.05)
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        while ours.flow.writable:
            send(ours, BULK)
        ours.flow.close()
        await ours.seen.until(lambda seen: seen.ends)
        assert isinstance(ours.seen.ends[0], ConnectionError)
        assert ours.seen.ends[0].reason is Reason.TIMEOUT


# What cannot be done


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"signature_algorithm": "ed25519"}, "signature_algorithm"),
        ({"identity_challenge_callback": always}, "identity_challenge_callback"),
        ({"supported_group": ["x25519", "secp256r1"]}, "one supported_group"),
        ({"supported_group": "x25519", "trust_verification_callback": always}, "cannot be combined"),
        ({"allowed_security_protocols": ["quic", "dtls_1_2"]}, "neither tls_1_2 nor tls_1_3"),
    ],
)
async def test_a_parameter_that_no_library_can_honour_rules_the_stack_out(
    parameters: dict[str, Any], words: str
) -> None:
    obstacle = tls_stack().security_obstacle(SecurityParameters(**parameters))
    assert words in str(obstacle)
    with pytest.raises(EstablishmentError, match=words):
        await connect(9, SecurityParameters(**parameters))


def test_ordinary_parameters_meet_no_obstacle() -> None:
    stack = tls_stack()
    assert stack.security_obstacle(SecurityParameters()) is None
    assert stack.security_obstacle(SecurityParameters.opportunistic(), listening=True) is None
    assert stack.security_obstacle(trusting(trust_verification_callback=always)) is None


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neatpy.stacks._tls.plan.find_spec", lambda name: None)
    obstacle = tls_stack().security_obstacle(SecurityParameters(trust_verification_callback=always))
    assert "with its extra tls" in str(obstacle)


async def test_a_secure_listener_without_certificate_is_a_wrong_configuration() -> None:
    with pytest.raises(EstablishmentError, match="server_certificate") as caught:
        async with serving(SecurityParameters()):
            pass
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


async def test_two_server_certificates_with_one_kind_of_key_are_a_wrong_configuration() -> None:
    with pytest.raises(EstablishmentError, match="another kind of key") as caught:
        async with serving(offering(server_certificate=[IDENTITY, CLIENT])):
            pass
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.parametrize("callback", [None, always])
async def test_a_root_that_is_no_certificate_is_a_wrong_configuration(callback: Any) -> None:
    damaged = Certificate(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    security = SecurityParameters(trusted_certificates=damaged, trust_verification_callback=callback)
    with pytest.raises(EstablishmentError, match="trusted_certificates") as caught:
        await connect(9, security)
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"])
async def test_a_group_is_used_alone(suite: str) -> None:
    async with serving(offering(supported_group="secp384r1")) as server:
        await connect(server.port, trusting(supported_group="secp384r1"))
        with pytest.raises(EstablishmentError):
            await connect(server.port, trusting(supported_group="x25519"))


# Ends that are no ends


@engines
@versions
async def test_the_end_of_the_stream_without_close_notify_is_an_error(client: Any, version: str) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, client(allowed_security_protocols=version))
        theirs = await server.accept()
        send(theirs, b"half of it")
        theirs.flow.lower.finish()  # type: ignore[attr-defined]
        await ours.seen.until(lambda seen: seen.ends)
        assert ours.seen.data == b"half of it"
        assert not ours.seen.is_finished
        assert isinstance(ours.seen.ends[0], ConnectionError)
        assert ours.seen.ends[0].reason is Reason.PROTOCOL_FAILED


@engines
async def test_garbage_in_the_stream_breaks_the_connection_after_what_was_good(client: Any) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, client())
        theirs = await server.accept()
        send(theirs, b"good")
        theirs.flow.lower.send(b"\x17\x03\x03\x00\x20" + bytes(32), None, False, None)  # type: ignore[attr-defined]
        await ours.seen.until(lambda seen: seen.ends)
        assert ours.seen.data == b"good"
        assert isinstance(ours.seen.ends[0], ConnectionError)
        assert ours.seen.ends[0].reason is Reason.PROTOCOL_FAILED
        await theirs.seen.until(lambda seen: seen.ends)
        assert "the peer refused" in str(theirs.seen.ends[0])


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70000), b""]
)
async def test_a_server_without_tls_is_an_establishment_error(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    plain = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with plain:
        with pytest.raises(EstablishmentError) as caught:
            await connect(plain.sockets[0].getsockname()[1], trusting())
        assert caught.value.reason is Reason.ESTABLISHMENT_FAILED


async def test_garbage_from_a_client_troubles_nobody_else() -> None:
    async with serving(offering()) as server:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(70000), b"\x16\x03\x01\x40\x00" + bytes(5)):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(garbage)
            writer.write_eof()
            with suppress(OSError):
                await asyncio.wait_for(reader.read(), 5)
            writer.close()
        await connect(server.port, trusting())
        await server.accept()
        assert server.peers.empty()


async def test_a_client_that_does_not_finish_its_handshake_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_TIME", 0.05)
    async with serving(offering()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"\x16\x03\x01")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_handshakes_in_progress_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKES", 2)
    async with serving(offering()) as server:
        waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(waiting[0][0].read(), 5) == b""
        await connect(server.port, trusting())
        for _, writer in waiting:
            writer.close()


async def test_a_stopped_listener_drops_handshakes_and_keeps_connections() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lower = server.stack.lower
        assert isinstance(lower, PlainStack)
        while len(lower.flows) < 2:
            await asyncio.sleep(0)
        server.listener.close()
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        send(ours, b"still here")
        await theirs.seen.until(lambda seen: seen.data == b"still here")


# Sessions


@versions
async def test_a_second_connection_resumes_the_session_of_the_first(version: str) -> None:
    stack = tls_stack()
    async with serving(offering()) as server:
        for resumed in (False, True, True):
            ours = await connect(server.port, trusting(allowed_security_protocols=version), stack=stack)
            theirs = await server.accept()
            assert ours.flow.security()["resumed"] is resumed
            assert ours.flow.security()["peer_certificate"] == IDENTITY.der()[0]
            send(theirs, b"hello")
            await ours.seen.until(lambda seen: seen.data == b"hello")
            ours.flow.close()


@pytest.mark.parametrize(
    "how", ["isolated", "none cached", "too old", "another server name", "other parameters"]
)
async def test_sessions_are_not_resumed_where_they_must_not_be(how: str) -> None:
    stack = tls_stack()
    parameters: dict[str, Any] = {}
    if how == "none cached":
        parameters["max_cached_sessions"] = 0
    if how == "too old":
        parameters["cached_session_lifetime_seconds"] = 1e-9
    async with serving(offering()) as server:
        for attempt in range(2):
            if how == "other parameters" and attempt:
                parameters["max_cached_sessions"] = 5
            ours = await connect(
                server.port,
                trusting(**parameters),
                None if how == "another server name" and attempt else "localhost",
                stack=stack,
                isolate_session=how == "isolated",
            )
            theirs = await server.accept()
            assert ours.flow.security()["resumed"] is False
            send(theirs, b"hello")
            await ours.seen.until(lambda seen: seen.data == b"hello")
            ours.flow.close()


# The table


def test_what_the_stack_below_does_acts_through_tls() -> None:
    stack = tls_stack()
    assert stack.available().available
    assert stack.features.secure
    assert stack.features.rank == 30
    assert stack.features.provides("reliability") is Provision.INTRINSIC
    assert {"conn_timeout", "isolate_session"} <= set(stack.features.effects)
    assert stack.features.namespace == "tcp"
    stack.lower = None
    assert not stack.available().available


# OpenSSL as the peer


@pytest.mark.needs_program("openssl")
@engines
@versions
async def test_openssls_server_is_a_peer(client: Any, version: str, tmp_path: Path, free_port: int) -> None:
    paths = written(tmp_path, server=IDENTITY, root=AUTHORITY.root)
    arguments = ["s_server", "-accept", f"127.0.0.1:{free_port}", "-cert", paths["server"], "-alpn", "echo"]
    arguments += ["-Verify", "1", "-CAfile", paths["root"], "-verify_return_error", "-rev", "-naccept", "3"]
    async with openssl(*arguments) as server:
        await server.says(b"ACCEPT")
        security = client(allowed_security_protocols=version, alpn="echo", client_certificate=CLIENT)
        ours = await connect(free_port, security)
        assert ours.flow.security()["alpn"] == "echo"
        send(ours, b"olleh\n")
        await ours.seen.until(lambda seen: seen.data == b"hello\n")
        ours.flow.finish()
        await ours.seen.until(lambda seen: seen.is_finished or seen.ends)
        assert ours.seen.ends in ([], [None])


@pytest.mark.needs_program("openssl")
@versions
async def test_a_file_of_openssls_web_server_comes_whole_after_our_half_close(
    version: str, tmp_path: Path, free_port: int
) -> None:
    paths = written(tmp_path, server=IDENTITY)
    (tmp_path / "file").write_bytes(BULK)
    process = openssl("s_server", "-accept", f"127.0.0.1:{free_port}", "-cert", paths["server"], "-HTTP")
    directory = Path.cwd()
    os.chdir(tmp_path)
    try:
        async with process as server:
            await server.says(b"ACCEPT")
            ours = await connect(free_port, trusting(allowed_security_protocols=version))
            send(ours, b"GET /file HTTP/1.0\r\n\r\n")
            await ours.seen.until(lambda seen: seen.is_finished or seen.ends)
            assert bytes(ours.seen.data).endswith(BULK[-1000:])
            ours.flow.close()
            await ours.seen.until(lambda seen: seen.ends)
            assert ours.seen.ends == [None]
    finally:
        os.chdir(directory)


@pytest.mark.needs_program("openssl")
@pytest.mark.parametrize("listening", [offering, lambda: offering(trust_verification_callback=always)])
@versions
async def test_openssls_client_is_a_peer(listening: Any, version: str, tmp_path: Path) -> None:
    paths = written(tmp_path, root=AUTHORITY.root, client=CLIENT)
    async with serving(listening()) as server:
        arguments = ["s_client", "-connect", f"127.0.0.1:{server.port}", "-servername", "localhost", "-quiet"]
        arguments += ["-verify_return_error", "-verify_hostname", "localhost", "-CAfile", paths["root"]]
        arguments += ["-cert", paths["client"], "-" + version.replace("tls_1", "tls1")]
        async with openssl(*arguments) as client:
            theirs = await server.accept()
            client.types(b"hello\n")
            await theirs.seen.until(lambda seen: seen.data == b"hello\n")
            send(theirs, b"welcome\n")
            await client.says(b"welcome\n")
            theirs.flow.finish()
            await theirs.seen.until(lambda seen: seen.is_finished or seen.ends)
            assert theirs.seen.ends in ([], [None])


@pytest.mark.needs_program("openssl")
async def test_a_key_update_is_followed(tmp_path: Path) -> None:
    paths = written(tmp_path, root=AUTHORITY.root)
    async with serving(offering()) as server:
        arguments = ["s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", paths["root"], "-tls1_3"]
        async with openssl(*arguments) as client:
            theirs = await server.accept()
            await client.says(b"Verify return code")
            client.types(b"K\n")
            await client.says(b"KEYUPDATE")
            client.types(b"after\n")
            await theirs.seen.until(lambda seen: b"after\n" in seen.data)
            send(theirs, b"with new keys\n")
            await client.says(b"with new keys\n")


@pytest.mark.needs_program("openssl")
async def test_openssls_client_is_told_that_no_alpn_is_common(tmp_path: Path) -> None:
    async with serving(offering(alpn="h2")) as server:
        arguments = ["s_client", "-connect", f"127.0.0.1:{server.port}", "-alpn", "imap"]
        async with openssl(*arguments) as client:
            await client.says(b"no application protocol")
