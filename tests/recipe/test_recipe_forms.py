"""One set of forms for models, data and changes, in short and in full recipes, and errors at their line."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_for_tests import SMALL, write_recipe

from kascade.errors import UserError
from kascade.recipe.load import load_recipe, read_recipe
from kascade.recipe.schema import Recipe

FULL = """kascade: 1
name: own
model: {model}
stages:
  - {{kind: sft, name: sft, steps: 2, data: {data}}}
benchmarks:
  - {{name: quiz, source: {source}}}
"""
COLUMNS = "{path: rows.csv, columns: {question: q}}"


def full(
    folder: Path, *, model: str = "Org/M", data: str = "{mcqa: rows.jsonl}", source: str = "mcqa"
) -> Recipe:
    return load_recipe(write_recipe(folder, FULL.format(model=model, data=data, source=source)))


@pytest.mark.parametrize(
    "data",
    [
        "{mcqa: rows.jsonl}",
        "{mcqa: {path: rows.jsonl}}",
        "[{environment: mcqa, path: rows.jsonl}]",
        "[{source: {environment: mcqa, path: rows.jsonl}}]",
        "[{source: {mcqa: rows.jsonl}}]",
        "{source: {environment: mcqa, path: rows.jsonl}}",
        "{environment: mcqa, path: rows.jsonl}",
    ],
)
def test_every_way_to_write_the_data_of_a_stage_means_the_same(tmp_path: Path, data: str) -> None:
    (mix,) = full(tmp_path, data=data).stages[0].data
    assert (mix.source.environment, mix.source.path, mix.weight) == ("mcqa", str(tmp_path / "rows.jsonl"), 1)


def test_short_data_may_carry_weights_and_generated_tasks(tmp_path: Path) -> None:
    data = "[{environment: mcqa, path: rows.jsonl, weight: 3}, {environment: code_gen, count: 7}, lc_niah]"
    mixes = full(tmp_path, data=data).stages[0].data
    assert [(mix.source.environment, mix.weight) for mix in mixes] == [
        ("mcqa", 3),
        ("code_gen", 1),
        ("lc_niah", 1),
    ]
    assert [mix.source.count for mix in mixes][1] == 7


@pytest.mark.parametrize("model", ["./own", "{source: ./own}"])
def test_a_model_is_named_alike_in_full_recipes_overrides_and_settings(tmp_path: Path, model: str) -> None:
    (tmp_path / "own").mkdir()
    assert full(tmp_path, model=model).model.source == str(tmp_path / "own")
    short = write_recipe(tmp_path, f"preset: quickstart\noverrides: {{model: {model}}}\n")
    assert load_recipe(short).model.source == str(tmp_path / "own")


def test_fields_of_the_model_can_be_changed_like_any_other(tmp_path: Path) -> None:
    for recipe in (
        load_recipe("quickstart", ["model.precision=bf16"]),
        load_recipe(write_recipe(tmp_path, "preset: quickstart\noverrides: {model: {precision: bf16}}\n")),
        load_recipe(write_recipe(tmp_path, "preset: quickstart\nmodel: {precision: bf16}\n")),
    ):
        assert recipe.model.precision == "bf16"
        assert recipe.model.source == "builtin://mini-nemotron-h"


def test_rows_with_fields_of_their_own_take_the_place_of_tasks_everywhere(tmp_path: Path) -> None:
    text = f"preset: quickstart\ndata: {{mcqa: {COLUMNS}}}\n"
    recipe = load_recipe(write_recipe(tmp_path, text))
    sources = [
        mix.source for stage in recipe.stages for mix in stage.data if mix.source.environment == "mcqa"
    ]
    sources += [exam.source for exam in recipe.benchmarks if exam.source.environment == "mcqa"]
    assert len(sources) > 2
    assert {source.path for source in sources} == {str(tmp_path / "rows.csv")}
    assert all(source.columns == {"question": "q"} for source in sources)


def test_benchmarks_can_be_replaced_as_a_list_and_added_by_name(tmp_path: Path) -> None:
    quiz = "{name: quiz, source: {mcqa: rows.jsonl}, tasks: 300}"
    text = f"preset: quickstart\noverrides: {{benchmarks: [{quiz}]}}\n"
    (only,) = load_recipe(write_recipe(tmp_path, text)).benchmarks
    assert (only.name, only.source.path) == ("quiz", str(tmp_path / "rows.jsonl"))
    text = "preset: quickstart\noverrides: {benchmarks: {quiz: {source: {mcqa: rows.jsonl}}}}\n"
    recipe = load_recipe(write_recipe(tmp_path, text))
    assert [one.name for one in recipe.benchmarks][-1] == "quiz"
    assert len(recipe.benchmarks) == len(load_recipe("quickstart").benchmarks) + 1


def test_an_error_that_a_users_line_causes_in_a_preset_stands_at_that_line(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "preset: quickstart\noverrides:\n  sft: {steps: 4}\n")
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    (fault,) = caught.value.faults
    assert fault.where == f"{path}:3 overrides.sft.steps"
    assert "optimizer.warmup_steps is set in quickstart.yaml:" in fault.what


def test_an_error_inside_a_list_has_no_echo(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, SMALL.replace("steps: ", "steps: -", 1))
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert [fault.where.endswith("steps") for fault in caught.value.faults] == [True]


def test_errors_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "preset: quickstart\nseed: x\noverrides:\n  zzz: {steps: 1}\n  sft: {steps: 0}\n  guard: {min: 1}\n"
    )
    with pytest.raises(UserError) as caught:
        read_recipe(write_recipe(tmp_path, text))
    lines = [int(fault.where.split(":")[1].split()[0]) for fault in caught.value.faults]
    assert lines == sorted(lines)
    assert len(lines) == 4
