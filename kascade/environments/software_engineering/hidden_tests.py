"""Tests that decide over a repository of several files and never enter it: calls made from outside.

The files are imported from memory in the sandbox for single programs; what each call returns comes back and
is compared here. So there is nothing that a repair could change but what its functions return.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kascade.environments.code.unit_tests import UnitTests

# Imports from FILES (path → text); `call` is what the tests call.
IMPORTER = """
import importlib.abc, importlib.machinery, importlib.util, sys
class FromMemory(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, files):
        self.files = files
    def find_spec(self, name, path=None, target=None):
        base = name.replace(".", "/")
        for file, package in ((base + "/__init__.py", True), (base + ".py", False)):
            if file in self.files:
                spec = importlib.machinery.ModuleSpec(name, self, origin=file, is_package=package)
                spec.loader_state = file
                return spec
        return None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        file = module.__spec__.loader_state
        module.__file__ = file
        exec(compile(self.files[file], file, "exec"), module.__dict__)
sys.meta_path.insert(0, FromMemory({files}))
"""
CALL = """
def call(module, function, arguments):
    return getattr(importlib.import_module(module), function)(*arguments)
"""
FUNCTION = "call"


def program_of(files: Mapping[str, str]) -> str:
    """A program in which `call(module, function, arguments)` calls a function of the repository."""
    return _importer(files) + CALL


def program_beside(source: str, others: Mapping[str, str]) -> str:
    """A program of its own that can import other files."""
    return (
        f"{_importer(others)}\nexec(compile({source!r}, '<program>', 'exec', dont_inherit=True), globals())\n"
    )


def _importer(files: Mapping[str, str]) -> str:
    python = {path: text.lstrip("\ufeff") for path, text in files.items() if path.endswith(".py")}
    return IMPORTER.replace("{files}", repr(python))


def suite_of(
    tests: Mapping[str, Any], names: Sequence[str], limits: Mapping[str, int] | None = None
) -> UnitTests:
    """The named tests, under limits named as in `unit_tests` of rows.

    Raises ValueError for a test that is not there or not as it should be.
    """
    inputs, outputs = [], []
    for name in names:
        test = tests.get(name)
        if not isinstance(test, Mapping) or not isinstance(test.get("arguments"), list):
            raise ValueError(f"tests.{name}: {{module, function, arguments, output}} is needed")
        if not isinstance(test.get("module"), str) or not isinstance(test.get("function"), str):
            raise ValueError(f"tests.{name}: module and function must be named")
        given = (test["module"], test["function"], test["arguments"])
        inputs.append("\n".join(map(json.dumps, given)))
        outputs.append(json.dumps(test.get("output")))
    suite = {"fn_name": FUNCTION, **(limits or {}), "inputs": inputs, "outputs": outputs}
    return UnitTests.parse(suite)
