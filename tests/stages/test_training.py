"""Each stage as a plain function: it learns what it is for, stops where it must, resumes bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from toy_cascade import make_policy, stage, weights

from kascade.clock import Clock
from kascade.environments import get_environment
from kascade.environments.base import generate_tasks
from kascade.errors import TrainingStopped, UserError
from kascade.exams.draws import sit_exam
from kascade.learning.metrics import read_metrics
from kascade.recipe.methods import method_of
from kascade.recipe.schema import MOPDStage, RLHFStage, RLStage, Stage
from kascade.rollout.answers import sampling_params
from kascade.rollout.policy import Policy
from kascade.stages.grpo import train_grpo
from kascade.stages.mopd import train_mopd
from kascade.stages.rlhf import train_rlhf
from kascade.stages.sft import demonstrations, train_sft
from kascade.stages.tasks import recovery_mixes, training_pool
from kascade.stages.training import Training
from kascade.storage.training_folder import TrainingFolder

PARTS: TypeAdapter[Any] = TypeAdapter(Stage)


def part(name: str, kind: str, *environments: str, **more: Any) -> Any:
    return PARTS.validate_python(stage(name, kind, *environments, **more))


def reward(policy: Policy, environment: str, learnt: RLStage | RLHFStage | MOPDStage) -> float:
    tasks = generate_tasks(get_environment(environment), split="test", count=40, seed=0)
    groups = sit_exam(policy, tasks, sampling_params(learnt.sampling), num_samples=4, seed=1, clock=Clock())
    return float(sum(group.rewards.mean() for group in groups) / len(groups))


def work(policy: Policy, learnt: Any, folder: Path | None = None, **more: Any) -> Training[Any]:
    """The training of a stage; its curves and states go to `folder`."""
    tasks = training_pool(learnt.data, 0, learnt.name)
    return Training(learnt, policy, tasks, folder=TrainingFolder(folder) if folder else None, **more)


def noisy(share: float) -> Training[Any]:
    return work(make_policy(), part("sft", "sft", "say_a", noise=share))


def curves(tmp_path: Path) -> list[dict[str, Any]]:
    return read_metrics(tmp_path / "metrics.jsonl")


def test_grpo_raises_the_reward_and_measures_the_gap(tmp_path: Path):
    policy, learnt = make_policy(), part("rl", "if_rl", "say_a")
    before = reward(policy, "say_a", learnt)
    train_grpo(work(policy, learnt, tmp_path))
    assert reward(policy, "say_a", learnt) > before + 0.3
    found = curves(tmp_path)
    assert [line["step"] for line in found] == list(range(learnt.steps))
    assert all(line["logprob_gap"] < 1e-4 for line in found)
    assert found[-1]["reward"] > found[0]["reward"]


def test_sft_lowers_the_loss_and_leaves_out_what_is_too_long(tmp_path: Path):
    policy, learnt = make_policy(), part("sft", "sft", "say_a", loss="per_sample")
    train_sft(work(policy, learnt, tmp_path))
    found = curves(tmp_path)
    assert found[-1]["loss"] < 0.5 * found[0]["loss"]
    short = part("short", "sft", "say_a", max_tokens=5, steps=1)
    before = weights(policy)
    train_sft(work(policy, short, tmp_path / "short"))
    assert curves(tmp_path / "short")[0]["too_long"] == learnt.batch_size
    assert all(torch.equal(before[name], value) for name, value in weights(policy).items())


def test_noise_swaps_the_answer_for_that_of_another_task():
    tasks = generate_tasks(get_environment("math_with_judge"), split="train", count=32, seed=0)
    shown = demonstrations(tasks, noisy(0.5), 0)
    wrong = sum(text != task.reference for task, text in shown)
    assert 6 <= wrong <= 26
    assert all(text == task.reference for task, text in demonstrations(tasks, noisy(0.0), 0))


@pytest.mark.parametrize("full", [False, True])
def test_mopd_moves_each_domain_to_its_teacher(full: bool, tmp_path: Path):
    teachers = {}
    for domain, environment in (("math", "say_a"), ("knowledge", "say_b")):
        taught = make_policy()
        learnt = part("sft", "sft", environment, steps=15)
        train_sft(work(taught, learnt))
        teachers[domain] = taught.model.requires_grad_(False)
    distilled = part(
        "mopd", "mopd", "say_a", full_vocabulary=full, steps=25, prompts_per_step=16, rollouts_per_prompt=4
    )
    policy = make_policy(0)
    before = reward(policy, "say_a", distilled)
    train_mopd(work(policy, distilled, tmp_path, teachers=teachers))
    assert reward(policy, "say_a", distilled) > before + 0.4
    found = curves(tmp_path)
    assert found[-1]["reverse_kl"] < 0.5 * found[0]["reverse_kl"]
    assert found[0]["dropped"] == 0


def test_a_domain_without_a_teacher_is_the_users_fault():
    policy, learnt = make_policy(), part("mopd", "mopd", "say_a")
    with pytest.raises(UserError, match="'math' has no teacher"):
        train_mopd(work(policy, learnt, teachers={"knowledge": make_policy(1).model}))


def test_rlhf_raises_the_preference_and_stays_near_its_start(tmp_path: Path):
    learnt = part("rlhf", "rlhf", "prefer_a", pairwise={"pairs": "circular"})
    policy = make_policy()
    before = reward(policy, "prefer_a", learnt)
    train_rlhf(work(policy, learnt, tmp_path))
    assert reward(policy, "prefer_a", learnt) > before + 0.2
    assert 0 <= curves(tmp_path)[0]["kl"] < 1e-6 < curves(tmp_path)[-1]["kl"]


def test_a_learned_judge_is_used_when_it_agrees_and_refused_when_not():
    good = {"kind": "reward_model", "pairs": 200, "epochs": 30, "batch_size": 50, "min_agreement": 0.8}
    rate = {"learning_rate": 5e-3, "weight_decay": 0.0}
    learnt = part("rlhf", "rlhf", "prefer_a", judge={**good, "optimizer": rate})
    policy = make_policy()
    before = reward(policy, "prefer_a", learnt)
    train_rlhf(work(policy, learnt))
    assert reward(policy, "prefer_a", learnt) > before + 0.1
    poor = part("rlhf", "rlhf", "prefer_a", judge={**good, "epochs": 1, "min_agreement": 1.0})
    with pytest.raises(TrainingStopped, match=r"judge\.min_agreement 1\.0"):
        train_rlhf(work(make_policy(), poor))


def test_too_few_usable_groups_skip_the_update_and_say_so(tmp_path: Path):
    policy = make_policy()
    learnt = part("rl", "if_rl", "say_a", steps=2, grpo={"drop_below_best": 1.0})
    before = weights(policy)
    train_grpo(work(policy, learnt, tmp_path))
    assert all(torch.equal(before[name], value) for name, value in weights(policy).items())
    assert [line["note"] for line in curves(tmp_path)] == ["update skipped: 0 usable groups, 4 needed"] * 2


def test_more_prompts_are_drawn_while_filtering_leaves_too_few(tmp_path: Path):
    learnt = part(
        "rl", "if_rl", "say_a", steps=1, rollouts_per_prompt=2,
        grpo={"max_generation_batches": 6, "drop_below_best": 0.2},
    )  # fmt: skip
    train_grpo(work(make_policy(), learnt, tmp_path))
    assert curves(tmp_path)[0]["usable_groups"] == learnt.prompts_per_step


def test_grader_errors_stop_the_stage_before_the_weights_change():
    policy, learnt = make_policy(), part("rl", "code_rl", "broken")
    before = weights(policy)
    with pytest.raises(TrainingStopped, match=r"grader_errors 1 is above 0\.1"):
        train_grpo(work(policy, learnt))
    assert all(torch.equal(before[name], value) for name, value in weights(policy).items())


class KilledError(Exception):
    pass


def kill_after(steps: int) -> Callable[[int], None]:
    def after_step(done: int) -> None:
        if done == steps:
            raise KilledError

    return after_step


def train_any(policy: Policy, learnt: Any, folder: Path, **more: Any) -> None:
    training = work(policy, learnt, folder, **more)
    method = method_of(learnt)
    if method.needs_teachers:
        training.teachers = {"math": make_policy(7).model}
    method.load()(training)


@pytest.mark.parametrize(
    ("kind", "environment"),
    [("sft", "say_a"), ("if_rl", "say_a"), ("mopd", "say_a"), ("rlhf", "prefer_a")],
)
def test_a_killed_stage_ends_with_the_same_weights(kind: str, environment: str, tmp_path: Path):
    learnt = part("stage", kind, environment, steps=6, save_every=2)
    whole = make_policy()
    train_any(whole, learnt, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_any(make_policy(), learnt, tmp_path / "cut", after_step=kill_after(5))
    again = make_policy()
    train_any(again, learnt, tmp_path / "cut")
    expected = weights(whole)
    assert all(torch.equal(expected[name], value) for name, value in weights(again).items())
    assert curves(tmp_path / "cut") == curves(tmp_path / "whole")


def test_a_lost_domain_without_tasks_is_a_fault_and_not_a_crash():
    with pytest.raises(UserError, match="code: was lost"):
        recovery_mixes({}, ["code"], [], keep_weight=1.0)
