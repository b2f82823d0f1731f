"""Keys change with what determines a result, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_for_tests import SMALL, write_recipe

from kascade.recipe import identity
from kascade.recipe.checks import BASE
from kascade.recipe.identity import fingerprint, stage_key
from kascade.recipe.load import load_recipe
from kascade.recipe.order import awaited_by, parent_of, starts_elsewhere, teachers_of
from kascade.recipe.redone import changed_stages
from kascade.recipe.schema import Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_recipe(tmp_path))


def changed(tmp_path: Path, *settings: str, **dials: int) -> Recipe:
    return load_recipe(write_recipe(tmp_path), settings, **dials)  # type: ignore[arg-type]


def key(recipe: Recipe, stage: str = "if_rl", attempt: str = "train") -> str:
    return stage_key(recipe, stage, attempt, "parent")


@pytest.mark.parametrize(
    "setting",
    [
        "if_rl.steps=11",
        "if_rl.optimizer.learning_rate=1e-4",
        "if_rl.sampling.top_p=0.9",
        "if_rl.grpo.overlong=filter",
        "if_rl.workers.trainers=2",
    ],
)
def test_a_number_of_the_stage_changes_its_key(tmp_path: Path, recipe: Recipe, setting: str) -> None:
    other = changed(tmp_path, setting)
    assert key(other) != key(recipe)
    assert key(other, "sft") == key(recipe, "sft")


@pytest.mark.parametrize(
    "setting",
    [
        "if_rl.title=Instructions",
        "if_rl.goals=[chat]",
        "if_rl.save_every=3",
        "if_rl.limits.max_logprob_gap=1.0",
        "guard.min_drop=0.2",
        "benchmarks.chat.tasks=9",
        "sft.steps=9",
        "tracking.experiment=other",
        "if_rl.workers.cpus=4",
        "if_rl.workers.room_timeout_s=9",
        "if_rl.frozen_weights=host",
    ],
)
def test_what_does_not_touch_the_weights_keeps_the_key(tmp_path: Path, recipe: Recipe, setting: str) -> None:
    assert key(changed(tmp_path, setting)) == key(recipe)


def test_seed_parent_and_teachers_are_part_of_the_key(tmp_path: Path, recipe: Recipe) -> None:
    assert key(changed(tmp_path, seed=1)) != key(recipe)
    assert stage_key(recipe, "if_rl", "train", "other") != key(recipe)
    taught = [stage_key(recipe, "mopd", "train", "parent", {"chat": teacher}) for teacher in "ab"]
    assert len({*taught, key(recipe, "mopd")}) == 3


def test_recoveries_depend_on_the_recovery_part_and_the_exams(tmp_path: Path, recipe: Recipe) -> None:
    first, second = key(recipe, attempt="recover-1"), key(recipe, attempt="recover-2")
    assert len({first, second, key(recipe)}) == 3
    assert key(changed(tmp_path, "guard.recovery.steps=41"), attempt="recover-1") != first
    assert key(changed(tmp_path, "benchmarks.chat.tasks=9"), attempt="recover-1") != first


def test_rows_count_by_their_contents_not_their_path(tmp_path: Path) -> None:
    rows, moved = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    rows.write_text('{"a": 1}\n')
    moved.write_text('{"a": 1}\n')
    path = write_recipe(tmp_path)
    before = key(load_recipe(path, data={"mcqa": str(rows)}), "sft")
    assert key(load_recipe(path, data={"mcqa": str(moved)}), "sft") == before
    rows.write_text('{"a": 1234}\n')
    assert key(load_recipe(path, data={"mcqa": str(rows)}), "sft") != before


@pytest.mark.parametrize(
    "setting",
    ["guard.min_drop=0.2", "benchmarks.chat.tasks=9", "if_rl.goals=[chat]", "sft.steps=9", "mopd=null"],
)
def test_fingerprint_covers_exams_and_guard(tmp_path: Path, recipe: Recipe, setting: str) -> None:
    settings = [setting, "chat_teacher=null"] if setting == "mopd=null" else [setting]
    assert fingerprint(changed(tmp_path, *settings), "if_rl") != fingerprint(recipe, "if_rl")


def test_later_fields_of_the_end_check_count_only_where_they_are_set(tmp_path: Path, recipe: Recipe) -> None:
    few = changed(tmp_path, "guard.retention.samples=8")
    assert set(identity._guard(few)["retention"]) == {"margin", "level", "samples", "on_loss"}
    assert "retention" not in identity._guard(recipe)
    far = changed(tmp_path, "guard.retention.near_best=3")
    assert identity._guard(far)["retention"]["near_best"] == 3.0
    assert fingerprint(far, "sft") != fingerprint(recipe, "sft")


def test_fingerprint_leaves_out_later_stages_and_titles(tmp_path: Path, recipe: Recipe) -> None:
    other = changed(tmp_path, "mopd.steps=3")
    assert fingerprint(other, "if_rl") == fingerprint(recipe, "if_rl")
    assert fingerprint(other, BASE) == fingerprint(recipe, BASE)
    assert fingerprint(other) != fingerprint(recipe)
    with pytest.raises(KeyError):
        fingerprint(recipe, "nowhere")


def test_parents_follow_the_main_line(recipe: Recipe) -> None:
    parents = {stage.name: parent_of(recipe, stage.name) for stage in recipe.stages}
    assert parents == {"sft": None, "chat_teacher": "sft", "if_rl": "sft", "mopd": "if_rl"}
    assert teachers_of(recipe, "mopd") == ("chat_teacher", "if_rl")


def test_what_joins_the_main_line_waits_for_it(recipe: Recipe) -> None:
    joins = recipe.stages[3].model_copy(update={"parent": "chat_teacher"})
    joined = recipe.model_copy(update={"stages": [*recipe.stages[:3], joins]})
    assert [starts_elsewhere(joined, one.name) for one in joined.stages] == [False, False, False, True]
    assert awaited_by(joined, "mopd") == ("if_rl",), "its parent is waited for anyway"
    back = recipe.stages[3].model_copy(update={"parent": "sft", "teachers": {"chat": "chat_teacher"}})
    skipping = recipe.model_copy(update={"stages": [*recipe.stages[:3], back]})
    assert awaited_by(skipping, "mopd") == ("chat_teacher", "if_rl")
    assert awaited_by(recipe, "mopd") == ("chat_teacher",)
    assert [awaited_by(recipe, one) for one in ("sft", "chat_teacher", "if_rl")] == [()] * 3


def test_open_choice_of_teachers_means_every_earlier_stage(tmp_path: Path) -> None:
    text = SMALL.replace("teachers: {chat: chat_teacher,", "teachers: {chat: chat_teacher, math: best,")
    assert teachers_of(load_recipe(write_recipe(tmp_path, text)), "mopd") == ("sft", "chat_teacher", "if_rl")


def test_a_change_redoes_what_hangs_on_it_and_says_why(tmp_path: Path, recipe: Recipe) -> None:
    assert changed_stages(recipe, recipe) == {}
    redone = changed_stages(recipe, changed(tmp_path, "chat_teacher.steps=6"))
    assert redone == {"chat_teacher": ("steps: 5 → 6",), "mopd": ("chat_teacher is redone",)}
    everything = changed_stages(recipe, changed(tmp_path, seed=4))
    assert list(everything) == ["sft", "chat_teacher", "if_rl", "mopd"]
    assert everything["if_rl"] == ("seed: 0 → 4", "sft is redone")


def test_another_model_or_order_redoes_the_stages(tmp_path: Path, recipe: Recipe) -> None:
    path = write_recipe(tmp_path)
    assert changed_stages(recipe, load_recipe(path, model="Org/Other"))["sft"] == (
        'model: "builtin://mini-nemotron-h" → "Org/Other"',
    )
    without = load_recipe(path, ["if_rl=null", "mopd.teachers.instruction_following=sft"])
    assert "starts from sft now" in changed_stages(recipe, without)["mopd"]
    assert changed_stages(without, recipe)["if_rl"] == ("not in the earlier run",)
