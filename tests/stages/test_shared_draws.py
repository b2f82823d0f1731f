"""Every checkpoint answers from the same random numbers, and more samples are added to those there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_cascade import make_run, mix

from kascade.exams import draws
from kascade.exams.evaluate import score_by
from kascade.exams.exams import Draw
from kascade.guard.comparison import compare
from kascade.guard.scores import Score, read_score, score_path, write_score
from kascade.run.context import Run, open_run
from kascade.steps import steps
from kascade.storage.checkpoint import CheckpointRef, open_checkpoint, publish
from kascade.storage.run_folder import RunFolder

STAGE = {"name": "sft", "kind": "sft", "data": [mix("say_a")], "steps": 2, "batch_size": 4}


def copied(layout: RunFolder, reference: str, key: str) -> str:
    """A checkpoint with the same weights under another digest."""
    _, manifest = open_checkpoint(CheckpointRef.parse(reference).uri)
    staged = layout.root / "staged"
    shutil.copytree(layout.checkpoint(manifest.id), staged)
    (staged / "manifest.json").unlink()
    (staged / "note.txt").write_text(key)
    made = manifest.model_copy(update={"id": f"base/train-{key}", "key": key, "files": {}})
    return str(publish(staged, layout.checkpoint(made.id), made))


def scored(run: Run, reference: str, draw: Draw) -> Score:
    score_by(run, reference, ["say_b"], draw)
    found = read_score(run.layout, CheckpointRef.parse(reference).digest, "say_b", draw.phase, draw.round)
    assert found is not None
    return found


def test_equal_weights_give_equal_answers_and_more_are_added(tmp_path: Path) -> None:
    layout = make_run(tmp_path, STAGE)
    base = steps.preflight(str(layout.root))
    twin = copied(layout, base, "twin")
    assert CheckpointRef.parse(base).digest != CheckpointRef.parse(twin).digest
    with open_run(str(layout.root), "test") as run:
        few = [scored(run, one, Draw("confirm", 0, 2)) for one in (base, twin)]
        assert few[0].rewards == few[1].rewards
        assert few[0].draws == "shared"
        more = [scored(run, one, Draw("confirm", 0, 4)) for one in (base, twin)]
        assert more[0].rewards == more[1].rewards
        assert all(more[0].rewards[task][:2] == drawn for task, drawn in few[0].rewards.items())
        assert {len(drawn) for drawn in more[0].rewards.values()} == {4}
        found = compare(more[0].task_rewards(), more[1].task_rewards())
        assert found is not None
        assert (found.difference, found.p_within) == (0.0, 1.0)
        at_once = scored(run, copied(layout, base, "third"), Draw("confirm", 0, 4))
        assert at_once.rewards == more[0].rewards, "sample i is the same however many are drawn at once"
        other = scored(run, base, Draw("confirm", 1, 4))
        assert other.rewards != more[0].rewards, "another round is fresh"


def test_what_an_equal_parent_answered_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = make_run(tmp_path, STAGE)
    base = steps.preflight(str(layout.root))
    _, manifest = open_checkpoint(CheckpointRef.parse(base).uri)
    staged = layout.root / "staged"
    shutil.copytree(layout.checkpoint(manifest.id), staged)
    (staged / "manifest.json").unlink()
    made = manifest.model_copy(update={"id": "sft/train-same", "stage": "sft", "parent": base, "files": {}})
    child = str(publish(staged, layout.checkpoint(made.id), made))
    other = copied(layout, base, "other")
    with open_run(str(layout.root), "test") as run:
        before = scored(run, base, Draw("confirm", 0, 2))
        monkeypatch.setattr(draws, "sit_exam", None)
        assert scored(run, child, Draw("confirm", 0, 2)).rewards == before.rewards
        with pytest.raises(TypeError, match="not callable"):
            scored(run, other, Draw("confirm", 0, 2))


def test_old_draws_are_read_and_never_added_to(tmp_path: Path) -> None:
    layout = make_run(tmp_path, STAGE)
    base = steps.preflight(str(layout.root))
    with open_run(str(layout.root), "test") as run:
        new = scored(run, base, Draw("screen"))
        old = new.model_copy(update={"draws": "own", "rewards": {task: [1.0, 1.0] for task in new.rewards}})
        score_path(layout, new).unlink()
        write_score(layout, old)
        assert read_score(layout, old.checkpoint, "say_b", "screen") == old
        assert scored(run, base, Draw("screen")) == new, "drawn anew, into a file of its own"
        assert score_path(layout, old) != score_path(layout, new)
        assert score_path(layout, old).exists()


def test_missing_grades_are_given_again_before_anything_is_judged(tmp_path: Path) -> None:
    layout = make_run(tmp_path, STAGE)
    base = steps.preflight(str(layout.root))
    with open_run(str(layout.root), "test") as run:
        whole = scored(run, base, Draw("confirm", 0, 2))
        hollow = {task: [None] * len(drawn) for task, drawn in whole.rewards.items()}
        write_score(layout, whole.model_copy(update={"rewards": hollow}))
        assert scored(run, base, Draw("confirm", 0, 2)) == whole
