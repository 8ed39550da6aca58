"""Running standard programs as peers: their output goes to a file, and they are gone when the block ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from api.loopback import until
from conftest import program as path_of


class Program:
    """A running program and what it has said so far, on standard output and error alike."""

    def __init__(self, process: subprocess.Popen[bytes], log: str) -> None:
        self._process = process
        self._log = log

    @property
    def output(self) -> str:
        """Everything that it has said."""
        with open(self._log, encoding="utf-8", errors="replace") as log:
            return log.read()

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    async def says(self, pattern: str, seconds: float = 5) -> re.Match[str]:
        """Wait until it has said something that this regular expression finds."""
        found: list[re.Match[str]] = []

        def heard() -> bool:
            match = re.search(pattern, self.output)
            if match:
                found.append(match)
            assert match or not self.ended, f"it ended after it had said\n{self.output}"
            return bool(match)

        try:
            await until(heard, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it did not say {pattern!r} but\n{self.output}") from None
        return found[0]

    async def listens(self, port: int, host: str = "127.0.0.1") -> None:
        """Wait until it accepts connections."""

        def reachable() -> bool:
            assert not self.ended, f"it ended after it had said\n{self.output}"
            with socket.socket() as probe:
                return probe.connect_ex((host, port)) == 0

        await until(reachable)

    async def ends(self, seconds: float = 5) -> int:
        """Wait until it has ended; gives its exit status."""
        await until(lambda: self.ended, seconds)
        return self._process.returncode

    def types(self, text: bytes) -> None:
        """Give it input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text)

    def kill(self) -> None:
        """End it at once; the kernel closes its connections."""
        self._process.kill()

    def hangs_up(self) -> None:
        """Let it read the end of its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()


@asynccontextmanager
async def running(*command: str, prefix: Sequence[str] = ()) -> AsyncIterator[Program]:
    """Run this program, after a prefix such as ``ip netns exec``, until the end of the block."""
    executable = path_of(command[0])
    assert executable is not None, f"{command[0]} is not installed"
    descriptor, log = tempfile.mkstemp(prefix=f"{os.path.basename(command[0])}-", suffix=".log")
    process = subprocess.Popen(
        [*prefix, executable, *command[1:]],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=descriptor,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    os.close(descriptor)
    try:
        yield Program(process, log)
    finally:
        # Its children too: some programs fork for each connection.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        os.unlink(log)
