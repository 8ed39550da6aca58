"""The command line as its users run it: as processes, against each other."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cli.running import (
    MEBIBYTE,
    NEATPY,
    RELIABLE,
    SECONDS,
    SECURE,
    STREAM,
    listener_fed,
    listening,
    neatpy,
    plain_server,
    read_all,
    told,
)

# connect


def test_a_mebibyte_goes_out_whole_and_another_comes_back_after_the_half_close(blob: bytes) -> None:
    received = []

    def handle(connection: socket.socket) -> None:
        received.append(read_all(connection))
        connection.sendall(blob[::-1])

    with plain_server(handle) as port:
        done = neatpy("connect", "127.0.0.1", port, "--insecure", data=blob)
    assert done.returncode == 0, done.stderr
    assert received == [blob]
    assert done.stdout == blob[::-1]
    assert done.stderr == b""


def test_files_are_read_and_written_like_pipes(tmp_path: Path, blob: bytes) -> None:
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(blob)
    with (
        plain_server(lambda connection: connection.sendall(read_all(connection))) as port,
        source.open("rb") as given,
        sink.open("wb") as taken,
    ):
        command = [*NEATPY, "connect", "127.0.0.1", str(port), "--insecure"]
        assert subprocess.run(command, stdin=given, stdout=taken, timeout=SECONDS).returncode == 0
    assert sink.read_bytes() == blob


def test_the_rest_of_the_input_is_sent_although_the_peer_is_done(blob: bytes) -> None:
    received = []

    def handle(connection: socket.socket) -> None:
        connection.sendall(b"nothing more from me")
        connection.shutdown(socket.SHUT_WR)
        received.append(read_all(connection))

    with plain_server(handle) as port:
        done = neatpy("connect", "127.0.0.1", port, "--insecure", data=blob)
    assert (done.returncode, done.stdout, received) == (0, b"nothing more from me", [blob])


def test_an_input_that_never_ends_is_given_up_after_the_wait() -> None:
    with plain_server(lambda connection: connection.sendall(b"data")) as port:
        command = [*NEATPY, "connect", "127.0.0.1", str(port), "--insecure", "--wait", "0.1"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read() == b"data"
            assert process.wait(SECONDS) == 0


def test_a_peer_that_is_silent_for_ever_is_given_up_after_the_wait() -> None:
    gone = threading.Event()
    with plain_server(lambda connection: gone.wait(SECONDS)) as port:
        done = neatpy("connect", "127.0.0.1", port, "--insecure", "--wait", "0.1", data=b"hello")
        gone.set()
    assert done.returncode == 0, told(done)


def test_what_is_typed_leaves_at_once_and_the_end_of_the_peer_is_the_end() -> None:
    def handle(connection: socket.socket) -> None:
        assert connection.recv(100) == b"hello\n"
        connection.sendall(b"goodbye")

    ours, theirs = pty.openpty()
    with plain_server(handle) as port, open(ours, "r+b", buffering=0) as terminal:
        command = [*NEATPY, "connect", "127.0.0.1", str(port), "--insecure"]
        with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE) as process:
            os.close(theirs)
            terminal.write(b"hello\n")
            output, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, output) == (0, b"goodbye")


def test_a_refused_port_is_an_error_that_names_the_attempt(refused_port: int) -> None:
    done = neatpy("connect", "127.0.0.1", refused_port, "--insecure")
    assert done.returncode == 1
    assert f"could not connect to 127.0.0.1 port {refused_port}" in told(done)
    for place, stack in enumerate(RELIABLE, 1):
        assert re.search(
            rf"1\.{place}\.1 \[127\.0\.0\.1:{refused_port}, any, {stack}\]: \S+ \S+ Connection refused",
            told(done),
        )
    assert "Traceback" not in told(done)


def test_an_unknown_host_is_an_error_that_names_it() -> None:
    done = neatpy("connect", "nobody.invalid", "80", "--insecure")
    assert done.returncode == 1
    assert "nobody.invalid" in told(done)


def test_a_peer_that_never_answers_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it speaks no TLS, nor anything else
        done = neatpy("connect", "127.0.0.1", silent.getsockname()[1], "--timeout", "0.2")
    assert done.returncode == 1
    assert "could not connect" in told(done)


def test_a_peer_that_resets_the_connection_is_an_error() -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with plain_server(handle) as port:
        done = neatpy("connect", "127.0.0.1", port, "--insecure", data=b"hello")
    assert done.returncode == 1
    assert "the connection failed" in told(done)


def test_wishes_that_no_stack_fulfils_are_answered_with_every_reason() -> None:
    done = neatpy(
        "connect", "127.0.0.1", "9", "--require", "preserve_msg_boundaries", "--require", "zero_rtt_msg"
    )
    assert done.returncode == 1
    assert " tcp: it is not secure; it does not provide preserve_msg_boundaries, which is required" in told(
        done
    )
    assert " quic: it does not provide preserve_msg_boundaries, which is required" in told(done)


def test_datagrams_are_secure_unless_told_otherwise() -> None:
    done = neatpy("connect", "127.0.0.1", "9", "--profile", "unreliable-datagram")
    assert done.returncode == 1
    assert "dtls/udp]: [Errno 111] nobody listens on that UDP port" in told(done)


def test_explain_before_connecting_goes_to_stderr() -> None:
    with plain_server(lambda connection: connection.sendall(b"data")) as port:
        done = neatpy("connect", "127.0.0.1", port, "--insecure", "--explain")
    assert (done.returncode, done.stdout) == (0, b"data")
    for place, stack in enumerate(RELIABLE, 1):
        assert f"1.{place}.1 [127.0.0.1:{port}, any, {stack}]" in told(done)
    assert "ruled out" in told(done)


def test_verbose_tells_of_every_step_but_never_the_data() -> None:
    with plain_server(lambda connection: connection.sendall(b"secret")) as port:
        done = neatpy("connect", "127.0.0.1", port, "--insecure", "--verbose")
    for event in ("CandidateStarted", "CandidateWon", "Ready", "DataReceived", "PeerFinished", "Closed"):
        assert event in told(done)
    assert "secret" not in told(done)


def test_an_output_that_nobody_reads_ends_it_without_a_word() -> None:
    def handle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(bytes(MEBIBYTE))

    with plain_server(handle) as port:
        command = [*NEATPY, "connect", "127.0.0.1", str(port), "--insecure"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.read(10) == bytes(10)
            process.stdout.close()
            process.stdin.close()
            assert process.wait(SECONDS) == 1
            assert process.stderr is not None
            assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--require", "speed"], "no property 'speed'"),
        (["--set", "conn_timeout"], "NAME=VALUE"),
        (["--set", "conn_timeout=soon"], "conn_timeout takes"),
        (["--insecure", "--opportunistic"], "contradict"),
        (["--insecure", "--alpn", "h2"], "security is disabled"),
        (["--key", __file__], "--key needs --cert"),
        (["--cert", __file__], "no certificate in PEM"),
        (["--timeout", "0"], "more than 0 seconds"),
        (["--framer", "morse"], "morse"),
    ],
)
def test_a_wrong_command_line_is_told_so(options: list[str], complaint: str) -> None:
    done = neatpy("connect", "localhost", "1", *options)
    assert done.returncode == 2
    assert complaint in told(done)


# listen, and both


def test_connect_and_listen_swap_a_mebibyte_each(blob: bytes) -> None:
    with listening("--insecure") as listener, listener_fed(listener, blob[::-1]) as output:
        done = neatpy("connect", "127.0.0.1", listener.port, "--insecure", data=blob)
    assert (done.returncode, done.stdout) == (0, blob[::-1])
    assert output == [blob]


def test_a_self_signed_certificate_is_trusted_by_who_was_given_it(tmp_path: Path, blob: bytes) -> None:
    saved = tmp_path / "saved.pem"
    with listening("--self-signed", "localhost", "--save-cert", saved, "--echo") as listener:
        assert b"PRIVATE KEY" not in saved.read_bytes()
        done = neatpy("connect", "localhost", listener.port, "--ca", saved, "--verbose", data=blob)
        assert (done.returncode, done.stdout == blob) == (0, True), told(done)
        assert any(f"stack={stack}" in told(done) for stack in SECURE), told(done)
        listener.finish()


def test_a_stranger_is_not_trusted_and_nothing_falls_back(authority: dict[str, Path]) -> None:
    with listening("--self-signed", "localhost", "--echo", "--keep") as listener:
        for options in ([], ["--ca", authority["root"]], ["--pin", authority["cert"]]):
            done = neatpy("connect", "localhost", listener.port, *options, data=b"hello")
            assert (done.returncode, done.stdout) == (1, b"")
            assert "certificate" in told(done)


def test_a_pinned_certificate_and_an_application_protocol_will_do(authority: dict[str, Path]) -> None:
    with listening(
        "--cert", authority["cert"], "--key", authority["key"], "--alpn", "x", "--echo"
    ) as listener:
        done = neatpy(
            "connect", "localhost", listener.port, "--pin", authority["cert"], "--alpn", "x", data=b"hello"
        )
        assert (done.returncode, done.stdout) == (0, b"hello"), told(done)


def test_an_untrusted_server_is_answered_with_the_option_that_trusts_it(authority: dict[str, Path]) -> None:
    with listening("--cert", authority["cert"], "--key", authority["key"], "--keep") as listener:
        done = neatpy("connect", "localhost", listener.port)
    assert done.returncode == 1
    assert "on the command line: --ca FILE" in told(done)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("connect", "localhost", "1"), ("--ca",)),
        (("connect", "localhost", "1"), ("--pin",)),
        (("listen", "0"), ("--cert",)),
        (("listen", "0"), ("--self-signed",)),
    ],
)
def test_what_is_wrong_with_the_value_of_an_option_is_told_with_its_name(
    command: tuple[str, ...], options: tuple[str, ...], tmp_path: Path
) -> None:
    broken = tmp_path / "broken pem"
    broken.write_bytes(b"garbage")
    done = neatpy(*command, *options, broken)
    assert done.returncode == 2
    assert f"{options[0]}: " in told(done)


def test_a_verbose_listener_tells_of_a_client_that_it_refuses() -> None:
    with listening("--verbose", "--self-signed", "localhost", "--keep") as listener:
        neatpy("connect", "localhost", listener.port, "--insecure", data=b"hello")
        assert listener.process.stderr is not None
        told = listener.process.stderr.readline().decode()
    assert re.search(r"ms  CandidateFailed  stack=tls/tcp  remote=127\.0\.0\.1:\d+  error=.*speak TLS", told)


def test_a_listener_with_roots_wants_a_certificate_of_the_client(authority: dict[str, Path]) -> None:
    own = ["--cert", authority["cert"], "--key", authority["key"]]
    with listening(*own, "--ca", authority["root"], "--echo", "--keep") as listener:
        anonymous = neatpy("connect", "localhost", listener.port, "--ca", authority["root"], data=b"hello")
        known = neatpy("connect", "localhost", listener.port, "--ca", authority["root"], *own, data=b"hello")
    assert (anonymous.returncode, anonymous.stdout) == (1, b"")
    assert (known.returncode, known.stdout) == (0, b"hello"), told(known)


def test_opportunistic_security_takes_what_the_peer_has() -> None:
    with listening("--opportunistic", "--echo", "--keep") as listener:
        secure = neatpy("connect", "localhost", listener.port, "--opportunistic", "-v", data=b"hello")
        plain = neatpy("connect", "localhost", listener.port, "--insecure", "-v", data=b"hello")
        bytes_only = ["--insecure", "--prohibit", "preserve_msg_boundaries"]
        plainest = neatpy("connect", "localhost", listener.port, *bytes_only, "-v", data=b"hello")
    for done in (secure, plain, plainest):
        assert done.stdout == b"hello", told(done)
    assert any(f"stack={stack}" in told(secure) for stack in SECURE), told(secure)
    assert f"stack={RELIABLE[0]}" in told(plain)
    assert "stack=tcp" in told(plainest)


@pytest.mark.parametrize("framer", ["length", "tlv", "line"])
def test_framed_data_come_back_as_they_went(framer: str, blob: bytes) -> None:
    data = b"one\ntwo\n\nfour\n" if framer == "line" else blob
    options = ["--insecure", "--profile", "reliable-message", "--framer", framer]
    with listening(*options, "--echo") as listener:
        done = neatpy("connect", "127.0.0.1", listener.port, *options, data=data)
    assert (done.returncode, done.stdout == data) == (0, True), told(done)


def test_each_line_is_a_message_and_the_end_is_none() -> None:
    received = []
    with plain_server(lambda connection: received.append(read_all(connection))) as port:
        done = neatpy(
            "connect",
            "127.0.0.1",
            port,
            "--insecure",
            "--framer",
            "line",
            data=b"one\n\nthree, without an end",
        )
    assert done.returncode == 0, told(done)
    assert received == [b"one\n\nthree, without an end\n"]


def test_a_kept_listener_gives_its_output_to_one_connection_after_the_other() -> None:
    with listening("--insecure", "--keep") as listener:
        assert listener.process.stdin is not None
        assert listener.process.stdout is not None
        listener.process.stdin.close()
        for data in (b"first", b"second"):
            done = neatpy("connect", "127.0.0.1", listener.port, "--insecure", data=data)
            assert done.returncode == 0, told(done)
            assert listener.process.stdout.read(len(data)) == data


def test_an_echo_outlives_a_client_that_resets() -> None:
    with listening("--insecure", "--echo", "--keep") as listener:
        with socket.create_connection(("127.0.0.1", listener.port), SECONDS) as rude:
            rude.sendall(b"hello")
            assert rude.recv(5) == b"hello"
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        done = neatpy("connect", "127.0.0.1", listener.port, "--insecure", data=b"hello")
        assert (done.returncode, done.stdout) == (0, b"hello")
        listener.process.send_signal(signal.SIGINT)
        _, errors = listener.process.communicate(timeout=SECONDS)
    assert b"the connection failed" in errors
    assert b"Traceback" not in errors


def test_a_listener_without_a_certificate_says_how_to_get_one() -> None:
    done = neatpy("listen", "0")
    assert done.returncode == 1
    assert "--self-signed" in told(done)


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = neatpy("listen", taken.getsockname()[1], "--address", "127.0.0.1", "--insecure")
    assert done.returncode == 1
    assert "could not listen" in told(done)
    assert "in use" in told(done)


# explain, stacks, demo and the rest


def test_explain_prints_the_tree_with_its_reasons() -> None:
    done = neatpy(
        "explain",
        "127.0.0.1",
        "https",
        "--avoid",
        "per_msg_reliability",
        "--interface",
        "lo",
        "--set",
        "conn_timeout=5",
    )
    assert done.returncode == 0, told(done)
    text = done.stdout.decode()
    for place, stack in enumerate(SECURE, 1):
        assert f"1.{place}.1 [127.0.0.1:443, lo, {stack}]" in text
    assert "interface lo is required" in text
    assert "  tcp\n      it is not secure\n" in text


def test_explain_says_why_there_is_nothing_to_try() -> None:
    done = neatpy("explain", "127.0.0.1", "1", "--require", "multistreaming", "--prohibit", "reliability")
    assert done.returncode == 1
    assert "no candidates" in done.stdout.decode()
    assert "multistreaming" in done.stdout.decode()


def test_explain_draws_a_tree_on_a_terminal() -> None:
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "120"}
    command = [*NEATPY, "explain", "127.0.0.1", "1", "--insecure"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS)
    assert "└── " in done.stdout.decode()
    assert b"\x1b[" in done.stdout


def test_probe_draws_who_raced_and_who_won() -> None:
    with plain_server(lambda connection: connection.recv(1)) as port:
        done = neatpy("probe", "127.0.0.1", port, "--insecure")
    assert done.returncode == 0, told(done)
    text = done.stdout.decode()
    for stack in RELIABLE[:-1]:
        assert re.search(rf", {stack}\] +\| *=+ *\| .* ms, failed: ", text), text
    assert re.search(r", tcp\] +\| *=+ *\| .* ms, won", text), text


def test_probe_fails_where_nobody_answers() -> None:
    done = neatpy("probe", "127.0.0.1", "9", "--insecure")
    assert done.returncode == 1
    assert " ms, failed: " in done.stdout.decode()
    assert "no candidate for 127.0.0.1 port 9 was established" in told(done)


def test_stacks_tells_what_this_host_can_do() -> None:
    done = neatpy("stacks")
    assert done.returncode == 0, told(done)
    text = done.stdout.decode()
    assert "tcp: available\n  secure: no\n  always has: reliability" in text
    assert "tls/tcp: available\n  secure: yes" in text
    assert "udp: " in text
    assert f"sctp: {'available' if 'sctp' in RELIABLE else 'unavailable'}" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_the_demonstration_serves_everybody_in_under_five_seconds(terminal: bool) -> None:
    environment = {**os.environ, "COLUMNS": "120", **({"FORCE_COLOR": "1"} if terminal else {})}
    start = time.monotonic()
    done = subprocess.run([*NEATPY, "demo"], env=environment, capture_output=True, timeout=SECONDS)
    assert time.monotonic() - start < 5
    assert (done.returncode, done.stderr) == (0, b"")
    *_, last = done.stdout.decode().strip().splitlines()
    assert f"4 of 4 clients were served, over {STREAM}, {SECURE[0]}, tcp, udp" in last
    assert (b"\x1b[" in done.stdout) is terminal


def test_the_version_is_that_of_the_library() -> None:
    import neatpy as library

    assert neatpy("--version").stdout.decode() == f"neatpy {library.__version__}\n"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; import neatpy.cli; sys.exit(neatpy.cli.main())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=SECONDS)
    assert done.returncode == 2
    assert (
        done.stderr.decode()
        == f"neatpy: the command line needs {missing}: install NEATPy with its extra cli\n"
    )


def test_an_interrupt_ends_a_listener_without_a_traceback() -> None:
    with listening("--insecure", "--keep") as listener:
        listener.process.send_signal(signal.SIGINT)
        _, errors = listener.process.communicate(timeout=SECONDS)
    assert listener.process.returncode == 130
    assert b"Traceback" not in errors
