"""What the documentation shows runs as it stands, prints what it says, and names what exists.

Python blocks of a page are pasted in order into ``python -m asyncio``, as a reader would; a text block right behind one
is what it prints, where ``...`` stands for anything.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import neatpy
from api.loopback import available
from neatpy import (
    Certificate,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    framers,
    trace,
)
from neatpy.framers import LengthPrefixFramer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ("tutorial.rst", "howto.rst")
BLOCK = re.compile(r"^\.\. code-block:: (python|text)\n((?:   :.*\n)*)\n((?:(?:   .*)?\n)+)", re.MULTILINE)
MARK = "--- the next block"
CONSOLE_TIME = 60
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


needs_sctp = pytest.mark.skipif(
    not available("sctp/dtls/udp"),
    reason="needs sctp and DTLS: the pages show what a host prints that has it",
)


def console_takes_blocks() -> bool:
    """Whether this Python's console for asyncio takes more than single lines from a pipe; 3.13.0's does not."""
    block = "for number in range(2):\n    print(number)\n\n"
    console = [sys.executable, "-m", "asyncio"]
    return (
        "1"
        in subprocess.run(console, input=block, capture_output=True, text=True, timeout=CONSOLE_TIME).stdout
    )


class Block(NamedTuple):
    """A piece of Python, the line where it begins, and what it prints, if the page tells."""

    line: int
    source: str
    output: str | None


def blocks_of(text: str) -> Iterator[Block]:
    """The Python blocks of a page, each with its output."""
    found = list(BLOCK.finditer(text))
    for place, match in enumerate(found):
        if match[1] != "python":
            continue
        following = found[place + 1] if place + 1 < len(found) else None
        shown = None
        if following is not None and following[1] == "text" and not text[match.end() : following.start()]:
            shown = _undented(following[3])
        yield Block(text.count("\n", 0, match.start(3)) + 1, _undented(match[3]), shown)


def _undented(indented: str) -> str:
    return "".join(line[3:] or "\n" for line in indented.splitlines(keepends=True)).rstrip() + "\n"


def run_program(*command: str, path: str = "") -> str:
    """Run a whole program, and give what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT / "src"))))}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def agree(expected: str | None, printed: str) -> bool:
    """Whether this is what the page says; a page that says nothing is content with anything."""
    return expected is None or doctest.OutputChecker().check_output(
        expected, "\n".join(line.rstrip() for line in printed.splitlines()) + "\n", doctest.ELLIPSIS
    )


def typed_into_the_console(blocks: Sequence[Block], place: Path) -> list[str]:
    """What each block prints when all are pasted, one after the other, into ``python -m asyncio`` at this place."""
    lines = ["import sys", "sys.ps1 = sys.ps2 = ''", "sys.displayhook = lambda value: None"]
    for block in blocks:
        lines += [block.source, "", f"print({MARK!r})"]
    lines += ["print('left behind:', *map(repr, asyncio.all_tasks()))", ""]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "asyncio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=place,
    ) as console:
        watchdog = threading.Timer(CONSOLE_TIME, console.kill)
        watchdog.start()
        stdout, stderr = console.communicate("\n".join(lines))
        watchdog.cancel()
    _, _, said = stderr.partition(">>> import asyncio\n")  # the console's greeting
    assert said.strip() in ("", "exiting asyncio REPL..."), said
    *printed, rest = stdout.split(MARK + "\n")
    assert rest.strip(">. \n") == "left behind:", "a page ends what it began"
    printed[0] = printed[0].removeprefix(">>> ").removeprefix(">>> ")
    return printed


@needs_sctp
@pytest.mark.parametrize("page", PAGES)
def test_every_block_can_be_pasted_into_the_console_and_prints_what_the_page_says(
    page: str, tmp_path: Path
) -> None:
    if not console_takes_blocks():
        pytest.skip("this Python's console for asyncio takes no blocks from a pipe")
    blocks = list(blocks_of((DOCS / page).read_text()))
    for block, printed in zip(blocks, typed_into_the_console(blocks, tmp_path), strict=True):
        assert agree(block.output, printed), f"{page}:{block.line} prints\n{printed}"


def test_pages_have_blocks() -> None:
    for page in PAGES:
        assert len(list(blocks_of((DOCS / page).read_text()))) > 10


# README and first page


def fences(language: str) -> list[str]:
    """The blocks of the README in this language."""
    return [match[2] for match in FENCE.finditer((ROOT / "README.md").read_text()) if match[1] == language]


def first_block(page: str) -> str:
    return fences("python")[0] if page == "README.md" else next(blocks_of((DOCS / page).read_text())).source


