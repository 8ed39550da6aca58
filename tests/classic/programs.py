"""Runs programs of 2020, each as a process of its own, and listens to what they print.

Whatever such a program has is here in its own process: ``from neatpy.classic import *``, the port (``PORT``), and
``client()`` and ``server()``, which make Preconnections for the stack that the test asks for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.loopback import available

PATIENCE = 30.0
"""Seconds after which a program that hangs is killed."""

SOURCES = Path(__file__).parents[2] / "src"
BOTH_STACKS = pytest.mark.parametrize(
    "stack",
    [
        "tcp",
        pytest.param("sctp", marks=pytest.mark.skipif(not available("sctp"), reason="needs sctp")),
    ],
)

PREAMBLE = """
import sys, time
from neatpy.classic import *
PORT, STACK = int(sys.argv[1]), sys.argv[2]
PROFILES = {
    "tcp": TransportPropertyProfiles.RELIABLE_INORDER_STREAM,
    "sctp": TransportPropertyProfiles.RELIABLE_MESSAGE,
    "udp": TransportPropertyProfiles.UNRELIABLE_DATAGRAM,
}
def say(*words):
    print(*words, flush=True)
def wanted():
    properties = TransportProperties(PROFILES[STACK])
    if STACK == "sctp":
        properties.require(SelectionProperties.MULTISTREAMING)  # with a framer, tcp would do as well
    return properties
def client(properties=None, **others):
    remote = RemoteEndpoint()
    remote.with_address("127.0.0.1")
    remote.with_port(PORT)
    return Preconnection(remote_endpoint=remote, transport_properties=properties or wanted(), **others)
def server(properties=None, **others):
    local = LocalEndpoint()
    local.with_address("127.0.0.1")
    local.with_port(PORT)
    return Preconnection(local_endpoint=local, transport_properties=properties or wanted(), **others)
def serve(preconnection, received):
    listener = preconnection.listen()
    listener.HANDLE_STATE_LISTENING = lambda: say("listening")
    listener.HANDLE_CONNECTION_RECEIVED = received
    preconnection.start()
"""

ECHO = """
def echo(connection, message, context, is_end, error):
    if error is None:
        connection.send(message.data)
        connection.receive(echo)
serve(server(), lambda connection: connection.receive(echo))
"""


class Program:
    """One process and what it says, line by line."""

    def __init__(self, source: str, port: int, stack: str = "tcp") -> None:
        environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-u", "-c", PREAMBLE + textwrap.dedent(source), str(port), stack],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._watchdog = threading.Timer(PATIENCE, self.process.kill)
        self._watchdog.start()

    def hears(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}: {self.process.communicate()[1]}"
        return line.rstrip("\n")

    def until(self, text: str) -> list[str]:
        """The lines up to the one that is this text."""
        lines = [self.hears()]
        while lines[-1] != text:
            lines.append(self.hears())
        return lines

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[list[str], str]:
        """Wait for its end, which is a good one; the lines that were not read yet, and its standard error."""
        said, complained = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, f"{self.process.returncode}: {said}{complained}"
        return said.splitlines(), complained

    def kill(self) -> None:
        """Have it gone, whatever it does."""
        self._watchdog.cancel()
        self.process.kill()
        self.process.communicate()


@contextmanager
def running(source: str, port: int, stack: str = "tcp", *, ends: bool = False) -> Iterator[Program]:
    """A server that has begun to listen. At the end it is interrupted, unless it ends by itself, and must end without
    complaint."""
    program = Program(source, port, stack)
    try:
        program.until("listening")
        yield program
        if not ends:
            program.interrupt()
        _, complained = program.end()
        assert complained == "", complained
    finally:
        program.kill()


def run(source: str, port: int, stack: str = "tcp") -> list[str]:
    """A program that ends by itself, without complaint; the lines it printed."""
    lines, complained = run_complaining(source, port, stack)
    assert complained == "", complained
    return lines


def run_complaining(source: str, port: int, stack: str = "tcp") -> tuple[list[str], str]:
    """A program that ends by itself; the lines it printed, and its standard error."""
    program = Program(source, port, stack)
    try:
        return program.end()
    finally:
        program.kill()
