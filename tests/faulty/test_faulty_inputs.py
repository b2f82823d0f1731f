"""Rows and recipes with every kind of fault: each is refused by file, line and field, with a remedy.

The cases are in `row_cases` and `recipe_cases`. A child process runs them under limits of memory (1 GiB) and
CPU time (10 s), which the kernel holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import recipe_cases
import row_cases

HERE = Path(__file__).parent
FEWEST = 200  # cases of each


@pytest.mark.parametrize("kind", ["rows", "recipes"])
def test_every_faulty_input_is_refused_with_what_to_do(kind: str, tmp_path: Path) -> None:
    cases: list[Any] = row_cases.row_cases() if kind == "rows" else recipe_cases.recipe_cases()
    names = [case.name for case in cases]
    assert len(set(names)) == len(names) >= FEWEST
    found = _results(kind, tmp_path)
    faults = [f"{case.name}: {fault}" for case in cases if (fault := _fault(found[case.name], case.said))]
    assert not faults, "\n".join([f"{len(faults)} of {len(cases)} cases:", *faults])


def _results(kind: str, folder: Path) -> dict[str, dict[str, Any]]:
    report = folder / "report.json"
    inputs = folder / "inputs"
    inputs.mkdir()
    command = [sys.executable, str(HERE / "child.py"), kind, str(inputs), str(report)]
    root = str(HERE.parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, Any]] = json.loads(report.read_text())
    return found


def _fault(result: dict[str, Any], said: tuple[str, ...]) -> str:
    """What is wrong with the end of a case; empty where nothing is."""
    text = result["said"]
    if result["code"] != 2 or "Traceback" in text:
        return f"exit {result['code']}: {text[-500:]}"
    missing = [one for one in said if one.lower() not in text.lower()]
    if not any(one in text for one in recipe_cases.REMEDY):
        missing.append("a remedy")
    return f"does not name {missing}: {text[-500:]}" if missing else ""
