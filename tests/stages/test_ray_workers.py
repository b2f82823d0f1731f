"""An RL stage on Ray: two trainers, two samplers; some are killed, and every task is graded once."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_cascade import make_policy, mix

from kascade.actors.rollout_group import RayEngine
from kascade.actors.session import ray_session
from kascade.actors.trainer_group import RayTrainer
from kascade.actors.workers import stage_workers
from kascade.errors import TrainingStopped, UserError
from kascade.learning.group import Scored
from kascade.learning.metrics import read_metrics
from kascade.learning.trainer import Trainer
from kascade.models.checksum import weights_checksum
from kascade.recipe.model_parts import MoE
from kascade.recipe.schema import ModelPart, MOPDStage, RLHFStage, RLStage
from kascade.recipe.workers import Workers
from kascade.rollout.answers import Answered, Group, grade_by_environment
from kascade.rollout.engines import make_engine
from kascade.rollout.handover import Handover, ModelSource
from kascade.rollout.policy import Policy
from kascade.rollout.types import Prompt, SamplingParams
from kascade.stages.grpo import train_grpo
from kascade.stages.mopd import train_mopd
from kascade.stages.rlhf import train_rlhf
from kascade.stages.rollouts import rollout_metrics
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.storage.training_folder import TrainingFolder
from kascade.task import Grade

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="Ray is not installed: stages with several workers were not run")
STEPS, PROMPTS = 5, 6
TOLERANCE = 1e-4  # of a loss: sums in another order
WEIGHTS_TOLERANCE = 1e-3  # of a tensor's norm, after five updates at a rate of 1e-2
MODEL = ModelPart(source="x")


def part(**workers: Any) -> RLStage:
    return RLStage.model_validate(
        {
            "kind": "if_rl",
            "name": "say",
            "data": [mix("say_a")],
            "steps": STEPS,
            "save_every": 2,
            "prompts_per_step": PROMPTS,
            "rollouts_per_prompt": 8,
            "sampling": {"max_new_tokens": 4},
            "optimizer": {"learning_rate": 1e-2},
            "grpo": {"min_usable_groups": 1},
            "workers": workers,
        }
    )


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with ray_session(Workers(trainers=2, samplers=2)):
        yield


class Killer:
    """Grades, and kills workers at given moments. graded: tasks by call, in order."""

    def __init__(self) -> None:
        self.graded: list[list[str]] = []
        self.engine: RayEngine | None = None
        self.trainer: RayTrainer | None = None
        self.kill_trainer_at: int | None = None

    def started(self, engine: RayEngine | None, trainer: RayTrainer | None) -> None:
        self.engine, self.trainer = engine, trainer

    def grade(self, answered: Sequence[Answered]) -> list[list[Grade]]:
        self.graded.append([one.task.id for one in answered])
        if len(self.graded) == self.kill_trainer_at:
            assert self.trainer is not None
            os.kill(self.trainer.pids()[1], signal.SIGKILL)
        return grade_by_environment(answered)


class RayThatLosesOne:
    """Ray, but for one worker that is killed as soon as work was given out."""

    def __init__(self, victim: int) -> None:
        self.victim: int | None = victim

    def __getattr__(self, name: str) -> Any:
        return getattr(ray, name)

    def wait(self, waiting: list[Any], **more: Any) -> Any:
        if self.victim is not None:
            os.kill(self.victim, signal.SIGKILL)
            self.victim = None
        return ray.wait(waiting, **more)


def say(stage: Any, policy: Policy, folder: Path, **more: Any) -> Training[Any]:
    """The training of a stage under the name `say`."""
    tasks = training_pool(stage.data, 0, "say")
    return Training(stage, policy, tasks, "say", folder=TrainingFolder(folder), **more)


def weights_of(policy: Policy) -> dict[str, torch.Tensor]:
    """Of whoever holds them."""
    return {name: weight.detach().clone() for name, weight in policy.whole_copy().named_parameters()}


def assert_alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """AdamW turns a rounding of a gradient near 0 into a part of the rate, 1e-2, for single weights."""
    for name, weights in expected.items():
        assert float((found[name] - weights).norm() / weights.norm()) < WEIGHTS_TOLERANCE, name


def trained(policy: Policy, stage: RLStage, folder: Path, killer: Killer) -> dict[str, torch.Tensor]:
    if stage.workers.distributed:
        with stage_workers(policy, stage, MODEL, started=killer.started) as (spread, trainer):
            train_grpo(say(stage, spread, folder, trainer=trainer), grader=killer.grade)
            return weights_of(spread)
    train_grpo(say(stage, policy, folder), grader=killer.grade)
    return weights_of(policy)


def test_killed_workers_cost_time_only(session: None, tmp_path: Path) -> None:
    alone = Killer()
    expected = trained(make_policy(), part(), tmp_path / "alone", alone)

    killer = Killer()
    killer.kill_trainer_at = 4  # in step 3, the second after the state that step 2 saved
    started = killer.started

    def start_and_lose_a_sampler(engine: RayEngine | None, trainer: RayTrainer | None) -> None:
        started(engine, trainer)
        assert engine is not None
        engine.ray = RayThatLosesOne(engine.pids()[0])

    killer.started = start_and_lose_a_sampler  # type: ignore[method-assign]
    found = trained(make_policy(), part(trainers=2, samplers=2), tmp_path / "ray", killer)
    assert killer.engine is not None
    assert killer.engine.replaced == 1
    taken_again = alone.graded[2:4]  # steps 2 and 3, from the state after step 1 on
    assert killer.graded == [*alone.graded[:4], *taken_again, *alone.graded[4:]]
    assert all(len(set(tasks)) == len(tasks) == PROMPTS for tasks in killer.graded)
    rows, before = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("ray", "alone"))
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert [row["reward"] for row in rows] == pytest.approx([row["reward"] for row in before])
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in before], abs=TOLERANCE)
    assert_alike(found, expected)


def test_one_step_off_uses_weights_one_update_older(session: None, tmp_path: Path) -> None:
    policy = make_policy()
    ages: list[int] = []
    stage = part(samplers=1, asynchronous=True, correction={"rule": "icepop", "low": 0.2, "high": 5.0})

    loads: list[int] = []  # the version that the trainer holds is the number of steps taken

    def observed(groups: Sequence[Group]) -> dict[str, float]:
        ages.append(len(loads) - groups[0].answered.samples[0].weights_version)
        return rollout_metrics(groups)

    with stage_workers(policy, stage, MODEL) as (spread, trainer):
        training = say(stage, spread, tmp_path / "run", trainer=trainer, after_step=loads.append)
        train_grpo(training, observe=observed)
    assert ages == [0, 1, 0, 1, 0]  # not across a saved state, so that resuming draws the same
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(rows) == STEPS
    assert all(0 <= float(row["dropped"]) <= 1 for row in rows)


def common(kind: str, source: str, **workers: Any) -> dict[str, Any]:
    stage = part(**workers).model_dump(
        include={"name", "steps", "save_every", "prompts_per_step", "sampling", "optimizer", "workers"}
    )
    return {**stage, "kind": kind, "rollouts_per_prompt": 4, "data": [mix(source)]}


def both_ways(tmp_path: Path, train: Callable[[dict[str, Any], Policy, Path, Trainer | None], None]) -> None:
    """What a stage learns with two trainers and two samplers is what it learns in one process."""
    found = []
    for name, workers in (("alone", {}), ("ray", {"trainers": 2, "samplers": 2})):
        policy, folder = make_policy(), tmp_path / name
        if not workers:
            train(workers, policy, folder, None)
            weights = weights_of(policy)
        else:
            with stage_workers(policy, part(**workers), MODEL) as (spread, trainer):
                assert isinstance(spread.engine, RayEngine) and isinstance(trainer, RayTrainer)
                train(workers, spread, folder, trainer)
                weights = weights_of(spread)
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        found.append((weights, [row["loss"] for row in rows]))
    (expected, losses), (weights, spread_losses) = found
    assert any(abs(float(loss)) > TOLERANCE for loss in losses)
    assert spread_losses == pytest.approx(losses, abs=TOLERANCE)
    assert_alike(weights, expected)


def frozen(policy: Policy, trainer: Trainer | None, folder: Path) -> Scored:
    """The policy's model as a teacher or reference: in the trainer group where there is one."""
    if trainer is None:
        return copy.deepcopy(policy.model).requires_grad_(False)
    assert isinstance(trainer, RayTrainer)
    policy.save(folder)
    return trainer.add_model(folder.name, folder)


def test_rlhf_with_workers(session: None, tmp_path: Path) -> None:
    def train(workers: dict[str, Any], policy: Policy, folder: Path, trainer: Trainer | None) -> None:
        stage = RLHFStage.model_validate(common("rlhf", "prefer_a", **workers))
        start = frozen(policy, trainer, tmp_path / "reference")
        train_rlhf(say(stage, policy, folder, trainer=trainer), reference=start)

    both_ways(tmp_path, train)


@pytest.mark.parametrize("full_vocabulary", [False, True])
def test_mopd_with_workers(session: None, tmp_path: Path, full_vocabulary: bool) -> None:
    def train(workers: dict[str, Any], policy: Policy, folder: Path, trainer: Trainer | None) -> None:
        teachers = {"math": frozen(make_policy(1), trainer, tmp_path / "teacher")}
        given = {**common("mopd", "say_a", **workers), "full_vocabulary": full_vocabulary}
        stage = MOPDStage.model_validate(given)
        train_mopd(say(stage, policy, folder, trainer=trainer, teachers=teachers))

    both_ways(tmp_path, train)


def test_trainers_without_samplers_sample_in_the_driver(session: None, tmp_path: Path) -> None:
    """Both groups' weights come from folders; the same answers are drawn as by one process."""
    expected = trained(make_policy(), part(), tmp_path / "alone", Killer())
    found = trained(make_policy(), part(trainers=2), tmp_path / "ray", Killer())
    assert_alike(found, expected)


def test_what_needs_one_process_is_refused(session: None) -> None:
    replay = part(samplers=1).model_copy(update={"moe": MoE(routing_replay=True)})
    with pytest.raises(UserError, match="routing_replay"), stage_workers(make_policy(), replay, MODEL):
        pass


ALONE = """
import os
from kascade.actors.session import ray_session
from kascade.recipe.workers import Workers
with ray_session(Workers(samplers=1)) as ray:
    worker = ray.remote(lambda: os.environ["RAY_AUTH_MODE"])
    print(ray.get(worker.remote()))
"""


def test_a_ray_of_our_own_asks_for_a_token_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    """A token in the home would make every later Ray of this user ask for it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split() == ["token"]
    assert not list(tmp_path.iterdir())


def test_a_sampler_with_other_weights_refuses(session: None, tmp_path: Path) -> None:
    policy = make_policy()
    make = partial(make_engine, tokenizer=policy.tokenizer, chat=policy.chat, part=policy.rollout)
    handover = Handover(ModelSource(policy.model, policy.tokenizer), tmp_path, MODEL)
    engine = RayEngine(ray, handover, make, Workers(samplers=1))
    prompts, params = [Prompt((2, 3, 4), 2, 7)], SamplingParams(max_new_tokens=3)
    try:
        with pytest.raises(TrainingStopped, match="no weights yet"):
            engine.sample(prompts, params)
        engine.load_weights(3)
        assert engine.weights_checksum == weights_checksum(policy.model)
        (samples,) = engine.sample(prompts, params)
        assert [sample.weights_version for sample in samples] == [3, 3]
        assert samples == policy_samples(policy, prompts, params)
        actor = engine._actors[0]
        with pytest.raises(TrainingStopped, match="a sampler holds weights 3"):
            ray.get(actor.sample.remote(4, prompts, params))
        right = weights_checksum(policy.model)
        spread = replace(policy, engine=engine)
        spread.check_weights()
        with torch.no_grad():
            next(policy.model.parameters()).view(-1)[0] += 1e-6
        with pytest.raises(TrainingStopped, match="changed without a sync"):
            spread.check_weights()
        folder, _ = handover.write(4)
        with pytest.raises(TrainingStopped, match="the trainer"):
            ray.get(actor.load_weights.remote(folder, 4, right))
    finally:
        engine.close()


def policy_samples(policy: Policy, prompts: list[Prompt], params: SamplingParams) -> list[Any]:
    policy.sync(3)
    return policy.engine.sample(prompts, params)[0]
