"""Finds the protocol stacks: every module of this package, and every entry point of the group ``neatpy.stacks``.

A stack module defines one or more subclasses of :class:`~neatpy.stacks.contract.Stack` that have a ``name`` of their
own; an entry point names a module that does so. Adding a protocol is therefore one module, here or in another package.
Nothing is loaded before a stack is first asked for, and what cannot be loaded becomes an unavailable stack with the
reason, never an ImportError. This room knows no stack by name.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, NoReturn

from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks.contract import (
    Accepted,
    Availability,
    Candidate,
    FlowObserver,
    ListenRequest,
    Stack,
    StackListener,
)
from neatpy.stacks.features import Features

if TYPE_CHECKING:
    from neatpy.stacks.contract import Flow

_NOT_STACKS = frozenset({"__init__", "contract", "features", "registry"})
_GROUP = "neatpy.stacks"


class StackRegistry:
    """The stacks of this process by name, each made once, in the order of their names."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: Mapping[str, Stack] | None = None

    def stacks(self) -> Mapping[str, Stack]:
        """All stacks, also those that are unavailable here."""
        if self._by_name is None:
            self._by_name = MappingProxyType(_load())
        return self._by_name

    def forget(self) -> None:
        """Look for stacks anew next time: a module or an entry point has been added."""
        self._by_name = None


registry = StackRegistry()


def stacks() -> Mapping[str, Stack]:
    """All stacks of this process by name, also those that are unavailable here."""
    return registry.stacks()


class UnavailableStack(Stack):
    """Stands for a module that could not be imported: never selected, and says why."""

    features = Features(rank=1 << 30, selection={}, effects={})

    def __init__(self, name: str, error: Exception) -> None:
        self.name = name  # type: ignore[misc]  # each stands for another module
        self._reason = f"its module cannot be imported: {error}"

    def available(self) -> Availability:
        return Availability(False, self._reason)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        self._refuse()

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise EstablishmentError(f"{self.name} is unavailable: {self._reason}", Reason.NO_CANDIDATES)


def _load() -> dict[str, Stack]:
    found: dict[str, Stack] = {}
    for module_name in (*_own_modules(), *_entry_point_modules()):
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever a foreign module raises, the other stacks live
            short = module_name.rpartition(".")[2]
            found[short] = UnavailableStack(short, error)
            continue
        for stack_class in _stack_classes(module):
            stack = stack_class()
            found[stack.name] = stack
    for stack in found.values():
        _, layered, lower = stack.name.partition("/")
        if layered and lower in found:
            stack.lower = found[lower]
    return dict(sorted(found.items()))


def _own_modules() -> Iterator[str]:
    package = sys.modules[__name__.rpartition(".")[0]]
    names: set[str] = set()
    for directory in package.__path__:
        for entry in os.listdir(directory):
            name = entry.partition(".")[0]
            if not name.startswith("_") and name not in _NOT_STACKS and entry != name + ".pyi":
                names.add(name)
    for name in sorted(names):
        yield f"{package.__name__}.{name}"


def _entry_point_modules() -> Iterator[str]:
    if not _may_have_entry_points():
        return
    from importlib.metadata import entry_points

    for point in entry_points(group=_GROUP):
        yield point.module


def _may_have_entry_points() -> bool:
    """Whether some installed distribution names the group: a look at the files, since the full look costs every
    program 20 ms and nearly none has such a distribution."""
    needle = f"[{_GROUP}]".encode()
    for directory in sys.path:
        try:
            entries = os.listdir(directory or ".")
        except OSError:
            continue
        for entry in entries:
            if entry.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(directory, entry, "entry_points.txt"), "rb") as file:
                        if needle in file.read():
                            return True
                except OSError:
                    continue
    return False


def _stack_classes(module: ModuleType) -> Iterator[type[Stack]]:
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, Stack)
            and value.__module__.startswith(module.__name__)
            and isinstance(vars(value).get("name"), str)
        ):
            yield value
