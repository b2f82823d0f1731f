"""Exams keep every answer: interrupted they go on, and they can be graded again without sampling."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from toy_cascade import SayA, make_run, stage
from typer.testing import CliRunner

from kascade.cli import app
from kascade.exams import draws
from kascade.exams.answers import read_answers
from kascade.exams.evaluate import grade_again_unjudged, score_by
from kascade.exams.exams import Draw
from kascade.guard.lineage import open_reference
from kascade.guard.scores import Score, answers_path, read_score, score_path
from kascade.guard.verdict import read_verdict
from kascade.rollout.policy import Policy
from kascade.run.context import open_run
from kascade.steps import steps
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.files import read_json
from kascade.storage.run_folder import RunFolder
from kascade.task import Grade, Task


def evaluated(folder: Path) -> tuple[RunFolder, str]:
    layout = make_run(folder, stage("sft", "sft", "say_a"))
    recipe = json.loads(layout.resolved_recipe.read_text())
    for benchmark in recipe["benchmarks"]:
        benchmark["keep_every"] = 15
    layout.resolved_recipe.write_text(json.dumps(recipe))
    base = steps.preflight(str(layout.root))
    steps.evaluate(str(layout.root), "base", base, base)
    return layout, base


def test_an_exam_goes_on_where_it_was_killed_and_is_graded_again_without_sampling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, base = evaluated(tmp_path)
    digest = CheckpointRef.parse(base).digest
    path = answers_path(layout, digest, "say_a", "screen")
    score = read_score(layout, digest, "say_a", "screen")
    assert score is not None
    assert len(read_answers(path)) == 80  # 40 tasks, drawn and greedy

    # killed in the middle of the second chunk: the score is not there, the last line is torn
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:30]) + lines[30][:20])
    score_path(layout, score).unlink()
    asked: list[int] = []
    real = draws.answer_with_greedy

    def counted(policy: Policy, tasks: list[Task], *arguments: Any, **more: Any) -> Any:
        asked.append(len(tasks))
        return real(policy, tasks, *arguments, **more)

    monkeypatch.setattr(draws, "answer_with_greedy", counted)
    steps.evaluate(str(layout.root), "base", base, base)
    assert asked == [15, 10]
    assert read_score(layout, digest, "say_a", "screen") == score
    assert path.read_bytes() == whole

    # another grader: half the reward, and the same answers
    monkeypatch.setattr(SayA, "_grade", lambda self, answer: Grade(answer.split().count("a") / 8))
    monkeypatch.setattr(draws, "sit_exam", None)
    monkeypatch.setattr(draws, "answer_with_greedy", None)
    result = CliRunner().invoke(app, ["grade", "--run", str(layout.root)])
    assert result.exit_code == 0, result.output
    told = {line["benchmark"]: line for line in map(json.loads, result.stdout.splitlines())}
    again = read_score(layout, digest, "say_a", "screen")
    assert again is not None
    assert told["say_a"]["before"] == score.mean
    assert told["say_a"]["after"] == again.mean < score.mean
    assert told["say_b"]["before"] == told["say_b"]["after"]
    assert told["say_a"]["pass_at"] == {str(k): value for k, value in again.passes().items()}
    assert told["say_a"]["interval"] == list(again.interval())
    assert [one.answers for one in read_answers(path)] == [
        tuple(json.loads(line)["answers"]) for line in lines
    ]


def test_with_a_repaired_grader_few_missing_grades_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve grades fail after the stage and none before. That is allowed by their number, and not judged."""
    layout = make_run(tmp_path, stage("sft", "sft", "say_a"), max_missing=0.9, screen_level=1e-9)
    run = str(layout.root)
    base = steps.preflight(run)
    steps.evaluate(run, "base", base, base)
    trained = steps.train(run, "sft", base)
    failed: list[str] = []
    real = SayA._grade

    def failing(self: SayA, answer: str) -> Grade:
        if len(failed) < 12:
            failed.append(answer)
            return Grade.failed("the grader crashed")
        return real(self, answer)

    with monkeypatch.context() as broken:
        broken.setattr(SayA, "_grade", failing)
        steps.evaluate(run, "sft", trained, base)
    digest = CheckpointRef.parse(trained).digest
    before, verdict = read_score(layout, digest, "say_a", "screen"), read_verdict(layout, open_id(trained))
    assert before is not None and verdict is not None
    assert 0 < before.missing < 0.9 and verdict.not_judged == ("say_a",)
    monkeypatch.setattr(draws, "sit_exam", None)
    monkeypatch.setattr(draws, "answer_with_greedy", None)
    steps.evaluate(run, "sft", trained, base)
    after, verdict = read_score(layout, digest, "say_a", "screen"), read_verdict(layout, open_id(trained))
    assert after is not None and verdict is not None
    assert (after.missing, verdict.not_judged) == (0.0, ())
    kept = {task: [r for r in rewards if r is not None] for task, rewards in before.rewards.items()}
    assert all(set(rewards) <= set(after.rewards[task]) for task, rewards in kept.items())


