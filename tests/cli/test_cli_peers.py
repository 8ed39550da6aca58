"""The command line with datagrams, and against other people's programs."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from api.loopback import available
from cli.running import (
    SECONDS,
    listening,
    neatpy,
    told,
)

# Datagrams


def test_datagrams_come_back_and_silence_is_the_end() -> None:
    options = ["--insecure", "--profile", "unreliable-datagram"]
    with listening(*options, "--echo", "--keep") as listener:
        assert listener.stacks == ", ".join(available("udp", "sctp"))
        done = neatpy("connect", "127.0.0.1", listener.port, *options, "--wait", "0.3", "-v", data=b"hello")
    assert (done.returncode, done.stdout) == (0, b"hello"), told(done)
    assert "stack=udp" in told(done)


def test_input_that_is_longer_than_a_datagram_goes_in_several() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.settimeout(SECONDS)
        peer.bind(("127.0.0.1", 0))
        options = ["--insecure", "--profile", "unreliable-datagram", "--wait", "0"]
        data = os.urandom(70_000)
        done = neatpy("connect", "127.0.0.1", peer.getsockname()[1], *options, data=data)
        assert done.returncode == 0, told(done)
        received = b""
        while len(received) < len(data):
            received += peer.recv(65536)
    assert received == data


def test_a_listener_hears_the_datagrams_of_a_plain_socket_and_answers() -> None:
    options = ["--insecure", "--profile", "unreliable-datagram", "--wait", "0.5"]
    with listening(*options) as listener, socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.settimeout(SECONDS)
        peer.connect(("127.0.0.1", listener.port))
        peer.send(b"\0hello")
        assert listener.finish(b"welcome") == b"\0hello"
        assert peer.recv(100) == b"welcome"


# Other people's programs


@pytest.mark.needs_program("socat")
def test_socat_connects(blob: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(blob)
    with listening("--insecure", "--echo") as listener, source.open("rb") as given:
        command = ["socat", "-t", "20", "-", f"TCP:127.0.0.1:{listener.port}"]
        done = subprocess.run(command, stdin=given, capture_output=True, timeout=SECONDS)
        listener.finish()
    assert done.stdout == blob


@pytest.mark.needs_program("socat")
def test_socat_listens(blob: bytes, free_port: int) -> None:
    command = ["socat", "-t", "20", f"TCP-LISTEN:{free_port},bind=127.0.0.1,reuseaddr", "EXEC:cat"]
    with subprocess.Popen(command) as server:
        try:
            done = until_accepted(lambda: neatpy("connect", "127.0.0.1", free_port, "--insecure", data=blob))
        finally:
            server.kill()
    assert (done.returncode, done.stdout == blob) == (0, True), told(done)


@pytest.mark.needs_program("openssl")
def test_openssl_connects(authority: dict[str, Path]) -> None:
    with listening("--cert", authority["cert"], "--key", authority["key"]) as listener:
        command: list[str | Path] = [
            "openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", authority["root"],
            "-servername", "localhost", "-connect", f"127.0.0.1:{listener.port}",
        ]  # fmt: skip
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            assert listener.process.stdin is not None
            assert listener.process.stdout is not None
            client.stdin.write(b"hello from openssl")
            client.stdin.flush()
            assert listener.process.stdout.read(18) == b"hello from openssl"
            listener.process.stdin.write(b"hello from neatpy")
            listener.process.stdin.flush()
            assert client.stdout.read(17) == b"hello from neatpy"
            client.kill()


@pytest.mark.needs_program("openssl")
def test_openssl_listens(authority: dict[str, Path], blob: bytes, free_port: int, tmp_path: Path) -> None:
    command: list[str | Path] = [
        "openssl", "s_server", "-quiet", "-cert", authority["cert"], "-key", authority["key"],
        "-accept", f"127.0.0.1:{free_port}", "-naccept", "1",
    ]  # fmt: skip
    received = tmp_path / "received"
    with (
        received.open("wb") as sink,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sink, stderr=subprocess.DEVNULL) as server,
    ):
        try:
            done = until_accepted(
                lambda: neatpy("connect", "localhost", free_port, "--ca", authority["root"], data=blob)
            )
            assert done.returncode == 0, told(done)
            server.wait(SECONDS)
        finally:
            server.kill()
    assert received.read_bytes() == blob


def until_accepted(
    run: Callable[[], subprocess.CompletedProcess[bytes]],
) -> subprocess.CompletedProcess[bytes]:
    """Run it until a server that has just been started accepts."""
    deadline = time.monotonic() + SECONDS
    while True:
        done = run()
        if b"refused" not in done.stderr or time.monotonic() > deadline:
            return done
