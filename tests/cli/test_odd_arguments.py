"""Arguments that name nothing, cannot be a name, or hold a secret: every verb says so, and none breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kascade.cli import app
from kascade.errors import holds_secret, redact
from kascade.models.load import BUILTIN_ROOT
from kascade.recipe.load import load_recipe

SECRET = "hunter2"
VERBS = [  # where the path goes: @
    ("resume", "@"), ("report", "@"), ("explain", "@", "sft"), ("ui", "@"), ("gc", "@"),
    ("compare", "@", "@"), ("grade", "--run", "@"), ("grade", "@", "--environment", "mcqa"),
    ("promote", "@"), ("verify", "@"),
    ("chat", "@"), ("serve", "@"), ("data", "check", "@"), ("plan", "quickstart", "--run", "@"),
    ("approve", "@"), ("reject", "@"), ("sign", "@"), ("check", "@"), ("run", "@", "--out", "o"),
    ("check", "quickstart", "--out", "@"), ("run", "quickstart", "--out", "@"), ("compile", "@"),
    ("init", "--model", "@"), ("upload", "@", "s3://bucket/x"), ("rollback", "@"), ("champion", "@"),
    ("lab", "recovery", "@"), ("lab", "@"),
]  # fmt: skip
ODD = {
    "missing": "nothere",
    "empty": "",
    "too long for a name": "x" * 300,
    "too long for a path": "x/" * 3000,
    "a circle of links": "circle",
    "a secret": f"http://u:{SECRET}@h/x",
}


def kascade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb[:2]))
def test_every_verb_refuses_an_argument_that_names_nothing(
    verb: tuple[str, ...], odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if odd == "missing" and "--out" in verb and verb[-1] == "@":
        pytest.skip("a new folder's name")
    monkeypatch.chdir(tmp_path)
    Path("circle").symlink_to("circle")
    done = kascade(*(ODD[odd] if word == "@" else word for word in verb))
    assert isinstance(done.exception, SystemExit) and done.exit_code == 2, (done.exception, done.stderr)
    assert SECRET not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


def test_an_empty_argument_is_told_to_programs_too() -> None:
    done = kascade("report", "", "--json")
    assert (done.exit_code, json.loads(done.stdout)["faults"][0]["what"]) == (2, "an argument is empty")


def test_a_secret_is_seen_where_a_path_has_eaten_a_slash() -> None:
    for scheme in ("http", "https", "s3", "postgresql+psycopg2"):
        address = str(Path(f"{scheme}://u:{SECRET}@h/x"))
        assert holds_secret(address) and SECRET not in redact(f"{address}: not there")
    for path in ("runs/a:/b@c", "/mnt/c:/x", "hf:/squad@main", "https:/host/x"):
        assert redact(path) == path


@pytest.mark.parametrize("preset", [True, False])
def test_init_names_a_model_as_seen_from_the_new_file(
    preset: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").symlink_to(BUILTIN_ROOT / "mini-nemotron-h")
    Path("recipes").mkdir()
    rows = [{"prompt": f"{n}?", "expected_answer": str(n)} for n in range(60)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = () if preset else ("--rl", "math_with_judge=rows.jsonl")
    done = kascade("init", "--model", "mine", *own, "-o", "recipes/own.yaml")
    assert done.exit_code == 0, done.stderr
    source = load_recipe(str(tmp_path / "recipes" / "own.yaml")).model.source
    assert Path(source).resolve() == (BUILTIN_ROOT / "mini-nemotron-h").resolve()


def test_rows_and_numbers_that_nobody_means_are_refused(tmp_path: Path) -> None:
    done = kascade("check", "quickstart", "--data", "mcqa")
    assert done.exit_code == 2 and "mcqa is not there, or is no folder" in done.stderr
    assert "ENVIRONMENT=PATH" in done.stderr
    for setting in ("sft.data=[{environment: mcqa, count: 1000000000}]", "benchmarks.math.tasks=1000000000"):
        done = kascade("check", "quickstart", "--set", setting)
        assert done.exit_code == 2 and "10,000,000" in done.stderr.replace("10000000", "10,000,000"), (
            done.stderr
        )


def test_what_does_not_exist_is_said_in_good_english() -> None:
    done = kascade("check", "quickstart", "--set", "sft.parent=sft")
    assert "there is no earlier stage" in done.stderr


def test_one_error_of_many_rows_is_told_once_with_what_the_rows_hold(tmp_path: Path) -> None:
    (tmp_path / "sums.csv").write_text("Question;Solution\n" + "1+1?;2\n" * 40)
    done = kascade("data", "check", tmp_path / "sums.csv", "--environment", "math_with_judge")
    text = " ".join((done.stdout + done.stderr).split())
    assert "expected_answer: is missing; the row holds Question, Solution" in text
    assert "the same in 37 more places" in text and "40 errors" in text
    assert text.count("is missing; the row") == 4
