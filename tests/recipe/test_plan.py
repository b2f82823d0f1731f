"""The plan before a run, and after one."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_for_tests import write_recipe

from kascade.commands.run_folder import open_run_folder, read_earlier_run, read_run_recipe
from kascade.errors import UserError
from kascade.recipe.load import load_recipe
from kascade.recipe.plan import make_plan
from kascade.storage.files import write_json
from kascade.storage.layout import RunLayout


def test_numbers_and_edges_of_a_plan(tmp_path: Path) -> None:
    plan = make_plan(load_recipe(write_recipe(tmp_path)))
    sft, _, if_rl, _ = plan.stages
    assert (sft.samples_per_step, sft.tokens_per_step) == (64, 64 * 262_144)
    assert (if_rl.samples_per_step, if_rl.tokens_per_step) == (128 * 16, 128 * 16 * 49_152)
    edges = {(edge.source, edge.target, edge.role) for edge in plan.edges}
    assert edges == {
        ("base", "sft", "start"),
        ("sft", "chat_teacher", "start"),
        ("sft", "if_rl", "start"),
        ("if_rl", "mopd", "start"),
        ("chat_teacher", "mopd", "teacher"),
        ("if_rl", "mopd", "teacher"),
    }
    assert plan.answers_per_checkpoint == 40 * 2
    assert plan.worst_case.recoveries == 8
    assert plan.worst_case.exam_answers == 13 * 80 + 12 * 2 * 40 * 16
    assert plan.estimate.expected is None
    assert "no measurements" in plan.estimate.basis
    assert plan.redo is None


def measured_run(tmp_path: Path) -> Path:
    recipe = load_recipe(write_recipe(tmp_path))
    run = tmp_path / "run"
    open_run_folder(run, recipe, "text")
    costs = {"preflight": 1.0, "base.base.evaluate": 4.0, "sft.train": 10.0, "sft.train.evaluate": 2.0}
    costs |= {"chat_teacher.train": 3.0, "if_rl.train": 20.0, "if_rl.recover-1": 7.0}
    costs |= {"if_rl.recover-1.evaluate": 1.0, "mopd.train": 4.0}
    for step, seconds in costs.items():
        write_json(RunLayout(run).cost(step), {"cpu_s": seconds})
    return run


def test_estimate_rests_on_a_measured_run(tmp_path: Path) -> None:
    run = measured_run(tmp_path)
    same = make_plan(load_recipe(tmp_path / "recipe.yaml"), read_earlier_run(run))
    assert (same.estimate.low, same.estimate.expected, same.estimate.high) == (44.0, 52.0, 44.0 + 8 * 8.0)
    assert same.redo == {}
    longer = make_plan(load_recipe(tmp_path / "recipe.yaml", ["if_rl.steps=20"]), read_earlier_run(run))
    assert longer.estimate.low == 64.0
    assert longer.redo is not None
    assert list(longer.redo) == ["if_rl", "mopd"]


def test_no_estimate_from_another_model_or_an_unfinished_run(tmp_path: Path) -> None:
    run = measured_run(tmp_path)
    other = make_plan(load_recipe(tmp_path / "recipe.yaml", model="Org/Other"), read_earlier_run(run))
    assert "trained builtin" in other.estimate.basis
    RunLayout(run).cost("mopd.train").unlink()
    unfinished = make_plan(load_recipe(tmp_path / "recipe.yaml"), read_earlier_run(run))
    assert unfinished.estimate.low is None
    assert "mopd" in unfinished.estimate.basis


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a run"):
        read_run_recipe(tmp_path)
    RunLayout(tmp_path).resolved_recipe.write_text('{"kascade": 1}')
    with pytest.raises(UserError, match="not a recipe of this version"):
        read_run_recipe(tmp_path)
