"""Tables of the documentation that are made from the tables of the code, so that they cannot disagree.

Directives, each with the kind of property as its argument: ``neatpy-properties`` declares the properties,
``neatpy-effects`` says what they do on each stack, ``neatpy-conformance`` on how many. Without an argument:
``neatpy-stacks`` lists the protocol stacks, ``neatpy-security-parameters`` the security parameters. ``neatpy-command``
says what a command does and takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from neatpy import SecurityParameters
from neatpy.cli.app import app as application
from neatpy.enumerations import Preference, PropertyKind
from neatpy.introspection import all_forms, without_effect
from neatpy.properties import PROPERTIES, Property, TransportProperties
from neatpy.security import PARAMETER_NAMES
from neatpy.stacks.contract import Stack
from neatpy.stacks.features import Provision

NOTHING = "\N{EM DASH}"
EVERYWHERE = "by the Connection itself, on every stack"


class PropertyTable(SphinxDirective):
    """Name, default, allowed values, section and meaning of each property of one kind."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        head = ("property", "RFC 9622", "kind", "default", "allowed", "section", "meaning")
        rows = (
            (
                f"``{row.name}``",
                f"``{row.rfc_name}``",
                row.kind.value,
                _default(row),
                "read-only" if row.read_only else row.allowed,
                row.section,
                row.doc,
            )
            for row in _of_kind(self.arguments[0])
        )
        return self.parse_text_to_nodes(_table(head, rows, (14, 14, 8, 10, 24, 6, 24)))


class EffectTable(SphinxDirective):
    """What each property of one kind does on each stack, or that it does nothing there."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        known = all_forms()
        head = ("property", *(f"``{name}``" for name, _ in known))
        rows = (
            (f"``{row.name}``", *(_effect(row, stack) for _, stack in known))
            for row in _of_kind(self.arguments[0])
            if _depends_on_the_stack(row)
        )
        return self.parse_text_to_nodes(_table(head, rows, (24, *(25 for _ in known))))


class ConformanceTable(SphinxDirective):
    """For each property of one kind, the stacks where it acts."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        head = ("property", "section", "acts on")
        rows = ((f"``{row.rfc_name}``", row.section, _acts_on(row)) for row in _of_kind(self.arguments[0]))
        return self.parse_text_to_nodes(_table(head, rows, (30, 12, 58)))


class StackTable(SphinxDirective):
    """The protocol stacks, in the order in which they are tried when everything else ties."""

    def run(self) -> list[nodes.Node]:
        head = ("stack", "secure", "boundaries", "handshake", "may duplicate", "rank")
        rows = (
            (
                f"``{name}``",
                _yes(stack.features.secure),
                _yes(stack.features.preserves_boundaries),
                _yes(stack.features.handshake),
                _yes(stack.features.may_duplicate),
                str(stack.features.rank),
            )
            for name, stack in all_forms()
        )
        return self.parse_text_to_nodes(_table(head, rows, (25, 15, 15, 15, 15, 15)))


class SecurityTable(SphinxDirective):
    """The security parameters and what they mean."""

    def run(self) -> list[nodes.Node]:
        rows = (
            (f"``{name}``", vars(SecurityParameters)[name].doc.replace("(section", "(RFC 9622 section"))
            for name in PARAMETER_NAMES
        )
        return self.parse_text_to_nodes(_table(("parameter", "meaning"), rows, (30, 70)))


class CommandTable(SphinxDirective):
    """What one command of ``neatpy`` does, its arguments and its options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        command = get_command(application).commands[self.arguments[0]]
        rows = (
            (", ".join(f"``{name}``" for name in _names(parameter)), parameter.help)
            for parameter in command.params
            if parameter.help
        )
        table = _table(("word", "meaning"), rows, (35, 65)) if command.params else ""
        return self.parse_text_to_nodes(f"{command.help}\n\n{table}")


def _names(parameter: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        return [parameter.metavar]
    return [name if parameter.is_flag else f"{name} {parameter.metavar}" for name in parameter.opts]


def _of_kind(kind: str) -> list[Property[Any]]:
    return [row for row in PROPERTIES.values() if row.kind is PropertyKind(kind)]


def _depends_on_the_stack(row: Property[Any]) -> bool:
    """Selection Properties that are no preference for a feature are not in the stacks' tables; what can only be read
    has no effect."""
    if row.kind is PropertyKind.SELECTION:
        return _is_feature(row)
    return not row.read_only


def _is_feature(row: Property[Any]) -> bool:
    return isinstance(row.default, Preference) or row.name == "use_temporary_local_address"


def _effect(row: Property[Any], stack: Stack) -> str:
    features = stack.features
    if row.kind is PropertyKind.SELECTION:
        provision = features.provides(row.name)
        return NOTHING if provision is Provision.NOT_PROVIDED else provision.value
    if row.name in features.effects:
        return features.effects[row.name]
    return NOTHING if row.name in without_effect(_with(row), stack) else EVERYWHERE


def _with(row: Property[Any]) -> TransportProperties:
    return TransportProperties().set(row.name, row.default)


def _acts_on(row: Property[Any]) -> str:
    if row.read_only:
        return "read-only: ``get_properties()`` tells it"
    if row.kind is PropertyKind.SELECTION and not _is_feature(row):
        return "not a feature of stacks: see below"
    effects = {name: _effect(row, stack) for name, stack in all_forms()}
    acting = [f"``{name}``" for name, effect in effects.items() if effect != NOTHING]
    if all(effect == EVERYWHERE for effect in effects.values()):
        return "every stack"
    return ", ".join(acting) or "no stack yet"


def _default(row: Property[Any]) -> str:
    value = row.default
    if row.read_only:
        return NOTHING
    if isinstance(value, Enum):
        return f"``{value.name}``"
    if value == math.inf:
        return "``math.inf``"
    if value == frozenset():
        return "empty"
    return f"``{value!r}``"


def _yes(value: bool) -> str:
    return "yes" if value else NOTHING


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> str:
    return "\n".join(
        (
            ".. list-table::",
            "   :header-rows: 1",
            f"   :widths: {' '.join(map(str, widths))}",
            "   :class: neatpy-table",
            "",
            *_lines(head),
            *(line for row in rows for line in _lines(row)),
            "",
        )
    )


def _lines(cells: Sequence[str]) -> Iterator[str]:
    for place, cell in enumerate(cells):
        yield f"     - {cell}" if place else f"   * - {cell}"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("neatpy-properties", PropertyTable)
    app.add_directive("neatpy-effects", EffectTable)
    app.add_directive("neatpy-conformance", ConformanceTable)
    app.add_directive("neatpy-stacks", StackTable)
    app.add_directive("neatpy-command", CommandTable)
    app.add_directive("neatpy-security-parameters", SecurityTable)
    return {"version": "1", "parallel_read_safe": True}
