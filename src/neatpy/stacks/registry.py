"""Finds the protocol stacks: every module of this package, and every entry point of the group ``neatpy.stacks``.

A stack module defines one or more subclasses of :class:`~neatpy.stacks.contract.Stack` that have a ``name`` of their
own; an entry point names a module that does so. Adding a protocol is therefore one module, here or in another package.
Nothing is loaded before a stack is first asked for, and of ours, whose modules are called as their topmost protocol,
only those that are asked for by name. What cannot be loaded becomes an unavailable stack with the reason, never an
ImportError. This room knows no stack by name.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
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
_PACKAGE = __name__.rpartition(".")[0]
_GROUP = "neatpy.stacks"


class Stacks(Mapping[str, "Stack"]):
    """Stacks by name, each made once, in the order of their names: also those that are unavailable here.

    Asked for one of ours by its name, it loads nothing but that one and those below; whatever else is asked, all.
    """

    __slots__ = ("_all", "_by_module", "_by_name")

    def __init__(self) -> None:
        self._all: Mapping[str, Stack] | None = None
        self._by_module: dict[str, tuple[Stack, ...]] = {}
        self._by_name: dict[str, Stack] = {}

    def __getitem__(self, name: str) -> Stack:
        known = self._by_name.get(name)
        if known is None:
            known = self._by_name[name] = self._ours(name) or self._loaded()[name]
        return known

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def _loaded(self) -> Mapping[str, Stack]:
        if self._all is None:
            # Ours come last: no other package replaces them.
            modules = (*_entry_point_modules(), *_own_modules())
            found = {stack.name: stack for module in modules for stack in self._made(module)}
            for stack in found.values():
                lower = _below(stack.name)
                if lower in found:
                    stack.lower = found[lower]
            self._all = dict(sorted(found.items()))
        return self._all

    def _ours(self, name: str) -> Stack | None:
        """The stack of that name, from the module of this package that has the same name."""
        module = f"{_PACKAGE}.{name.partition('/')[0]}"
        if module not in _own_modules():
            return None
        for stack in self._made(module):
            if stack.name == name:
                lower = _below(name)
                if lower:
                    stack.lower = self.get(lower)
                return stack
        return None

    def _made(self, module: str) -> tuple[Stack, ...]:
        made = self._by_module.get(module)
        if made is None:
            made = self._by_module[module] = _stacks_in(module)
        return made


class StackRegistry:
    """The stacks of this process."""

    __slots__ = ("_stacks",)

    def __init__(self) -> None:
        self._stacks = Stacks()

    def stacks(self) -> Mapping[str, Stack]:
        """All stacks by name, also those that are unavailable here; the same object until ``forget``."""
        return self._stacks

    def forget(self) -> None:
        """Look for stacks anew next time: a module or an entry point has been added."""
        self._stacks = Stacks()


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


def _below(name: str) -> str:
    """The name of the stack that a layered one of this name is over; empty if it is not layered."""
    return name.partition("/")[2]


def _stacks_in(module_name: str) -> tuple[Stack, ...]:
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a foreign module raises, the other stacks live
        return (UnavailableStack(module_name.rpartition(".")[2], error),)
    return tuple(stack_class() for stack_class in _stack_classes(module))


def _own_modules() -> list[str]:
    names: set[str] = set()
    for directory in sys.modules[_PACKAGE].__path__:
        for entry in os.listdir(directory):
            name = entry.partition(".")[0]
            if not name.startswith("_") and name not in _NOT_STACKS and entry != name + ".pyi":
                names.add(name)
    return [f"{_PACKAGE}.{name}" for name in sorted(names)]


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
