"""`kascade init` with a user's own model and rows writes a recipe that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_own_model_and_rows import tiny_qwen3
from typer.testing import CliRunner, Result

from kascade.cli import app
from kascade.recipe.load import load_recipe
from kascade.steps import steps
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder


def kascade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows(path: Path, made: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


def question(number: int) -> dict[str, object]:
    asked = {"input": f"Which is number {number}?\nA: red\nB: blue"}
    return {
        "responses_create_params": asked,
        "options": [{"A": "red"}, {"B": "blue"}],
        "expected_answer": "B",
    }


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Path]:
    said = [[("user", f"Say {n}."), ("assistant", f"{n}.")] for n in range(20)]
    turns = [{"messages": [{"role": role, "content": text} for role, text in one]} for one in said]
    return {
        "sft": rows(tmp_path / "sft.jsonl", turns),
        "rl": rows(tmp_path / "quiz.jsonl", [question(n) for n in range(40)]),
    }


@pytest.mark.slow
def test_the_recipe_that_init_writes_for_own_rows_trains(tmp_path: Path, own: dict[str, Path]) -> None:
    model, out = tiny_qwen3(tmp_path / "model"), tmp_path / "own.yaml"
    given = ("--model", model, "--sft", own["sft"], "--rl", f"mcqa={own['rl']}", "-o", out)
    written = kascade("init", *given)
    assert written.exit_code == 0, written.output
    assert (tmp_path / "recipe.schema.json").exists()
    assert kascade("check", out, "--deep").exit_code == 0
    small = ["sft.steps=1", "rl.steps=1", "rl.prompts_per_step=2", "rl.rollouts_per_prompt=2"]
    recipe = load_recipe(out, [*small, "rl.sampling.max_new_tokens=4"])
    assert recipe.model.source == str(model)
    folder = RunFolder(tmp_path / "run")
    write_text(folder.resolved_recipe, recipe.model_dump_json())
    base = steps.preflight(str(folder.root))
    tuned = steps.train(str(folder.root), "sft", base)
    assert steps.train(str(folder.root), "rl", tuned)


def test_a_base_model_without_a_chat_template_gets_one(tmp_path: Path, own: dict[str, Path]) -> None:
    model, out = tiny_qwen3(tmp_path / "model"), tmp_path / "own.yaml"
    given = ("--model", model, "--sft", own["sft"], "--rl", f"mcqa={own['rl']}", "-o", out)
    for name in ("chat_template.jinja", "chat_template.json"):
        (model / name).unlink(missing_ok=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    assert kascade("init", *given).exit_code == 0
    assert load_recipe(out).model.chat_template == "nemotron-cascade-2"
    checked = kascade("check", out)
    assert checked.exit_code == 0, checked.output


def test_init_sizes_stages_and_benchmarks_by_the_rows(tmp_path: Path, own: dict[str, Path]) -> None:
    out = tmp_path / "own.yaml"
    assert kascade("init", "--sft", own["sft"], "--rl", f"mcqa={own['rl']}", "-o", out).exit_code == 0
    recipe = load_recipe(out)
    sft, rl = recipe.stages
    assert (sft.kind, rl.kind) == ("sft", "multi_domain_rl")
    assert sft.steps == round(3 * 20 / 8)
    (exam,) = recipe.benchmarks
    assert 1 <= exam.tasks <= 10  # a tenth of forty rows, by hash
    assert exam.source.hold_out
    assert recipe.guard.weak_exams == "warn"


def test_rows_of_a_benchmark_of_its_own_are_all_asked(tmp_path: Path, own: dict[str, Path]) -> None:
    exam = rows(tmp_path / "exam.jsonl", [question(n) for n in range(100, 500)])
    out = tmp_path / "own.yaml"
    result = kascade("init", "--sft", own["sft"], "--exam", f"mcqa={exam}", "-o", out)
    assert result.exit_code == 0, result.output
    recipe = load_recipe(out)
    assert recipe.benchmarks[0].tasks == 400
    assert not recipe.benchmarks[0].source.hold_out
    assert recipe.guard.weak_exams == "refuse"


def test_rows_that_a_server_grades_name_it(tmp_path: Path, own: dict[str, Path]) -> None:
    """Rows of NeMo-Gym name their agent, which is no environment of ours."""
    named = {"agent_ref": {"type": "responses_api_agents", "name": "my_agent"}}
    mine = rows(tmp_path / "gym.jsonl", [{**question(n), **named} for n in range(40)])
    out, url = tmp_path / "gym.yaml", "http://127.0.0.1:8000"
    result = kascade("init", "--rl", f"nemo_gym={mine}", "--server", url, "-o", out)
    assert result.exit_code == 0, result.output
    recipe = load_recipe(out)
    sources = [recipe.stages[0].data[0].source, recipe.benchmarks[0].source]
    assert [one.options for one in sources] == [{"url": url}] * 2
    assert kascade("check", out).exit_code == 0
    out.write_text(out.read_text().replace(f', options: {{url: "{url}"}}', ""))
    without = kascade("check", out)
    assert without.exit_code == 2 and "give one of url, command, image, package" in without.stderr


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (("--sft", "{sft}"), "there is no benchmark"),
        (("--exam", "mcqa={rl}"), "there is nothing to train on"),
        (("--rl", "mcq={rl}"), "did you mean 'mcqa'?"),
        (("--rl", "{rl}"), "is not a pair"),
        (("--rl", "mcqa=none.jsonl"), "none.jsonl does not exist"),
        (("--rl", "code_gen={rl}"), "unit_tests: missing"),
        (("--rl", "nemo_gym={rl}"), "say where it listens"),
        (
            ("--rl", "mcqa={rl}", "--server", "http://gym:8000"),
            "no rows are of an environment behind a server",
        ),
    ],
)
def test_init_says_what_is_wrong_and_writes_nothing(
    tmp_path: Path, own: dict[str, Path], given: tuple[str, ...], what: str
) -> None:
    out = tmp_path / "own.yaml"
    result = kascade("init", *(one.format(**own) for one in given), "-o", out)
    assert result.exit_code == 2
    assert what in result.stderr
    assert not out.exists()
