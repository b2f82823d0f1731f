"""The plan before a run, and after one."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_for_tests import SMALL, write_recipe

from kascade.commands.run_folder import read_earlier_run
from kascade.errors import UserError
from kascade.recipe.load import load_recipe
from kascade.recipe.plan import make_plan
from kascade.recipe.run_recipe import keep_recipe, read_run_recipe
from kascade.recipe.work import units_of
from kascade.storage.run_folder import RunFolder


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
    assert plan.worst_case.exam_answers == 13 * 80 + 12 * 2 * 40 * 32
    assert plan.redo is None


def test_answers_that_do_not_change_are_asked_once(tmp_path: Path) -> None:
    """Of a benchmark of another tool nothing is drawn again: not to confirm a fall, and not at the end."""
    text = SMALL.replace(
        "source: {environment: mcqa}, tasks: 20",
        "source: {environment: lm_eval, options: OPTIONS}, tasks: 500",
    )
    fixed, drawn = (
        load_recipe(write_recipe(tmp_path, text.replace("OPTIONS", options)))
        for options in ("{task: arc_easy}", "{task: gsm8k, sampled: true}")
    )
    plan = make_plan(fixed)
    assert plan.answers_per_checkpoint == 500 + 20 * 2
    assert plan.worst_case.exam_answers == 13 * (500 + 20 * 2) + 12 * 2 * 20 * 32
    assert make_plan(drawn).worst_case.exam_answers == 13 * 520 * 2 + 12 * 2 * 520 * 32
    work = {unit.key: unit.every_look or unit.generated.high for unit in units_of(fixed)}
    tokens = float(fixed.benchmarks[0].sampling.max_new_tokens)
    assert work["base.benchmarks"] == (500 + 20 * 2) * tokens
    assert work["sft.benchmarks"] == (500 + 20 * 2 + 2 * 20 * 32) * tokens
    assert work["end.end check"] == 2 * 20 * 64 * tokens


def test_an_earlier_run_says_what_is_trained_again(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    keep_recipe(RunFolder(tmp_path / "run"), recipe)
    earlier = read_earlier_run(tmp_path / "run")
    assert make_plan(recipe, earlier).redo == {}
    longer = make_plan(load_recipe(tmp_path / "recipe.yaml", ["if_rl.steps=20"]), earlier)
    assert longer.redo is not None
    assert list(longer.redo) == ["if_rl", "mopd"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a run"):
        read_run_recipe(tmp_path)
    RunFolder(tmp_path).resolved_recipe.write_text('{"kascade": 1}')
    with pytest.raises(UserError, match="not of this version"):
        read_run_recipe(tmp_path)
