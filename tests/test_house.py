"""The house holds: who may import whom, that nothing runs in circles, how long files get, what stays light.

The layers are read from docs/architecture.md, so that the page and this test cannot disagree.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOPS = ("kascade", "pipelines", "components")
FACADE = "kascade"  # `kascade.submit` reaches up on purpose: nothing below imports the bare package
LIGHT = (
    "kascade.cli",
    "kascade.commands",
    "kascade.recipe",
    "kascade.storage",
    "kascade.guard",
    "kascade.tracking",
    "kascade.sandbox",
    "pipelines",
)
HEAVY = ("torch", "transformers", "mlflow")
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_COMPONENT = 300, 50, 25  # as CONTRIBUTING.md says


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, Path]:
    """Every module of the product, by name."""
    return {module_name(path): path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))}


@cache
def layers() -> list[set[str]]:
    """The layers of docs/architecture.md, top to bottom: rooms of `kascade`, or top folders."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"```layers\n(.*?)```", page, re.DOTALL)
    assert block, "docs/architecture.md has no ```layers block"
    rows = [re.findall(r"[a-z_]+", line.split("#")[0]) for line in block[1].splitlines()]
    return [{name if name in TOPS else f"kascade.{name}" for name in row} for row in rows if row]


def room_of(module: str) -> str:
    """`kascade.rollout` for a module of the library, the top-level package for any other."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "kascade" else parts[0]


def layer_of(module: str) -> int | None:
    """The place of a module's room, counted from the top."""
    return next((place for place, row in enumerate(layers()) if room_of(module) in row), None)


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports: lazily and for types, too. Names of modules of ours are whole."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in sources() else node.module for name in names}
    return frozenset(found)


def graph() -> dict[str, set[str]]:
    """Module → modules of ours that it imports."""
    return {
        module: {target for target in imports(path) if target in sources() and target != module}
        for module, path in sources().items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other, by the reachability of each."""
    reach = {module: _reached(edges, module) for module in edges}
    tied = {m: sorted(other for other in reach[m] if m in reach[other]) for m in edges}
    return [list(group) for group in sorted({tuple(group) for group in tied.values() if group})]


def _reached(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += edges[module]
    return seen


def test_every_room_has_its_layer() -> None:
    homeless = sorted({room_of(m) for m in sources() if layer_of(m) is None} - {FACADE})
    assert not homeless, f"not in the layers of docs/architecture.md: {', '.join(homeless)}"
    rooms = {room_of(module) for module in sources()}
    gone = sorted(name for row in layers() for name in row if name not in rooms)
    assert not gone, f"docs/architecture.md names rooms that are not there: {', '.join(gone)}"
    named = Counter(name for row in layers() for name in row)
    assert max(named.values()) == 1, "docs/architecture.md names a room twice"


@pytest.mark.parametrize("module", sources())
def test_imports_point_downwards(module: str) -> None:
    if module == FACADE:
        return
    for target in graph()[module]:
        own, theirs = layer_of(module), layer_of(target)
        same = room_of(module) == room_of(target)
        assert same or (own is not None and theirs is not None and own < theirs), (
            f"{module} imports {target}, which is not below it"
        )


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(graph()) == []


def test_the_search_for_circles_finds_them() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}}
    assert circles(edges) == [["a", "b", "c"], ["e", "f"]]


def test_kascade_has_never_heard_of_kubeflow() -> None:
    knowing = {"kascade", "kascade.cli", "kascade.commands", "kascade.cluster"}
    for module, path in sources().items():
        if room_of(module) in knowing or not module.startswith("kascade"):
            continue
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"kfp", "pipelines", "components", "kubernetes"}, module


def test_the_sandbox_needs_the_standard_library_alone() -> None:
    for module, path in sources().items():
        if room_of(module) != "kascade.sandbox":
            continue
        foreign = {
            name
            for name in imports(path)
            if name.split(".")[0] not in sys.stdlib_module_names
            and not name.startswith("kascade.sandbox")
            and name != "kascade.errors"
        }
        assert not foreign, f"{module} imports {', '.join(sorted(foreign))}"


def test_only_the_registry_knows_one_kind_of_stage_from_another() -> None:
    """A training method is one entry of `recipe/methods.py`: nobody else asks what kind a stage is."""
    from kascade.recipe.methods import METHODS

    parts = {method.part.__name__ for method in METHODS.values()}
    for path in sources().values():
        if path == ROOT / "kascade" / "recipe" / "methods.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                named = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                stages = {name for name in named if name in parts or name.endswith("Stage")}
                assert not stages, f"{where} asks whether a stage is a {', '.join(stages)}"
            if isinstance(node, ast.Compare):
                sides = (node.left, *node.comparators)
                asked = any("kind" in ast.unparse(side) for side in sides)
                named = {
                    one.value for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)
                }
                kinds = named & METHODS.keys()
                assert not (asked and kinds), f"{where} compares a kind with {', '.join(kinds)}"


def test_every_method_has_what_its_entry_names() -> None:
    from kascade.recipe.methods import METHODS

    for method in METHODS.values():
        assert callable(method.load()), method.kind
        kinds = method.part.model_json_schema()["properties"]["kind"]
        assert method.kind in kinds.get("enum", [kinds.get("const")])


def test_the_name_of_a_public_class_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for module, path in sources().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of each function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def _benchmarks() -> dict[str, Path]:
    """They are no layer, but people read them."""
    return {module_name(path): path for path in sorted((ROOT / "benchmarks").rglob("*.py"))}


@pytest.mark.parametrize("module", sources() | _benchmarks())
def test_files_and_functions_stay_readable(module: str) -> None:
    path = (sources() | _benchmarks())[module]
    num_lines = path.read_text(encoding="utf-8").count("\n")
    assert num_lines <= LONGEST_FILE, f"{path} has {num_lines} lines, {LONGEST_FILE} are allowed"
    is_component = module.startswith("components.") and module.endswith(".component")
    longest = LONGEST_COMPONENT if is_component else LONGEST_FUNCTION
    for name, length in _functions(path):
        assert length <= longest, f"{path}: {name} has {length} lines, {longest} are allowed"


@pytest.mark.parametrize("room", LIGHT)
def test_no_module_of_a_light_room_loads_a_heavy_library(room: str) -> None:
    modules = [module for module in sources() if module == room or module.startswith(f"{room}.")]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [one for one in {HEAVY!r} if one in sys.modules]\n"
        "    assert not heavy, f'{name} loads {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]


def test_no_path_of_a_machine_and_no_host_is_committed() -> None:
    files = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    for name in files:
        path = ROOT / name
        if not path.is_file() or path == Path(__file__):
            continue
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue  # weights, pictures, databases
        for forbidden in (b"/work/", b"/opt/wheels", b"/root/"):
            assert forbidden not in data, f"{name} names {forbidden.decode()}"


def test_test_files_have_names_of_their_own() -> None:
    """But for `support`, test folders are no packages: pytest takes two files of one name for one module."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_test_edits_the_path_of_modules() -> None:
    """What tests share is in tests/support, which pytest finds by pyproject.toml."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert not ast.unparse(node.func).startswith("sys.path."), f"{path} edits sys.path"
