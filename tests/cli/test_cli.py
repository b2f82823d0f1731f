"""The command line as a user meets it: messages, exit codes, nothing overwritten."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kascade.cli import app
from kascade.doctor.output import folder_faults
from kascade.models.load import BUILTIN_ROOT
from kascade.recipe.load import load_recipe
from kascade.recipe.run_recipe import keep_recipe
from kascade.storage.run_folder import RunFolder
from pipelines.process import folder_lock

ROOT = Path(__file__).parents[2]
MCQA_ROW = {
    "responses_create_params": {
        "input": [{"role": "user", "content": "Which letter comes first?\nA: a\nB: b"}]
    },
    "options": [{"A": "a"}, {"B": "b"}],
    "expected_answer": "A",
    "grading_mode": "strict_single_letter_boxed",
}


MCQA_ROWS = [
    {
        **MCQA_ROW,
        "responses_create_params": {"input": f"Which letter comes first, {number}?\nA: a\nB: b"},
        "reference": "\\boxed{A}",
    }
    for number in range(800)
]


def kascade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder of the user's own: the miniature, copied."""
    return Path(shutil.copytree(BUILTIN_ROOT / "mini-nemotron-h", tmp_path / "model"))


def write_rows(path: Path, *rows: dict[str, object] | str) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_check_accepts_a_preset_with_a_model_and_rows(tmp_path: Path, model: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", *MCQA_ROWS)
    result = kascade(
        "check", "quickstart", "--model", model, "--data", f"mcqa={rows}", "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    assert "no errors" in result.stdout
    assert not (tmp_path / "run").exists()


def test_check_names_faulty_options_of_environments_and_their_place(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    text = (ROOT / "recipes" / "quickstart.yaml").read_text()
    wrong = "{environment: math_with_judge, count: 640, options: {verify_seconds: -1}}"
    text = text.replace("{environment: math_with_judge, count: 640}", wrong, 1)
    nonsense = "{environment: mcqa, count: 640, options: {nonsense: 1}}"
    recipe.write_text(text.replace("{environment: mcqa, count: 640}", nonsense, 1))
    result = kascade("check", recipe, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert (
        "stages.0.data.0.source: options.verify_seconds: -1: Input should be greater than 0" in result.stderr
    )
    assert "options.nonsense: mcqa has no such option (allowed: regex_seconds)" in result.stderr
    assert f"{recipe}:{text[: text.index(wrong)].count(chr(10)) + 1} " in result.stderr
    assert "2 errors" in result.stderr


def test_check_names_what_needs_a_judge_that_is_not_there(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    text = (ROOT / "recipes" / "quickstart.yaml").read_text()
    repair = "{environment: swerl_gen, count: 640, options: {reward: judge}}"
    stage = text.index("name: swe_rl")
    text = text[:stage] + re.sub(r"\{environment: swerl_gen[^}]*\}", repair, text[stage:], count=1)
    recipe.write_text(text)
    result = kascade("check", recipe, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "source: swerl_gen asks a judge, and the recipe names none" in result.stderr
    recipe.write_text(f'{text}\njudge: {{url: "http://judge:8000/v1", model: judge}}\n')
    assert kascade("check", recipe, "--out", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("verb", ["check", "plan", "compile"])
def test_faulty_recipes_exit_2_and_name_place_and_remedy(tmp_path: Path, verb: str) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("preset: quickstart\noverrides: {if_rl: {stpes: 3}}\n")
    result = kascade(verb, recipe)
    assert result.exit_code == 2
    assert f"{recipe}:2 overrides.if_rl.stpes: unknown key 'stpes'" in result.stderr
    assert "did you mean 'steps'?" in result.stderr
    assert result.stdout == ""


def test_faults_as_json(tmp_path: Path) -> None:
    result = kascade("check", tmp_path / "none.yaml", "--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert found["error"] == "UserError"
    assert found["faults"][0]["what"] == "no such file"


def test_plan_as_text_and_json() -> None:
    text = kascade("plan", "nemotron-cascade-2")
    assert text.exit_code == 0
    assert "rlhf_teacher (side)" in text.stdout
    plan = json.loads(kascade("plan", "quickstart", "--json").stdout)
    assert [stage["name"] for stage in plan["stages"]][:2] == ["sft", "if_rl"]


def test_init_writes_a_recipe_that_loads_and_never_overwrites(tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    assert kascade("init", "quickstart", "--out", out).exit_code == 0
    assert load_recipe(out).stages == load_recipe("quickstart").stages
    out.write_text("mine")
    result = kascade("init", "quikstart", "--out", out)
    assert result.exit_code == 2
    assert "2 errors" in result.stderr
    assert out.read_text() == "mine"


def test_schema_and_version() -> None:
    assert "PresetFile" in json.loads(kascade("schema").stdout)["$defs"]
    assert json.loads(kascade("version", "--json").stdout)["version"]


@pytest.mark.parametrize("verb", [("nope",), ("run",), ("plan", "quickstart", "--sed", "3")])
def test_unknown_verbs_and_options_exit_2(verb: tuple[str, ...]) -> None:
    assert kascade(*verb).exit_code == 2


def test_rows_at_fault_are_named_by_file_and_line(tmp_path: Path, model: Path) -> None:
    bad = {**MCQA_ROW, "responses_create_params": {"input": []}}
    rows = write_rows(tmp_path / "rows.jsonl", MCQA_ROW, "{not json", bad)
    result = kascade("check", "quickstart", "--model", model, "--data", f"mcqa={rows}")
    assert result.exit_code == 2
    assert f"{rows}:2" in result.stderr
    assert f"{rows}:3" in result.stderr


def test_missing_rows_and_a_model_without_tokenizer_are_told_together(tmp_path: Path, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    result = kascade("check", "quickstart", "--model", model, "--data", f"mcqa={tmp_path / 'none.jsonl'}")
    assert result.exit_code == 2
    assert "has no tokenizer" in result.stderr
    assert "none.jsonl does not exist" in result.stderr


def test_run_refuses_a_folder_of_other_things(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("years of work")
    before = snapshot(tmp_path)
    result = kascade("run", "quickstart", "--model", model, "--out", out)
    assert result.exit_code == 2
    assert "not a Kascade run" in result.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("place", ["file", "below_a_file", "unwritable"])
def test_run_refuses_an_output_that_cannot_be_written(tmp_path: Path, model: Path, place: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    out = {"file": file, "below_a_file": file / "run", "unwritable": Path("/proc/kascade/run")}[place]
    result = kascade("run", "quickstart", "--model", model, "--out", out)
    assert result.exit_code == 2
    assert str(out) in result.stderr
    assert file.read_text() == "mine"


def test_a_run_folder_remembers_its_recipe_and_what_a_change_redoes(tmp_path: Path) -> None:
    first = load_recipe("quickstart")
    assert keep_recipe(RunFolder(tmp_path), first) is None
    assert load_recipe(RunFolder(tmp_path).resolved_recipe) == first
    assert keep_recipe(RunFolder(tmp_path), first) == {}
    changed = keep_recipe(RunFolder(tmp_path), load_recipe("quickstart", ["swe_rl.steps=1"]))
    assert changed == {"swe_rl": (f"steps: {first.stages[-1].steps} → 1",)}


def test_a_run_under_way_keeps_its_recipe(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "run"
    keep_recipe(RunFolder(out), load_recipe("quickstart"))
    with folder_lock(RunFolder(out).runner_lock):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        result = kascade("run", "quickstart", "--model", model, "--out", out, "--seed", "5")
    assert result.exit_code == 2
    assert "is using this folder" in result.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def begin_only(run: RunFolder) -> None:
    """What a kill between a run's lock and its recipe leaves, also within the writing of the recipe."""
    run.runner_lock.parent.mkdir(parents=True)
    run.runner_lock.write_text("4711")
    (run.root / ".recipe.resolved.json.ab_d3f9h").write_text("{")


def test_a_run_that_has_not_written_its_recipe_yet_is_one(tmp_path: Path, model: Path) -> None:
    run = RunFolder(tmp_path / "run")
    begin_only(run)
    assert folder_faults(run.root) == []
    with folder_lock(run.runner_lock):
        before = snapshot(tmp_path)
        second = kascade("run", "quickstart", "--model", model, "--out", run.root)
        resumed = kascade("resume", run.root)
        assert snapshot(tmp_path) == before
    assert second.exit_code == 2 and "is using this folder" in second.stderr
    assert resumed.exit_code == 2 and "has not written recipe.resolved.json yet" in resumed.stderr
    assert f"kascade run RECIPE --out {run.root}" in resumed.stderr


@pytest.mark.parametrize("other", ["chapter.tex", ".env.template", ".notes.md.ab_d3f9h", "lock"])
def test_a_folder_with_other_files_is_no_begun_run(tmp_path: Path, other: str) -> None:
    run = RunFolder(tmp_path / "run")
    begin_only(run)
    (run.root / other).write_text("years of work")
    assert "not a Kascade run" in str(folder_faults(run.root))
    assert [path.name for path in run.half_written()] == [".recipe.resolved.json.ab_d3f9h"]


@pytest.mark.parametrize("verb", [("resume",), ("report",), ("ui",), ("explain", "sft")])
def test_verbs_about_runs_refuse_other_folders(tmp_path: Path, verb: tuple[str, ...]) -> None:
    result = kascade(verb[0], tmp_path, *verb[1:])
    assert result.exit_code == 2
    assert "is not the folder of a run" in result.stderr


@pytest.mark.parametrize("verb", ["check", "plan", "schema"])
def test_light_verbs_import_nothing_heavy(verb: str, model: Path) -> None:
    arguments = {"check": ["quickstart", "--model", str(model)], "plan": ["quickstart"], "schema": []}[verb]
    program = (
        "import sys\nfrom kascade.cli import app\n"
        f"try: app({[verb, *arguments]!r})\n"
        "except SystemExit as error: assert error.code == 0, error.code\n"
        "heavy = {'torch', 'kfp', 'mlflow', 'transformers', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
