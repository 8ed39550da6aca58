"""Network namespaces for tests: their own interfaces, routes, firewalls and host names, gone when the block ends.

What runs inside is a function of a test module, in a process of its own: ``await namespace.run(function, ...)`` calls
it with arguments that JSON can carry and gives what it returns. Its assertions and errors fail the test.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import neatpy

TIME = 20.0
"""Seconds that a function may take inside a namespace."""

NEAR_WIRES = {"veth-left": ("10.1.0.1", "fd00:1::1"), "veth-right": ("10.2.0.1", "fd00:2::1")}
FAR_WIRES = {"veth-left": ("10.1.0.2", "fd00:1::2"), "veth-right": ("10.2.0.2", "fd00:2::2")}
FAR = ("10.9.0.1", "fd00:9::1")
"""Addresses of the far namespace that both wires lead to; the left one is the system's choice."""

_TESTS = Path(__file__).resolve().parent.parent
_CONFIGURATION = Path("/etc/netns")
_numbers = itertools.count()


class NotPermitted(Exception):
    """This host lets nobody make network namespaces here."""


class Namespace:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = ("ip", "netns", "exec", name)
        self.restore: Callable[[], None] = lambda: None
        """Brings interfaces, addresses and routes back to how they were made: links that go down lose some."""

    def ip(self, *arguments: str) -> None:
        """``ip`` in this namespace. Raises AssertionError with what it complains of."""
        _ip("-n", self.name, *arguments)

    def execute(self, *command: str) -> str:
        """Run a program to its end; gives its output."""
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, timeout=TIME)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def drop(self, address: str) -> None:
        """From now on packets to this address vanish on arrival, without an answer."""
        self.execute(
            "ip6tables" if ":" in address else "iptables", "-A", "INPUT", "-d", address, "-j", "DROP"
        )

    def reject(self, address: str) -> None:
        """From now on packets to this address are answered by ICMP: host unreachable."""
        how = (
            ("ip6tables", "icmp6-addr-unreachable")
            if ":" in address
            else ("iptables", "icmp-host-unreachable")
        )
        self.execute(how[0], "-A", "INPUT", "-d", address, "-j", "REJECT", "--reject-with", how[1])

    def configure(self, **files: str) -> None:
        """Give it files of ``/etc`` of its own, such as ``hosts``; dots of a name are written as underscores."""
        directory = _CONFIGURATION / self.name
        directory.mkdir(parents=True, exist_ok=True)
        for name, contents in files.items():
            (directory / name.replace("_", ".")).write_text(contents)

    async def run(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Call a module's async function in a process inside."""
        paths = [
            str(_TESTS),
            str(Path(neatpy.__file__).resolve().parent.parent),
            os.environ.get("PYTHONPATH", ""),
        ]
        process = await asyncio.create_subprocess_exec(
            *self.prefix,
            *(sys.executable, "-W", "error", "-m", "interop.netns"),
            *(function.__module__, function.__name__, json.dumps(arguments)),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, complaints = await asyncio.wait_for(process.communicate(), TIME)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, complaints.decode()
        assert not complaints, complaints.decode()
        return json.loads(out)


class Link:
    """A near namespace, a far one, and the two wires ``veth-left`` and ``veth-right`` between them."""

    def __init__(self, near: Namespace, far: Namespace) -> None:
        self.near = near
        self.far = far


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace with a loopback interface. Raises NotPermitted."""
    name = f"neatpy-{os.getpid()}-{next(_numbers)}"
    try:
        _ip("netns", "add", name)
    except (AssertionError, OSError) as error:
        raise NotPermitted(f"no network namespace can be made here: {error}") from error
    try:
        made = Namespace(name)
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        with suppress(AssertionError):
            _ip("netns", "del", name)
        shutil.rmtree(_CONFIGURATION / name, ignore_errors=True)
        with suppress(OSError):
            _CONFIGURATION.rmdir()  # where nobody else has anything in it


@contextmanager
def linked() -> Iterator[Link]:
    """Two namespaces with two wires. Raises NotPermitted."""
    with namespace() as near, namespace() as far:
        for wire in NEAR_WIRES:
            near.ip("link", "add", wire, "type", "veth", "peer", "name", wire, "netns", far.name)
        for address in FAR:
            far.ip("address", "replace", address, "dev", "lo")

        def restore_far() -> None:
            _set_up_wires(far, FAR_WIRES)

        def restore_near() -> None:
            _set_up_wires(near, NEAR_WIRES)
            for metric, (wire, gateways) in enumerate(FAR_WIRES.items(), 100):
                for address, gateway in zip(FAR, gateways, strict=True):
                    near.ip("route", "replace", address, "via", gateway, "dev", wire, "metric", str(metric))

        near.restore, far.restore = restore_near, restore_far
        restore_far()
        restore_near()
        yield Link(near, far)


def _set_up_wires(side: Namespace, wires: Mapping[str, tuple[str, str]]) -> None:
    for wire, (v4, v6) in wires.items():
        side.ip("link", "set", wire, "up")
        side.ip("address", "replace", f"{v4}/24", "dev", wire)
        side.ip("address", "replace", f"{v6}/64", "dev", wire, "nodad")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=TIME)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


async def _called(module: str, function: str, arguments: str) -> Any:
    trouble: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    result = await getattr(importlib.import_module(module), function)(*json.loads(arguments))
    assert not trouble, trouble
    return result


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_called(*sys.argv[1:]))))