@pytest.mark.parametrize("page", ["README.md", "index.rst"])
async def test_the_first_snippet_speaks_to_a_server_that_stands_in_for_example_com(
    page: str, tmp_path: Path
) -> None:
    certificate = Certificate.self_signed("localhost")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(certificate.certificate_chain)

    async def answer(connection: neatpy.Connection) -> None:
        await connection.receive(min_incomplete_length=1)
        await connection.send(b"HTTP/1.0 200 OK\r\n\r\n")

    server = Preconnection(
        LocalEndpoint(0, address="127.0.0.1", protocol="tls/tcp"),
        security=SecurityParameters(server_certificate=certificate),
    )
    async with server.listen() as listener:
        serving = asyncio.create_task(listener.serve(answer))
        source = first_block(page)
        stand_in = f'RemoteEndpoint("localhost", {listener.local_endpoints[0].port})'
        assert 'RemoteEndpoint("example.com", service="https")' in source
        source = source.replace('RemoteEndpoint("example.com", service="https")', stand_in)
        security = f"        security=neatpy.SecurityParameters(trusted_certificates={str(trusted)!r}),\n"
        source = source.replace("        properties=", security + "        properties=", 1)
        printed = await asyncio.to_thread(run_program, "-c", source)
        assert "tls/tcp" in printed
        assert "HTTP/1.0 200 OK" in printed
        await listener.stop()
        await serving


async def run_here(source: str) -> None:
    """Run a program on this loop."""
    source = source.replace("neatpy.run(main())", "await main()")
    code = compile(source, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    await eval(code, {"__name__": "__main__"})


async def test_the_server_of_the_readme_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    certificate = Certificate.self_signed("localhost")
    (tmp_path / "chain.pem").write_bytes(certificate.certificate_chain)
    (tmp_path / "key.pem").write_bytes(certificate.private_key)
    monkeypatch.chdir(tmp_path)
    source = fences("python")[1]
    assert "LocalEndpoint(4433)" in source
    source = source.replace("LocalEndpoint(4433)", f"LocalEndpoint({free_port})")
    listening = asyncio.Event()
    unsubscribe = trace.subscribe(
        lambda event: listening.set() if isinstance(event, trace.Listening) else None
    )
    serving = asyncio.create_task(run_here(source))
    try:
        await asyncio.wait_for(listening.wait(), 5)
        client = Preconnection(
            remote=RemoteEndpoint("localhost", free_port),
            security=SecurityParameters(trusted_certificates=certificate),
            framers=[LengthPrefixFramer()],
        )
        async with client.initiate(timeout=5) as connection:
            for size in (5, 5_000_000):  # the second one comes in parts
                connection.send(bytes(size))
                received, whole = 0, False
                while not whole:
                    part = await connection.receive(min_incomplete_length=1)
                    received, whole = received + len(part), part.end_of_message
                assert received == size
    finally:
        unsubscribe()
        serving.cancel()
        await asyncio.wait([serving])


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/evaluation.rst", "docs/command_line.rst"]
)
def test_commands_that_are_shown_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:\$ |`)make (?:\w+=\S+ )*(\w+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    application = pytest.importorskip("neatpy.cli.app").app
    commands = {command.callback.__name__ for command in application.registered_commands}
    assert set(re.findall(r"(?:[$|] |`)neatpy (\w+)", text)) <= commands


async def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    command = ("-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "doctrees"))
    await asyncio.to_thread(run_program, *command, str(DOCS), str(tmp_path / "html"))
    assert "preserve_msg_boundaries" in (tmp_path / "html" / "properties.html").read_text()


# Names and places


def test_the_reference_has_every_public_name() -> None:
    reference = (DOCS / "reference.rst").read_text()
    events = [
        name
        for name, value in vars(trace).items()
        if isinstance(value, type) and issubclass(value, trace.Event)
    ]
    for prefix, names in (
        ("neatpy", neatpy.__all__),
        ("neatpy.framers", framers.__all__),
        ("neatpy.trace", ["Event", "subscribe", "log_events", *events]),
    ):
        for name in names:
            assert re.search(rf"\b{re.escape(prefix)}\.{name}\b", reference), f"{prefix}.{name}"


def test_the_files_that_the_conformance_table_names_exist() -> None:
    named = set(re.findall(r"``(tests/[\w/]+\.py)``", (DOCS / "conformance.rst").read_text()))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_api_that_the_conformance_table_names_exists() -> None:
    places = {name.lower(): getattr(neatpy, name) for name in neatpy.__all__}
    text = (DOCS / "conformance.rst").read_text()
    for owner, name in re.findall(
        r"``(Preconnection|Connection|Listener|MessageContext|Message)\.(\w+)", text
    ):
        assert hasattr(places[owner.lower()], name) or name in _annotated(places[owner.lower()]), (
            f"{owner}.{name}"
        )


def _annotated(owner: Any) -> set[str]:
    return set(inspect.get_annotations(owner))


# The stack in a package of its own


@needs_sctp
def test_the_toy_package_adds_a_stack(tmp_path: Path) -> None:
    package = DOCS / "toy_stack"
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    installed = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = ["[neatpy.stacks]"]
    lines += [f"{name} = {module}" for name, module in project["entry-points"]["neatpy.stacks"].items()]
    (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")
    printed = run_program(
        str(package / "try_mailbox.py"), path=os.pathsep.join((str(tmp_path), str(package)))
    )
    howto = (DOCS / "howto.rst").read_text()
    shown = re.compile(r"^\.\. code-block:: text\n\n((?:   .*\n)+)", re.MULTILINE).search(
        howto, howto.index(":caption: try_mailbox.py")
    )
    assert shown is not None
    assert agree(_undented(shown[1]), printed), printed
