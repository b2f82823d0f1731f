"""The house holds: who may import whom, how long files get, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Top to bottom; a package may import those below its own row, and itself.
ROWS = (
    ("kascade.cli",),
    ("kascade.commands",),
    ("pipelines",),
    ("components",),
    ("kascade.stages",),
    ("kascade.tracking",),  # makes MLflow and the report from what the guard wrote
    ("kascade.guard",),
    ("kascade.learning",),
    ("kascade.rollout",),
    ("kascade.environments", "kascade.models"),
    ("kascade.data",),
    ("kascade.storage", "kascade.recipe"),
)
# Words and types that every row may use.
FOUNDATION = (
    "kascade.errors",
    "kascade.clock",
    "kascade.environments.base",
    "kascade.environments.registry",
    "kascade.version",
)
WITHOUT_TORCH = (
    "kascade.cli",
    "kascade.recipe",
    "kascade.storage",
    "kascade.guard",
    "kascade.tracking",
    "pipelines.compile",
)
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_COMPONENT = 350, 70, 25


def sources() -> list[Path]:
    return [p for top in ("kascade", "pipelines", "components") for p in sorted((ROOT / top).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def row_of(module: str) -> int | None:
    for index, row in enumerate(ROWS):
        if any(module == package or module.startswith(package + ".") for package in row):
            return index
    return None


def package_of(module: str) -> str:
    """`kascade.rollout` for a module of the library, the top-level package for any other."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "kascade" else parts[0]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_downwards(path: Path) -> None:
    own = row_of(module_name(path))
    for target in imports(path):
        row = row_of(target)
        if own is None or row is None or target.startswith(FOUNDATION):
            continue
        allowed = row > own or package_of(module_name(path)) == package_of(target)
        assert allowed, f"{module_name(path)} imports {target}, which is not below it"


def test_kascade_has_never_heard_of_kubeflow() -> None:
    for path in (ROOT / "kascade").rglob("*.py"):
        names = {name.split(".")[0] for name in imports(path)}
        if path.name.startswith("cli") or path.parent.name in ("commands", "cluster"):
            continue
        assert not names & {"kfp", "pipelines", "components", "kubernetes"}, path


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE, f"{path.name} is longer than {LONGEST_FILE} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{path.name}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_light_parts_do_not_import_heavy_ones(module: str) -> None:
    code = (
        f"import {module}, sys; print([m for m in ('torch', 'transformers', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_no_path_of_a_machine_and_no_host_is_committed() -> None:
    files = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    for name in files:
        path = ROOT / name
        if path.suffix in {".safetensors", ".png"} or not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        for forbidden in ("/work/", "/opt/wheels", "/root/"):
            assert forbidden not in text, f"{name} names {forbidden}"


def test_test_files_have_names_of_their_own() -> None:
    """Test folders are no packages: pytest takes two files of one name for one module."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
