"""Tasks as forks: the same program, arguments and status as in a process started anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines import forked

SCRIPT = 'python3 -m kfp.dsl.executor_main --component_module_path "$0" "$@"'
SOURCE = """
import os, sys
from typing import *
def body(number: int) -> str:
    if number == 0:
        sys.exit(7)
    if number < 0:
        os.kill(os.getpid(), 9)
    return f"{number} {os.getppid()} {os.environ['WORD']}"
"""


def run(folder: Path, number: int) -> tuple[int, Path]:
    output = folder / "executor_output.json"
    given = {
        "inputs": {"parameterValues": {"number": number}},
        "outputs": {
            "parameters": {"Output": {"outputFile": str(folder / "Output")}},
            "outputFile": str(output),
        },
    }
    arguments = ["--executor_input", json.dumps(given), "--function_to_execute", "body"]
    return forked._run_forked(["sh", "-ec", SCRIPT, SOURCE, *arguments], {"WORD": "hello"}), output


def test_a_task_is_a_fork_of_this_process(tmp_path: Path) -> None:
    status, output = run(tmp_path, 3)
    assert status == 0
    assert json.loads(output.read_text())["parameterValues"]["Output"] == f"3 {os.getpid()} hello"
    assert "WORD" not in os.environ


@pytest.mark.parametrize(("number", "expected"), [(0, 7), (-1, -9)])
def test_its_end_is_told(tmp_path: Path, number: int, expected: int) -> None:
    status, output = run(tmp_path, number)
    assert status == expected and not output.exists()


@pytest.mark.parametrize("script", ["exit 3", "true executor_main; true pip install x; exit 3"])
def test_what_needs_a_shell_gets_one(script: str) -> None:
    assert forked._run_forked(["sh", "-ec", script, "source"]) == 3


def test_kfp_still_starts_tasks_through_the_function_that_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kfp.local import SubprocessRunner, subprocess_task_handler

    name = "run_local_subprocess"
    monkeypatch.setattr(subprocess_task_handler, name, getattr(subprocess_task_handler, name))
    forked.fork_tasks(["a_module_that_is_not_there"])
    monkeypatch.setattr(forked, "_fork", lambda source, arguments, env_vars: 42 if source == "source" else 1)
    command = ["sh", "-ec", SCRIPT, "source"]
    handler = subprocess_task_handler.SubprocessTaskHandler(
        "python", command, "", SubprocessRunner(use_venv=False)
    )
    assert handler.run().name == "FAILURE"  # 42 is not 0
    monkeypatch.setattr(forked, "_fork", lambda source, arguments, env_vars: 0)
    assert handler.run().name == "SUCCESS"
