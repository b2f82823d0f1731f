"""What a user sees of the command line: groups, examples, suggestions, and that nothing is overwritten."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from kascade.cli import GROUPS, app
from kascade.recipe.load import load_recipe
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.termination import TERMINATED
from kascade.tracking.mlflow_server import run_page
from kascade.version import __version__

ROW = {"prompt": "2 + 2?", "expected_answer": "4", "agent_ref": {"name": "math_with_judge"}}


def kascade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def verbs(command: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield above
        return
    for name, one in inner.items():
        yield from verbs(one, (*above, name))


VERBS = sorted(verbs(get_command(app)))


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_the_help_of_every_verb_has_an_example_of_that_verb(verb: tuple[str, ...]) -> None:
    shown = " ".join(kascade(*verb, "--help").stdout.split())
    assert f"Example: kascade {' '.join(verb)}" in shown


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_option_says_what_it_is_for(verb: tuple[str, ...]) -> None:
    command: Any = get_command(app)
    for name in verb:
        command = command.commands[name]
    silent = [one.name for one in command.params if not (getattr(one, "help", None) or one.name == "help")]
    assert silent == []


def test_help_lists_verbs_in_groups_and_cuts_nothing() -> None:
    shown = kascade("--help").stdout
    places = [shown.index(f"{title}:") for title in GROUPS]
    assert places == sorted(places)
    assert "..." not in shown.partition("Start:")[2]
    assert "  gc " not in shown
    assert kascade("gc", "-h").exit_code == 0


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_an_option_too(option: str) -> None:
    assert kascade(option).stdout.strip() == __version__


def test_usage_errors_are_json_where_json_is_asked_for() -> None:
    for arguments in (("rnu", "--json"), ("check", "--nope", "--json"), ("check", "--json")):
        result = kascade(*arguments)
        assert result.exit_code == 2
        assert json.loads(result.stdout)["error"] == "UsageError"


def test_compile_replaces_no_other_pipeline(tmp_path: Path) -> None:
    out = tmp_path / "pipeline.yaml"
    assert kascade("compile", "quickstart-short", "-o", out).exit_code == 0
    first = out.read_bytes()
    assert kascade("compile", "quickstart-short", "-o", out).exit_code == 0
    other = ("compile", "quickstart-short", "-s", "guard.recovery.rounds=1", "-o", out)
    refused = kascade(*other)
    assert (refused.exit_code, out.read_bytes()) == (2, first)
    assert "holds another pipeline" in refused.stderr
    assert kascade(*other, "--force").exit_code == 0
    assert out.read_bytes() != first
    assert list(tmp_path.iterdir()) == [out]


def test_one_error_in_many_rows_is_shown_a_few_times_and_counted(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(ROW) + "\n" for _ in range(30)))
    result = kascade("grade", rows)
    assert result.stderr.count("response") < 15
    assert "the same in 27 more places" in result.stderr
    assert "30 errors" in result.stderr


def test_mistyped_files_and_presets_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers.jsonl").write_text("{}\n")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert "did you mean 'quickstart'?" in kascade("data", "check", "quickstat").stderr
    assert "did you mean 'answers.jsonl'?" in kascade("data", "check", "anwers.jsonl").stderr
    assert "did you mean 'runs/mine'?" in kascade("watch", "mien").stderr
    assert "did you mean 'runs/mine'?" in kascade("report", "runs/mien").stderr


def test_watching_a_name_that_is_nowhere_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KASCADE_KFP_HOST", raising=False)
    assert "there is no such folder here" in kascade("watch", "nope").stderr


def test_data_check_takes_changes_of_a_recipe_and_not_of_rows(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROW) + "\n")
    assert (
        "change recipes, and these are rows" in kascade("data", "check", rows, "--set", "sft.steps=1").stderr
    )
    found = kascade("data", "check", "quickstart", "-d", f"math_with_judge={rows}", "--json")
    assert json.loads(found.stdout)[0]["path"] == str(rows)


def test_readme_names_every_verb() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Commands")[2].partition("## Read on")[0]
    named = {word.split()[0] for word in re.findall(r"`([a-z ]+)`", table)}
    assert named == set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    write_text(folder.resolved_recipe, load_recipe("quickstart-short").model_dump_json())
    return folder


def test_ui_says_that_a_port_is_taken_and_starts_nothing(run: RunFolder) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        result = kascade("ui", run.root, "--port", str(other.getsockname()[1]))
    assert result.exit_code == 2
    assert "another program uses this port" in result.stderr


def test_the_server_of_ui_ends_with_it(run: RunFolder) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "kascade.cli", "ui", str(run.root), "--port", port]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as ui:
        while not (started := psutil.Process(ui.pid).children(recursive=True)):
            assert ui.poll() is None
            time.sleep(0.1)
        ui.terminate()
        assert ui.wait() == TERMINATED
    assert [process for process in started if process.is_running()] == []


def test_ui_opens_the_page_of_the_run_itself(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = load_recipe("quickstart-short")
    assert run_page(run.root, recipe, "http://here:1") == "http://here:1"
    write_text(run.tracking_id, "abc\n")
    with sqlite3.connect(run.mlflow_database) as database:
        database.execute("CREATE TABLE runs (run_uuid, experiment_id)")
        database.execute("CREATE TABLE tags (key, value, run_uuid)")
        database.executemany("INSERT INTO runs VALUES (?, ?)", [("parent", 7), ("stage", 7)])
        database.executemany("INSERT INTO tags VALUES ('kascade.run', 'abc', ?)", [("stage",), ("parent",)])
        database.execute("INSERT INTO tags VALUES ('kascade.stage', 'sft', 'stage')")
    assert run_page(run.root, recipe, "http://here:1") == "http://here:1/#/experiments/7/runs/parent"
