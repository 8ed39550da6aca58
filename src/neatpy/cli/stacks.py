"""``neatpy stacks``: the protocol stacks of this host, what each provides, and why some are not there."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from neatpy import StackDescription, available_stacks
from neatpy.cli.console import out, say


def show_stacks() -> None:
    """Print a table on a terminal, a block for each stack elsewhere."""
    rows = available_stacks()
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
            Text(row.name, "bold" if row.available else "dim"),
            Text("yes", "green") if row.available else Text(f"no: {row.reason}", "red"),
            "yes" if row.secure else "no",
            "\n".join(row.intrinsic),
            "\n".join(row.optional),
        )
    console.print(table)


def _as_text(row: StackDescription) -> str:
    lines = [f"{row.name}: {'available' if row.available else 'unavailable: ' + row.reason}"]
    lines.append(f"  secure: {'yes' if row.secure else 'no'}")
    if row.intrinsic:
        lines.append(f"  always has: {', '.join(row.intrinsic)}")
    if row.optional:
        lines.append(f"  has on request: {', '.join(row.optional)}")
    return "\n".join(lines)
