"""Stages that train an adapter: each way to learn, interrupted, examined, taught by adapters, merged."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_steps import guarded, start
from toy_cascade import make_run, stage
from transformers import AutoModelForCausalLM

from kascade.errors import CheckpointError, UserError
from kascade.guard.lineage import open_reference
from kascade.guard.verdict import read_verdict
from kascade.learning.metrics import read_metrics
from kascade.models.adapters import trained_tensors
from kascade.models.hub_folder import write_adapter_alone, write_whole
from kascade.models.load import is_adapter, load_model
from kascade.recipe.adapter import Adapter
from kascade.recipe.run_recipe import keep_recipe, read_run_recipe
from kascade.rollout.policy import Policy
from kascade.run.context import open_run
from kascade.stages.teachers import load_teachers
from kascade.stages.train import load_policy
from kascade.stages.training import Training
from kascade.steps import steps
from kascade.storage.checkpoint import CheckpointRef, base_of, verify
from kascade.storage.run_folder import RunFolder

ADAPTER = {"rank": 4, "alpha": 8}
RATE = {"learning_rate": 1e-2, "weight_decay": 0.0}
SFT = stage("sft", "sft", "say_a", "say_b", steps=30, optimizer={"learning_rate": 3e-2, "weight_decay": 0.0})
FORGET = stage("forget", "sft", "say_a", steps=16, optimizer={"learning_rate": 6e-2, "weight_decay": 0.0})


def cascade(folder: Path, *stages: dict[str, Any], **guard: Any) -> RunFolder:
    return make_run(folder, *stages, adapter=ADAPTER, **guard)


def files(reference: str) -> set[str]:
    return {path.name for path in CheckpointRef.parse(reference).path.iterdir()}


def curve(layout: RunFolder, name: str) -> list[dict[str, Any]]:
    """Of a stage's own training."""
    (path,) = (layout.root / "training" / name).glob("train-*/metrics.jsonl")
    return read_metrics(path)


def test_every_way_to_learn_trains_one_adapter_on_and_the_base_stays(tmp_path: Path) -> None:
    """GRPO, RLHF with a KL to its start, MOPD and SFT, from a stage that trained all weights."""
    few: dict[str, Any] = {"optimizer": RATE, "adapter": ADAPTER}
    layout = make_run(
        tmp_path,
        stage("sft", "sft", "say_a", "say_b", steps=10),
        stage("rl", "if_rl", "say_a", **few),
        stage("rlhf", "rlhf", "prefer_a", **{**few, "steps": 4}, grpo={"kl_coefficient": 0.03}),
        stage(
            "mopd",
            "mopd",
            "say_a",
            "say_b",
            **{**few, "steps": 4},
            teachers={"math": "rl", "knowledge": "sft"},
        ),
        stage("more", "sft", "say_a", "say_b", **{**few, "steps": 4}),
    )
    base = guarded(layout, "sft", start(layout))
    made = [base]
    for name in ("rl", "rlhf", "mopd", "more"):
        made.append(guarded(layout, name, made[-1]))
    for reference in made[1:]:
        manifest = open_reference(reference).manifest
        assert manifest.base == base
        assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= files(reference)
        assert "model.safetensors" not in files(reference)
        assert base_of(verify(reference)[0]) == (base, CheckpointRef.parse(base).path)
    gaps = [line["logprob_gap"] for name in ("rl", "rlhf", "mopd") for line in curve(layout, name)]
    assert max(gaps) < 1e-4, "sampler and trainer must see the same adapter"
    rewards = [line["reward"] for line in curve(layout, "rl")]
    assert rewards[-1] > rewards[0] + 0.1
    losses = [line["loss"] for line in curve(layout, "more")]
    assert losses[-1] < losses[0]
    assert guarded(layout, "rl", base) == made[1], "what is finished is found again"


def test_a_recovery_is_taught_by_adapters_over_one_base(tmp_path: Path) -> None:
    layout = cascade(tmp_path, SFT, FORGET)
    base = start(layout)
    first = guarded(layout, "sft", base)
    second = guarded(layout, "forget", first)
    recovered = open_reference(second).manifest
    assert recovered.attempt.startswith("recover-")
    assert recovered.base == base
    lost = read_verdict(layout, open_reference(recovered.parent or "").manifest.id)
    assert lost is not None
    assert lost.regressed
    teachers = {domain: open_reference(reference) for domain, reference in recovered.teachers.items()}
    assert {one.manifest.base for one in teachers.values()} == {base}
    with open_run(str(layout.root), "forget.recover-1") as opened:
        policy = load_policy(
            opened, opened.recipe.stages[1], recovered.parent or "", Adapter.model_validate(ADAPTER)
        )
        models = load_teachers(opened, {**teachers, "code": open_reference(base)}, policy)
    held = {p.data_ptr() for p in policy.model.parameters()}
    alone = {
        name
        for model in models.values()
        for name, p in model.named_parameters()
        if p.data_ptr() not in held and ".lora_" not in name
    }
    assert alone == set(), "one base in memory, whoever teaches"
    assert sum(p.numel() for p in trained_tensors(policy.model).values()) < 0.5 * sum(
        p.numel() for p in policy.model.parameters()
    )


