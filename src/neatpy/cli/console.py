"""What people read: colours and trees on a terminal, plain text everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from neatpy import Selection, TransportServicesError
from neatpy.trace import Event, subscribe

if TYPE_CHECKING:
    from neatpy.establishment.selection import SelectionNode


def out() -> Console:
    """The console on stdout."""
    return Console(file=sys.stdout, highlight=False)


def err() -> Console:
    """The console on stderr, for everything that is not data."""
    return Console(file=sys.stderr, highlight=False)


def say(console: Console, text: str, style: str = "") -> None:
    """Print text as it is: no markup; folded by a terminal alone."""
    console.print(Text(text, style), soft_wrap=not console.is_terminal)


def report(error: Exception, doing: str, hint: str | None = None) -> None:
    """Tell on stderr what failed, in one block with every attempt."""
    console = err()
    first, *rest = str(error).splitlines() or [type(error).__name__]
    say(console, f"neatpy: {doing}: {first}", "bold red")
    for line in rest:
        say(console, line)
    if hint is None and isinstance(error, TransportServicesError) and error.__cause__ is not None:
        cause = str(error.__cause__)
        hint = cause if cause and cause not in str(error) else None
    if hint:
        say(console, f"  {hint}", "dim")


_OPTIONS = {
    "SecurityParameters.disabled()": "--insecure",
    " server_certificate": "--cert FILE --key FILE, or --self-signed NAME, or --insecure",
    " client_certificate": "--cert FILE --key FILE",
    "trusted_certificates": "--ca FILE",
    "(no alpn that": "--alpn NAME",
}


def hint_for(error: TransportServicesError) -> str | None:
    """The option of ours that this failure asks for, where its text names the parameter of a program."""
    text = str(error)
    option = next((option for parameter, option in _OPTIONS.items() if parameter in text), None)
    return f"on the command line: {option}" if option else None


def show_selection(console: Console, selection: Selection) -> None:
    """The candidate tree with its reasons: drawn on a terminal, in the RFC's plain notation elsewhere."""
    if not console.is_terminal:
        say(console, str(selection))
        return
    if not selection.candidates:
        say(console, "no candidates", "bold red")
    for node in selection.tree:
        console.print(_branch(node, None))
    if selection.ruled_out:
        tree = Tree(Text("ruled out", "bold red"), guide_style="dim")
        for entry in selection.ruled_out:
            branch = tree.add(Text(str(entry.what), "red"))
            for reason in entry.reasons:
                branch.add(Text(reason, "dim"))
        console.print(tree)


def tell_events() -> Callable[[], None]:
    """Print every trace event on stderr, with the time since now; returns what ends that."""
    console = err()
    start = time.monotonic()

    def tell(event: Event) -> None:
        details = "  ".join(f"{name}={text}" for name, text in event.written().items())
        say(console, f"{(event.time - start) * 1000:9.1f} ms  {type(event).__name__}  {details}", "dim")

    return subscribe(tell)


def _branch(node: SelectionNode, parent: Tree | None) -> Tree:
    text = Text.assemble((node.label, "bold"), " [", (node.endpoint, "cyan"), f", {node.path}, ")
    text.append(node.protocol, "green")
    text.append("]")
    tree = Tree(text, guide_style="dim") if parent is None else parent.add(text)
    for reason in node.reasons:
        tree.add(Text(reason, "dim italic"))
    for child in node.children:
        _branch(child, tree)
    return tree
