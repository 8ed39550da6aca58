"""``neatpy stacks``: the protocol stacks of this host, what each provides, and why some are not there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table
from rich.text import Text

from neatpy.cli.console import out, say

if TYPE_CHECKING:
    from neatpy.stacks.contract import Stack


class _Row(NamedTuple):
    name: str
    reason: str
    """Why it is unavailable; empty if it is available."""
    secure: bool
    always: tuple[str, ...]
    on_request: tuple[str, ...]


def show_stacks() -> None:
    """Print a table on a terminal, a block for each stack elsewhere."""
    rows = [_row(stack) for stack in _stacks()]
    console = out()
    if not console.is_terminal:
        for row in rows:
            say(console, _as_text(row))
        return
    table = Table(title="Protocol stacks")
    for heading in ("stack", "available", "secure", "always has", "has on request"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(
            Text(row.name, "bold" if not row.reason else "dim"),
            Text("yes", "green") if not row.reason else Text(f"no: {row.reason}", "red"),
            "yes" if row.secure else "no",
            "\n".join(row.always),
            "\n".join(row.on_request),
        )
    console.print(table)


def _as_text(row: _Row) -> str:
    lines = [f"{row.name}: {'unavailable: ' + row.reason if row.reason else 'available'}"]
    lines.append(f"  secure: {'yes' if row.secure else 'no'}")
    if row.always:
        lines.append(f"  always has: {', '.join(row.always)}")
    if row.on_request:
        lines.append(f"  has on request: {', '.join(row.on_request)}")
    return "\n".join(lines)


def _row(stack: Stack) -> _Row:
    found = stack.available()
    provided = {name: provision.value for name, provision in stack.features.selection.items()}
    return _Row(
        stack.name,
        "" if found.available else found.reason,
        stack.features.secure,
        tuple(name for name, provision in provided.items() if provision == "intrinsic"),
        tuple(name for name, provision in provided.items() if provision == "optional"),
    )


def _stacks() -> Iterable[Stack]:
    """All stacks, best first. The one place where the command line looks below the public API."""
    from neatpy.stacks.registry import stacks

    return sorted(stacks().values(), key=lambda stack: (stack.features.rank, stack.name))