def train(folder: Path, kill_at: int | None = None) -> dict[str, torch.Tensor]:
    """The adapter of six updates; `kill_at`: SIGKILL after so many, without a word."""
    layout = cascade(folder, stage("rl", "if_rl", "say_a", steps=6, save_every=2, optimizer=RATE))
    base = steps.preflight(str(layout.root))
    if kill_at is not None:

        def run_steps(self: Training[Any], *arguments: Any) -> None:
            self.after_step = lambda done: os.kill(os.getpid(), signal.SIGKILL) if done == kill_at else None
            plain(self, *arguments)

        plain, Training.run_steps = Training.run_steps, run_steps  # type: ignore[method-assign]
    made = steps.train(str(layout.root), "rl", base)
    return load_file(CheckpointRef.parse(made).path / "adapter_model.safetensors")


def test_killed_and_run_again_gives_the_same_adapter_and_states_hold_no_base(tmp_path: Path) -> None:
    expected = train(tmp_path / "whole")
    child = multiprocessing.get_context("fork").Process(target=train, args=(tmp_path / "cut", 5))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    (state,) = (tmp_path / "cut" / "run").glob("training/**/step-00000004/model.safetensors")
    assert all(".lora_" in name for name in load_file(state))
    layout = RunFolder(tmp_path / "cut" / "run")
    made = steps.train(str(layout.root), "rl", steps.preflight(str(layout.root)))
    found = load_file(CheckpointRef.parse(made).path / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_merged_at_its_end_a_stage_leaves_a_whole_model_for_the_next(tmp_path: Path) -> None:
    merged = {**SFT, "steps": 4, "adapter": {**ADAPTER, "at_end": "merge"}}
    layout = make_run(tmp_path, merged, stage("rl", "if_rl", "say_a", steps=2))
    run = str(layout.root)
    base = steps.preflight(run)
    first = steps.train(run, "sft", base)
    assert open_reference(first).manifest.base is None
    assert "model.safetensors" in files(first)
    second = steps.train(run, "rl", first)
    assert open_reference(second).manifest.base is None
    before, after = (load_model(CheckpointRef.parse(r).path) for r in (first, second))
    moved = [
        n
        for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert len(moved) == len(list(before.parameters())), "the second stage has no adapter: all weights learn"


def test_a_stage_without_an_adapter_trains_what_the_accepted_adapter_and_base_are_together(
    tmp_path: Path,
) -> None:
    layout = make_run(
        tmp_path, {**SFT, "steps": 4, "adapter": ADAPTER}, stage("rl", "if_rl", "say_a", steps=1)
    )
    run = str(layout.root)
    first = steps.train(run, "sft", steps.preflight(run))
    with open_run(run, "rl.train") as opened:
        trained = load_policy(opened, opened.recipe.stages[1], first, None)
        examined = Policy.load(verify(first)[0], opened.recipe.model)
    pairs = zip(trained.model.named_parameters(), examined.model.named_parameters(), strict=True)
    assert all(one[0] == other[0] and torch.equal(one[1], other[1]) for one, other in pairs)
    assert open_reference(steps.train(run, "rl", first)).manifest.base is None


def test_an_adapter_whose_base_is_gone_or_changed_is_refused(tmp_path: Path) -> None:
    layout = cascade(tmp_path, {**SFT, "steps": 1})
    run = str(layout.root)
    base = steps.preflight(run)
    made = steps.train(run, "sft", base)
    folder = verify(made)[0]
    moved = tmp_path / "moved"
    shutil.copytree(layout.root, moved)
    copied = moved / folder.relative_to(layout.root)
    load_model(copied)
    shutil.rmtree(CheckpointRef.parse(base).path)
    reference, found = base_of(copied)
    assert found.is_relative_to(moved), "a run that moved finds its base beside it"
    assert CheckpointRef.parse(reference).digest == CheckpointRef.parse(base).digest
    with pytest.raises(UserError, match="no manifest"):
        load_model(folder)
    weights = found / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises((UserError, CheckpointError), match="changed since"):
        load_model(copied)


def test_an_adapter_is_exported_whole_or_alone_and_starts_another_run(tmp_path: Path) -> None:
    layout = cascade(tmp_path, {**SFT, "steps": 2})
    run = str(layout.root)
    made = steps.train(run, "sft", steps.preflight(run))
    folder = verify(made)[0]
    write_whole(folder, tmp_path / "whole")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    expected = load_model(folder)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), expected.parameters(), strict=True))
    write_adapter_alone(folder, tmp_path / "alone")
    adapted = PeftModel.from_pretrained(load_model(base_of(folder)[1]), tmp_path / "alone").eval()
    ids = torch.tensor([[2, 5, 6, 7]])
    torch.testing.assert_close(
        adapted(input_ids=ids).logits, expected(input_ids=ids).logits, atol=1e-5, rtol=0
    )
    with pytest.raises(UserError, match="holds a whole model"):
        write_adapter_alone(tmp_path / "whole", tmp_path / "no")
    again = make_run(tmp_path / "again", {**SFT, "steps": 1})
    recipe = read_run_recipe(again.root)
    started = recipe.model_copy(update={"model": recipe.model.model_copy(update={"source": str(folder)})})
    keep_recipe(again, started)
    base = steps.preflight(str(again.root))
    assert not is_adapter(Path(CheckpointRef.parse(base).path)), "stages, spread ones too, begin whole"
    taken = load_model(CheckpointRef.parse(base).path)
    assert all(torch.equal(a, b) for a, b in zip(taken.parameters(), expected.parameters(), strict=True))
