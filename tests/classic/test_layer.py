"""What the layer is: thin, over the public API alone, under all its old names, and documented."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import neatpy
from neatpy import classic

ROOT = Path(__file__).parents[2]
OLD_MODULES = {
    "preconnection": ("Preconnection", "Connection", "Listener", "MessageContext", "shim_print"),
    "endpoint": ("LocalEndpoint", "RemoteEndpoint"),
    "transport_properties": ("TransportProperties", "TransportPropertyProfiles", "SelectionProperties"),
    "selection_properties": ("SelectionProperties", "PreferenceLevel"),
    "connection_properties": ("ConnectionProperties", "TCPUserTimeout"),
    "message_properties": ("MessageProperties",),
    "enumerations": ("PreferenceLevel", "CapacityProfiles", "SupportedProtocolStacks", "ServiceLevel"),
    "framer": ("Framer", "ExampleFramer"),
    "security_parameters": ("SecurityParameters",),
    "connection": ("Connection", "ConnectionState", "SendErrorReason", "MessageDataObject"),
    "listener": ("Listener",),
    "message_context": ("MessageContext",),
    "utils": ("shim_print",),
}


@pytest.mark.parametrize("module", OLD_MODULES)
def test_the_old_modules_give_what_they_gave(module: str) -> None:
    names: dict[str, object] = {}
    exec(f"from neatpy.classic.{module} import *", names)
    for name in OLD_MODULES[module]:
        assert names[name] is getattr(classic, name)


def test_everything_comes_with_one_import_line() -> None:
    names: dict[str, object] = {}
    exec("from neatpy.classic import *", names)
    for module in OLD_MODULES.values():
        assert set(module) <= set(names)


def test_the_layer_stays_thin() -> None:
    statements = 0
    for file in (ROOT / "src" / "neatpy" / "classic").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            documentation = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            statements += isinstance(node, ast.stmt) and not documentation
    assert statements < 750


def test_the_contract_forbids_every_module_that_is_not_public() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if one.get("id") == "classic"]
    public = {"neatpy.classic", "neatpy.framers", "neatpy.trace", "neatpy.__main__"}
    modules = {f"neatpy.{module.name}" for module in pkgutil.iter_modules(neatpy.__path__)}
    assert modules - public == set(contract["forbidden_modules"])
    assert contract["source_modules"] == ["neatpy.classic"]


def test_the_page_on_it_has_every_name() -> None:
    page = (ROOT / "docs" / "classic.rst").read_text()
    assert [name for name in classic.__all__ if not re.search(rf"\b{name}\b", page)] == []
    for module in OLD_MODULES:
        assert re.search(rf"[`.]{module}\b", page), module


def test_nobody_pays_for_it_who_does_not_import_it() -> None:
    code = "import sys, neatpy; sys.exit('neatpy.classic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert importlib.import_module("neatpy.classic") is classic
