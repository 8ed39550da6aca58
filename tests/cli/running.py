"""``neatpy`` run as a process, and the peers that the tests give it."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

from api.loopback import available

NEATPY = [sys.executable, "-m", "neatpy"]
MEBIBYTE = 1024 * 1024
SECONDS = 30
RELIABLE = available("sctp", "tcp")
SECURE = available("quic", "sctp/dtls/udp", "tls/tcp")
STREAM = available("quic", "tls/tcp")[0]
"""Where reliable data go without security on this host, best first."""


def neatpy(*arguments: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with this standard input."""
    return subprocess.run([*NEATPY, *map(str, arguments)], input=data, capture_output=True, timeout=SECONDS)


def told(done: subprocess.CompletedProcess[bytes]) -> str:
    """What it said on stderr, in one line whatever the width of the page."""
    return re.sub(r"[\s│╭╰─╮╯]+", " ", done.stderr.decode())


class Listening:
    """A running ``neatpy listen``: its port, and what it says on stderr."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[str] = []
        assert process.stderr is not None
        self.lines.append(process.stderr.readline().decode())
        if "Listening" in self.lines[0]:  # with --verbose
            self.lines.append(process.stderr.readline().decode())
        found = re.search(r"listening on 127\.0\.0\.1:(\d+) \((.*)\)", self.lines[-1])
        assert found, self.lines[-1] + process.stderr.read().decode()
        self.port = int(found[1])
        self.stacks = found[2]

    def finish(self, data: bytes = b"") -> bytes:
        """Give it its input and take what it received, once it has ended well."""
        output, errors = self.process.communicate(data, timeout=SECONDS)
        assert self.process.returncode == 0, errors.decode()
        return output


@contextlib.contextmanager
def listening(*arguments: object) -> Iterator[Listening]:
    """A Listener on a free port of 127.0.0.1; gone at the end."""
    command = [*NEATPY, "listen", "0", "--address", "127.0.0.1", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield Listening(process)
        finally:
            process.kill()


@contextlib.contextmanager
def plain_server(handle: Callable[[socket.socket], object]) -> Iterator[int]:
    """A plain socket server for one connection; the port. What its handler raises fails the test."""
    failures: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS)

        def serve() -> None:
            try:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(SECONDS)
                    handle(connection)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(SECONDS)
    assert not failures, failures
    assert not thread.is_alive()


def read_all(connection: socket.socket) -> bytes:
    """Everything to the end."""
    chunks = []
    while chunk := connection.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def listener_fed(listener: Listening, data: bytes) -> Iterator[list[bytes]]:
    """Give a Listener its input meanwhile; at the end the list has its output."""
    output: list[bytes] = []
    thread = threading.Thread(target=lambda: output.append(listener.finish(data)))
    thread.start()
    yield output
    thread.join(SECONDS)
