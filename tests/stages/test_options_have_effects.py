"""Every field of a stage that says how it trains is measured: what it should change changes, and no more.

An option that does nothing passes every other test. Each row here trains a tiny model twice, with the field
and without, and looks at what came of it: the weights, micro-batches, bytes kept for a backward, states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from test_dpo import dpo_stage, preference_rows
from test_model_controls import make_hybrid
from toy_cascade import make_model, make_tokenizer, stage

from kascade.data.chat import ChatFormat
from kascade.errors import TrainingStopped
from kascade.learning.metrics import read_metrics
from kascade.models.activations import use_activations
from kascade.models.adapters import add_adapter
from kascade.recipe.adapter import Adapter
from kascade.recipe.methods import method_of
from kascade.recipe.schema import Stage
from kascade.rollout.policy import Policy
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.storage.training_folder import TrainingFolder

PARTS: TypeAdapter[Any] = TypeAdapter(Stage)
STEPS = 3
ROUNDING = 2e-3
SMALL: dict[str, Any] = {"steps": STEPS, "save_every": 1, "optimizer": {"learning_rate": 5e-3}}
GROUPS: dict[str, Any] = {"prompts_per_step": 4, "rollouts_per_prompt": 4, "sampling": {"max_new_tokens": 4}}
GRADED: dict[str, Any] = {**GROUPS, "grpo": {"min_usable_groups": 1}}


@dataclass(frozen=True)
class Seen:
    """What came of a training."""

    weights: Mapping[str, torch.Tensor]
    micro_batches: int
    kept: int  # bytes for all backwards
    states: int
    curves: list[dict[str, Any]]

    def moved_as(self, other: Seen) -> bool:
        return all(torch.equal(tensor, other.weights[name]) for name, tensor in self.weights.items())

    def learnt_as(self, other: Seen) -> bool:
        """But for rounding, of which AdamW makes parts of the rate where gradients are near 0."""
        pairs = [(tensor, other.weights[name]) for name, tensor in self.weights.items()]
        return all(float((a - b).norm()) <= ROUNDING * float(a.norm() + 1e-9) for a, b in pairs)


def base(kind: str) -> dict[str, Any]:
    if kind == "dpo":
        return dpo_stage(Path("pairs.jsonl"), **SMALL)
    source = "prefer_a" if kind == "rlhf" else "say_a"
    sizes = {"sft": {"batch_size": 8}, "mopd": GROUPS}.get(kind, GRADED)
    return stage("s", kind, source, **{**SMALL, **sizes})


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: value for name, value in second.items() if isinstance(value, dict)}
    inner = {name: merged(first.get(name) or {}, value) for name, value in both.items()}
    return {**first, **second, **inner}


def policy_for(hybrid: bool, adapter: dict[str, Any] | None, kept: Any) -> Policy:
    torch.manual_seed(0)
    model, tokenizer = make_hybrid() if hybrid else make_model(), make_tokenizer()
    model.get_input_embeddings().padding_idx = None  # as `load_model` does
    use_activations(model, kept)
    if adapter is not None:
        add_adapter(model, Adapter.model_validate(adapter), 3)
    return Policy.around(model, tokenizer, ChatFormat(tokenizer))


def train(folder: Path, kind: str, *, hybrid: bool = False, **fields: Any) -> Seen:
    adapter = fields.get("adapter")
    part = PARTS.validate_python(merged(base(kind), fields))
    policy = policy_for(hybrid, adapter, part.activations)
    place, bytes_kept, forwards = TrainingFolder(folder), 0, 0
    training = Training(part, policy, training_pool(part.data, 0, "s"), "s", folder=place)
    if kind == "mopd":
        training.teachers = {"math": make_model(1).requires_grad_(False)}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal bytes_kept
        bytes_kept += tensor.nbytes
        return tensor

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += torch.is_grad_enabled()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.model.get_output_embeddings().register_forward_hook(count)
        method_of(part).load()(training)
    weights = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    weights |= {name: b.detach().clone() for name, b in policy.model.named_buffers()}
    states = len(list(place.states.glob("step-*")))
    return Seen(weights, forwards, bytes_kept, states, read_metrics(place.curves))


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    preference_rows(tmp_path)


KINDS = ["sft", "if_rl", "rlhf", "mopd", "dpo"]
ADAPTERS: list[dict[str, Any] | None] = [None, {"rank": 2, "alpha": 8}]
OPTIMIZER: list[dict[str, Any]] = [
    {"learning_rate": 1e-2},
    {"final_learning_rate": 0, "schedule": "linear"},
    {"final_learning_rate": 0, "schedule": "cosine"},
    {"warmup_steps": 2},
    {"warmup_steps": 2, "warmup_start": 1e-3},
    {"betas": [0.5, 0.95]},
    {"betas": [0.9, 0.5]},
    {"weight_decay": 0.9},
    {"max_grad_norm": 1e-9},
]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=["whole", "adapter"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_every_stage_has(kind: str, adapter: dict[str, Any] | None, tmp_path: Path) -> None:
    more: dict[str, Any] = {} if adapter is None else {"adapter": adapter}
    plain = train(tmp_path / "plain", kind, **more)
    assert plain.moved_as(train(tmp_path / "again", kind, **more))
    for number, changed in enumerate(OPTIMIZER):
        other = train(tmp_path / f"optimizer-{number}", kind, optimizer=changed, **more)
        assert not plain.moved_as(other), changed
    small = train(tmp_path / "small", kind, micro_batch_tokens=16, **more)
    assert small.micro_batches > plain.micro_batches and small.learnt_as(plain)
    for activations in ("recompute", "offload"):
        other = train(tmp_path / activations, kind, activations=activations, **more)
        assert other.kept < 0.75 * plain.kept and other.learnt_as(plain)
    host = train(tmp_path / "host", kind, frozen_weights="host", **more)
    assert host.moved_as(plain)
    assert plain.states == 2
    assert train(tmp_path / "states", kind, keep_states=1, **more).states == 1
    assert train(tmp_path / "every", kind, save_every=STEPS, **more).states == 1
    for limit in ({"max_entropy": 0.001}, {"min_entropy": 100.0}):
        with pytest.raises(TrainingStopped, match="entropy"):
            train(tmp_path / f"limit-{next(iter(limit))}", kind, limits=limit, **more)


ONE_KIND: list[tuple[str, dict[str, Any], dict[str, Any]]] = [  # kind, what both have, what one has
    ("sft", {}, {"batch_size": 4}),
    ("sft", {}, {"max_tokens": 9}),
    ("sft", {"adapter": {"rank": 2}}, {"adapter": {"dropout": 0.5}}),
    ("sft", {"adapter": {"rank": 2}}, {"adapter": {"alpha": 64}}),
    ("dpo", {}, {"beta": 1.0}),
    ("dpo", {}, {"length_normalized": True}),
    ("dpo", {}, {"pairs_per_step": 8}),
    ("if_rl", {}, {"prompts_per_step": 6}),
    ("if_rl", {}, {"rollouts_per_prompt": 6}),
    ("if_rl", {}, {"sampling": {"temperature": 0.5}}),
    ("if_rl", {}, {"sampling": {"top_p": 0.5}}),
    ("if_rl", {}, {"sampling": {"top_k": 2}}),
    ("if_rl", {}, {"sampling": {"max_new_tokens": 8}}),
    ("if_rl", {}, {"grpo": {"baseline": "leave_one_out"}}),
    ("if_rl", {}, {"grpo": {"normalize_std": False}}),
    ("if_rl", {"sampling": {"max_new_tokens": 16}}, {"grpo": {"aggregation": "sample"}}),
    ("if_rl", {}, {"grpo": {"aggregation": "constant"}}),
    ("if_rl", {}, {"grpo": {"updates_per_batch": 3}}),
    ("if_rl", {"grpo": {"updates_per_batch": 3}}, {"grpo": {"clip": {"low": 1e-6, "high": 1e-6}}}),
    ("if_rl", {"grpo": {"updates_per_batch": 3}}, {"grpo": {"clip": {"low": 0.2, "high": 1e-6}}}),
    ("if_rl", {}, {"grpo": {"correction": {"rule": "tis", "low": 0.5, "high": 1.0000001}}}),
    ("if_rl", {}, {"grpo": {"kl_coefficient": 1.0}}),
    ("if_rl", {}, {"grpo": {"min_usable_groups": 4, "drop_below_best": 0.9}}),
    ("if_rl", {"sampling": {"max_new_tokens": 1}}, {"grpo": {"dynamic_filtering": False}}),
    ("if_rl", {"sampling": {"max_new_tokens": 1}}, {"grpo": {"max_generation_batches": 4}}),
    ("if_rl", {}, {"grpo": {"overlong": "filter"}}),
    ("if_rl", {}, {"grpo": {"overlong": "penalty"}}),
    ("if_rl", {}, {"grpo": {"drop_below_best": 0.5}}),
    ("if_rl", {}, {"curriculum": {"drop_from": 0.1}}),
    ("mopd", {}, {"full_vocabulary": True}),
    ("mopd", {"limits": {"max_dropped_tokens": None}}, {"importance": {"low": 0.9999999}}),
    ("mopd", {}, {"sampling": {"temperature": 0.5}}),
    ("mopd", {}, {"rollouts_per_prompt": 2}),
    ("mopd", {}, {"min_teacher_gap": 1.0}),
    ("rlhf", {}, {"grpo": {"kl_coefficient": 0}}),
    ("rlhf", {"sampling": {"max_new_tokens": 16}}, {"pairwise": {"length_coefficient": 0}}),
    ("rlhf", {"sampling": {"max_new_tokens": 16}}, {"pairwise": {"conciseness_bonus": 0}}),
    ("rlhf", {"sampling": {"max_new_tokens": 16}}, {"pairwise": {"conciseness_percentile": 0}}),
]
HYBRID: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *((kind, {}, {"moe": {"expert_bias_rate": 0}}) for kind in ("sft", "if_rl", "dpo")),
    ("sft", {"moe": {}}, {"moe": {"expert_bias_rate": 0.1}}),
    ("if_rl", {"moe": {}}, {"moe": {"expert_bias_rate": 0.1}}),
    ("sft", {}, {"mtp": {}}),
    ("if_rl", {}, {"mtp": {}}),
    ("sft", {"mtp": {}}, {"mtp": {"loss_scale": 3.0}}),
    ("sft", {"mtp": {}}, {"mtp": {"depth": 2}}),
    ("sft", {"mtp": {}}, {"mtp": {"train_backbone": False}}),
]


@pytest.mark.parametrize(("kind", "both", "changed"), ONE_KIND, ids=str)
def test_what_one_kind_has(kind: str, both: dict[str, Any], changed: dict[str, Any], tmp_path: Path) -> None:
    plain, other = train(tmp_path / "a", kind, **both), train(tmp_path / "b", kind, **merged(both, changed))
    assert not plain.moved_as(other)


@pytest.mark.parametrize(("kind", "both", "changed"), HYBRID, ids=str)
def test_what_experts_and_draft_heads_have(
    kind: str, both: dict[str, Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    plain = train(tmp_path / "a", kind, hybrid=True, **both)
    assert not plain.moved_as(train(tmp_path / "b", kind, hybrid=True, **merged(both, changed)))
