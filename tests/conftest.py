"""What tests share: both event loops where asked for, ports on loopback, and skips that say what is missing.

- ``@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])``, on a test or as a module's ``pytestmark``, runs on
  each of these loops; without it, tests run on asyncio's.
- ``@pytest.mark.needs_root`` and ``@pytest.mark.needs_program("nginx", "openssl")`` skip with the reason.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import settings

# Time limits for one example measure the machine; CI draws the same examples each time.
settings.register_profile("neatpy", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("neatpy")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops that a test can name; one that names none gets asyncio's."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    marker = item.get_closest_marker("asyncio")
    if marker is not None and marker.kwargs.get("loop_factories") and importlib.util.find_spec("uvloop"):
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this host cannot run, and say why."""
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        pytest.skip("needs the rights of root")
    wanted = [name for marker in item.iter_markers("needs_program") for name in marker.args]
    missing = [name for name in wanted if program(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: not installed")


def program(name: str) -> str | None:
    """Where a program is, looking also where system programs are that an ordinary user's PATH leaves out."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A TCP port of 127.0.0.1 that refuses: it is bound, so that nobody else gets it, but not listened on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        yield port


@pytest.fixture
def free_port() -> int:
    """A port number that was free for TCP and UDP on 127.0.0.1 a moment ago, for programs that must be told one."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