def test_missing_grades_of_a_champion_of_another_folder_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, _ = evaluated(tmp_path / "own")
    other, base = evaluated(tmp_path / "other")
    champion = steps.train(str(other.root), "sft", base)
    digest = CheckpointRef.parse(champion).digest
    with monkeypatch.context() as broken, open_run(str(layout.root), "challenge") as run:
        broken.setattr(SayA, "_grade", lambda self, answer: Grade.failed("the grader crashed"))
        score_by(run, champion, ["say_a"], Draw("promotion", 7, 2))
    for others, missing in (((), 1.0), ((champion,), 0.0)):
        with open_run(str(layout.root), "challenge") as run:
            grade_again_unjudged(run, ["say_a"], others)
        score = read_score(layout, digest, "say_a", "promotion", 7)
        assert score is not None and score.missing == missing


def open_id(reference: str) -> str:
    return open_reference(reference).manifest.id


def test_preflight_keeps_which_falls_the_benchmarks_can_show(tmp_path: Path) -> None:
    layout = make_run(tmp_path, stage("sft", "sft", "say_a"))
    steps.preflight(str(layout.root))
    kept = read_json(layout.preflight)["visible_falls"]
    assert kept.keys() == {"say_a", "say_b"}
    assert all(one["tasks"] == 40 and one["half"] < one["most"] for one in kept.values())


def test_pass_at_k_is_the_unbiased_estimate() -> None:
    score = Score(
        benchmark="exam", domain="math", checkpoint="0", phase="screen", round=0, temperature=1.0,
        rewards={"a": [1.0, 0.0, 0.0, 0.0], "b": [1.0, 1.0, None, 0.0], "c": [0.0] * 4},
        mean_response_tokens=1.0, num_truncated=0,
    )  # fmt: skip
    assert score.pass_at(1) == pytest.approx((1 / 4 + 2 / 3 + 0) / 3)
    assert score.pass_at(2) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert score.pass_at(4) == pytest.approx((1 + 0) / 2)  # b has three graded answers
    assert score.num_samples == 4
    assert score.passes() == {k: score.pass_at(k) for k in (1, 2, 4)}
    assert score.pass_interval(4) == pytest.approx((0.5 - 0.98, 0.5 + 0.98))  # tasks at 0 and 1: error 1 / 2
    assert math.isnan(score.pass_at(5))


def test_intervals_are_of_tasks_and_not_of_answers() -> None:
    """Two tasks, always right and never: eight answers, but only two draws of a task."""
    few, many = (
        Score(
            benchmark="exam", domain="math", checkpoint="0", phase="screen", round=0, temperature=1.0,
            rewards={"a": [1.0] * k, "b": [0.0] * k}, mean_response_tokens=1.0, num_truncated=0,
        )
        for k in (1, 64)
    )  # fmt: skip
    assert few.interval() == many.interval() == pytest.approx((0.5 - 0.98, 0.5 + 0.98))
    assert many.pass_interval(64) == pytest.approx(many.interval())
    assert list(many.passes()) == [1, 2, 4, 8, 16, 32, 64]
