"""`make component` writes a component that compiles, is documented, and has a test that passes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.scaffold import write_component

ROOT = Path(__file__).resolve().parents[2]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_scaffolded_component_is_whole_and_its_test_passes(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "components", tmp_path / "components")
    (tmp_path / "kascade").symlink_to(ROOT / "kascade")
    (tmp_path / "tests" / "pipelines").mkdir(parents=True)
    made = python(tmp_path, "-m", "components.scaffold", "shrink")
    assert made.returncode == 0, made.stderr
    assert "pipelines/steps.py" in made.stdout
    folder = tmp_path / "components" / "shrink"
    assert {"component.py", "__init__.py", "metadata.yaml", "README.md"} <= {p.name for p in folder.iterdir()}
    assert yaml.safe_load((folder / "metadata.yaml").read_text())["name"] == "shrink"
    assert python(tmp_path, "-m", "components.document", "--check").returncode == 0
    tried = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/pipelines")
    assert tried.returncode == 0, tried.stdout
    again = python(tmp_path, "-m", "components.scaffold", "shrink")
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


@pytest.mark.parametrize("name", ["Shrink", "2fast", "class", "a-b", ""])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        write_component(name, tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []
