"""Adapters on Ray: trained by a group, and teaching in it over the base of the one in training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_ray_workers import MODEL, WEIGHTS_TOLERANCE, common, part, say
from toy_cascade import make_tokenizer, save_base

from kascade.actors.session import ray_session
from kascade.actors.trainer_actor import Start, TrainerActor
from kascade.actors.trainer_group import RayTrainer
from kascade.actors.workers import Place, stage_workers
from kascade.learning.example import Example
from kascade.learning.group import POLICY
from kascade.learning.metrics import read_metrics
from kascade.learning.scoring import ScoreLogprobs
from kascade.models.adapter_targets import ADAPTER_WEIGHTS
from kascade.models.adapters import read_adapter, trained_tensors, write_adapter
from kascade.models.load import load_model
from kascade.models.policy_model import NewAdapter, load_policy_model
from kascade.recipe.adapter import Adapter
from kascade.recipe.schema import MOPDStage
from kascade.recipe.workers import Workers
from kascade.rollout.policy import Policy
from kascade.stages.grpo import train_grpo
from kascade.stages.mopd import train_mopd

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="Ray is not installed: stages with several workers were not run")
START = f"file:///base@sha256:{'0' * 64}"
NEW = NewAdapter(Adapter(rank=4, alpha=8), START, 3)


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with ray_session(Workers(trainers=2, samplers=1)):
        yield


def save_teacher(base: Path, folder: Path, seed: int) -> Path:
    """An adapter of the base that says something of its own."""
    model, _ = load_policy_model(base, MODEL, adapter=NewAdapter(Adapter(rank=2, alpha=8), START, seed))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in trained_tensors(model).values():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=draw))
    write_adapter(model, make_tokenizer(), folder, base="0" * 64)
    return folder


def assert_same_adapter(folder: Path | None, policy: Policy) -> None:
    """The adapter in a folder is the one that the policy has, but for the order of additions."""
    assert folder is not None and not (folder / "model.safetensors").exists()
    found = load_file(folder / ADAPTER_WEIGHTS)
    expected = {name: tensor.detach() for name, tensor in trained_tensors(policy.model).items()}
    assert len(found) == len(expected)
    for name, tensor in expected.items():
        (written,) = (value for key, value in found.items() if key.endswith(name.replace(".default.", ".")))
        assert float((written - tensor).norm() / tensor.norm()) < WEIGHTS_TOLERANCE, name


def on_ray(base: Path, folder: Path) -> tuple[Policy, Place]:
    policy = Policy.load(base, MODEL, sampled_elsewhere=True, held_elsewhere=True, adapter=NEW)
    return policy, Place(base, folder / "versions", NEW)


def test_an_adapter_on_ray_is_the_one_of_one_process(session: None, tmp_path: Path) -> None:
    """Two trainers hold halves of the base and the whole adapter; samplers get the adapter alone."""
    base = save_base(tmp_path / "base")
    alone = Policy.load(base, MODEL, adapter=NEW)
    train_grpo(say(part(), alone, tmp_path / "alone"))

    stage = part(trainers=2, samplers=1)
    policy, place = on_ray(base, tmp_path)
    with stage_workers(policy, stage, MODEL, place) as (spread, trainer):
        train_grpo(say(stage, spread, tmp_path / "ray", trainer=trainer))
        judge = spread.whole_copy()  # as a reward model begins: the base in this process, with the adapter
    assert_same_adapter(policy.final, alone)
    own, others = trained_tensors(judge), dict(alone.model.named_parameters())
    assert {name for name, p in judge.named_parameters() if p.requires_grad} == set(own)
    for name, tensor in judge.named_parameters():
        assert torch.allclose(tensor, others[name], atol=WEIGHTS_TOLERANCE), name


def test_adapters_teach_an_adapter_on_ray_as_in_one_process(session: None, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    taught = save_teacher(base, tmp_path / "teacher", 5)
    given: dict[str, Any] = {**common("mopd", "say_a"), "full_vocabulary": True}
    teacher = load_model(base, precision="fp32")
    read_adapter(teacher, taught)
    alone = Policy.load(base, MODEL, adapter=NEW)
    train_mopd(say(MOPDStage.model_validate(given), alone, tmp_path / "alone", teachers={"math": teacher}))

    stage = MOPDStage.model_validate({**given, "workers": {"trainers": 2, "samplers": 1}})
    policy, place = on_ray(base, tmp_path)
    with stage_workers(policy, stage, MODEL, place) as (spread, trainer):
        assert isinstance(trainer, RayTrainer)
        teachers = {"math": trainer.add_model("teacher", taught, base)}
        train_mopd(say(stage, spread, tmp_path / "ray", trainer=trainer, teachers=teachers))
    assert_same_adapter(policy.final, alone)
    losses = [[row["loss"] for row in read_metrics(tmp_path / n / "metrics.jsonl")] for n in ("alone", "ray")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_one_base_is_in_memory_however_many_adapters_teach(tmp_path: Path) -> None:
    """Two teachers and the reference score over the policy's own weights, which then learn on as before."""
    base = save_base(tmp_path / "base")
    folders = [save_teacher(base, tmp_path / f"teacher-{seed}", seed) for seed in (5, 6)]
    actor = TrainerActor(1)
    actor.begin(Start(base, MODEL, part(), 0, NEW))
    before, size = actor.checksum_of(POLICY), sum(p.numel() for p in actor._models[POLICY].parameters())
    for folder in folders:
        actor.add_model(folder.name, folder, base)
    actor.add_model("reference", base, None)
    assert actor._frozen == {}
    adapters = sum(t.numel() for folder in folders for t in load_file(folder / ADAPTER_WEIGHTS).values())
    assert sum(p.numel() for p in actor._models[POLICY].parameters()) == size + adapters
    example = [Example([2, 5, 6, 3, 7, 8], [False] * 3 + [True] * 3)]
    how = {"micro_batch_tokens": 16, "pad_id": 0}
    for name, folder in (("teacher-5", folders[0]), ("reference", None), ("teacher-6", folders[1])):
        own = load_model(base, precision="fp32")
        if folder is not None:
            read_adapter(own, folder)
        (found,) = actor.score(name, example, ScoreLogprobs(), how)
        alone = TrainerActor(1)
        alone._models[POLICY] = own
        (expected,) = alone.score(POLICY, example, ScoreLogprobs(), how)
        assert torch.allclose(found, expected, atol=1e-6), name
    assert actor.checksum_of(POLICY) == before
    learns = {name for name, p in actor._models[POLICY].named_parameters() if p.requires_grad}
    assert learns == set(trained_tensors(actor._models[POLICY])) and learns
