"""Any model on a recipe's benchmarks: behind an API it gets the grades that its checkpoint gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from kascade.cli import app
from kascade.errors import UserError
from kascade.exams.anywhere import evaluate_anywhere
from kascade.exams.endpoint import Endpoint, answer_text
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Recipe
from kascade.results import compare_results, read_results
from kascade.serving.app import make_app
from kascade.serving.background import in_background
from kascade.serving.served import Served
from kascade.task import Called, Task

MODEL = "builtin://mini-nemotron-h"
SURE = {
    "temperature": 1e-3,
    "max_new_tokens": 96,
    "conversation": {"max_turns": 4},
}  # drawn by other random numbers, yet the same
BENCHMARKS = {
    "knowledge": {"environment": "mcqa"},
    "tools": {"environment": "workplace_assistant"},
    "sessions": {"environment": "ns_tools"},
}


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = {"kind": "sft", "name": "sft", "steps": 1, "data": [{"environment": "mcqa"}]}
    benchmarks = [
        {"name": name, "source": source, "tasks": 12, "samples": 1, "sampling": SURE}
        for name, source in BENCHMARKS.items()
    ]
    recipe = {"kascade": 1, "name": "any", "model": MODEL, "stages": [stage], "benchmarks": benchmarks}
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "guard": {"weak_exams": "warn"}}))
    return path


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file))


@pytest.fixture(scope="module")
def address() -> Any:
    with in_background(make_app(Served.load(MODEL), default_tokens=96)) as url:
        yield f"{url}/v1"


@pytest.mark.slow
def test_an_api_is_graded_as_its_checkpoint(address: str, recipe: Recipe) -> None:
    served, own = evaluate_anywhere(address, recipe), evaluate_anywhere(MODEL, recipe)
    for name in BENCHMARKS:
        assert served.benchmarks[name].rewards == own.benchmarks[name].rewards, name
    assert served.benchmarks["knowledge"].task_means() != {}
    assert sum(served.benchmarks["tools"].task_means().values()) > 0, "no call was read"
    rows = {row.benchmark: row for row in compare_results(served, own)}
    assert all(row.found.difference == 0 for row in rows.values())


def test_results_are_kept_for_comparing_and_never_overwritten(
    address: str, recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "served.jsonl"
    words = ["evaluate", address, "--recipe", str(recipe_file), "-b", "knowledge", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    kept = read_results(out).benchmarks["knowledge"]
    assert len(kept.rewards) == 12
    assert "there already" in CliRunner().invoke(app, words).output
    compared = CliRunner().invoke(app, ["compare", str(out), str(out), "--json"])
    assert json.loads(compared.output)[0]["found"]["difference"] == 0
    asked = CliRunner().invoke(app, ["compare", str(out), address])
    assert asked.exit_code == 2 and "--recipe" in asked.output


def test_an_address_that_does_not_serve_says_what_to_do(address: str, recipe: Recipe) -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        Endpoint.at("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="serves no model 'other'"):
        Endpoint.at(f"{address}#other")
    with pytest.raises(UserError, match="no chess"):
        evaluate_anywhere(address, recipe, names=["chess"])
    with pytest.raises(UserError, match="no NO_SUCH_KEY"):
        Endpoint.at(address, key_variable="NO_SUCH_KEY")


def test_thinking_and_calls_become_one_text() -> None:
    asked = {"role": "user", "content": "?"}
    task = Task("workplace_assistant", "tool_use", (asked,), {})  # type: ignore[arg-type]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    text = answer_text(task, {"content": "So.", "reasoning_content": "hm", "tool_calls": [call]})
    assert isinstance(text, Called) and text.words == "<think>hm</think>So."
    assert "<function=f>" in text and text.calls[0]["function"]["arguments"] == {"a": 1}
    thinking = Task("mcqa", "knowledge", (asked,), {}, thinking=True)  # type: ignore[arg-type]
    assert answer_text(thinking, {"content": "B"}) == "</think>B"
    assert answer_text(task, {"content": None, "tool_calls": [{"function": {"arguments": "{"}}]}) == ""
