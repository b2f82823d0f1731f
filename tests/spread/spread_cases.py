"""Models, examples and cases of training by several processes; as a program, one process of a group.

    python -m torch.distributed.run --nproc-per-node N spread_cases.py FOLDER

makes every case for N processes from the models in FOLDER, compares it with the one-process result that lies
there as CASE.pt, and writes what it found as found-N.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, NemotronHConfig, PreTrainedModel, Qwen3Config, Qwen3MoeConfig

from kascade.learning.example import Example, Objective
from kascade.learning.model_trainer import ModelTrainer
from kascade.learning.objectives import FullDistillation, PolicyGradient, SampledDistillation, Supervised
from kascade.models.mesh import join_group, rank, wait_for_all, world
from kascade.models.mtp import add_mtp_head
from kascade.models.policy_model import load_policy_model
from kascade.models.routing import routers
from kascade.models.seams import whole
from kascade.recipe.model_parts import MTP, MoE
from kascade.recipe.parallel import Activations, Parallel
from kascade.recipe.schema import GRPO, ModelPart, Optimizer

VOCABULARY, HIDDEN, STEPS, EXPERTS = 63, 32, 4, 4  # a vocabulary that no number of processes divides
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
ATTENTION = {"hidden_size": HIDDEN, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
COMMON = {**TOKENS, **ATTENTION, "intermediate_size": 64, "initializer_range": 0.2}


def qwen3(*, tied: bool = False) -> Qwen3Config:
    return Qwen3Config(**COMMON, num_hidden_layers=2, tie_word_embeddings=tied)


def qwen3_moe() -> Qwen3MoeConfig:
    return Qwen3MoeConfig(
        **COMMON, num_hidden_layers=2, num_experts=EXPERTS, num_experts_per_tok=2, moe_intermediate_size=32,
        norm_topk_prob=True, tie_word_embeddings=False,
    )  # fmt: skip


def nemotron_h(**changes: Any) -> NemotronHConfig:
    return NemotronHConfig(
        **COMMON, hybrid_override_pattern="ME*E", mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=16,
        n_groups=2, chunk_size=16, n_routed_experts=EXPERTS, num_experts_per_tok=2, moe_latent_size=16,
        moe_intermediate_size=32, moe_shared_expert_intermediate_size=32, **changes,
    )  # fmt: skip


CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen3": qwen3,
    "qwen3-tied": lambda: qwen3(tied=True),
    "qwen3-moe": qwen3_moe,
    "nemotron-h": nemotron_h,
    "nemotron-h-mtp": lambda: nemotron_h(num_nextn_predict_layers=1),
}


def make_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A model whose experts' loads are uneven, so that balancing them is seen."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
    if name.endswith("mtp"):
        add_mtp_head(model)
    for parameter, tensor in model.named_parameters():
        if parameter.endswith("gate.weight"):
            nn.init.normal_(tensor, std=0.3)
    return model


def save_models(folder: Path) -> None:
    for name in CONFIGS:
        make_model(name).save_pretrained(folder / name)
        (folder / name / "tokenizer.json").write_text("{}")


@dataclass(frozen=True)
class Case:
    """How something is trained, and by which processes."""

    model: str
    processes: int
    parallel: Parallel = field(default_factory=Parallel)
    objective: str = "supervised"
    activations: Activations = "keep"
    moe: MoE | None = None
    mtp: MTP | None = None
    micro_batch_tokens: int = 160
    count: int = 8
    half: bool = False  # bfloat16 computes

    @property
    def name(self) -> str:
        layout = f"shard-{self.parallel.shard_of(self.processes)}"
        if self.parallel.experts > 1:
            layout += f"-experts-{self.parallel.experts}"
        if self.parallel.replicate > 1:
            layout += f"-replicate-{self.parallel.replicate}"
        parts = [self.model, self.objective, layout]
        parts += [self.activations] if self.activations != "keep" else []
        parts += ["replay"] if self.moe and self.moe.routing_replay else []
        parts += ["balanced"] if self.moe and self.moe.expert_bias_rate else []
        parts += ["frozen"] if self.moe and self.moe.freeze_router else []
        parts += ["mtp"] if self.mtp else []
        parts += ["bf16"] if self.half else []
        parts += ["few"] if self.count < self.processes else []
        parts += ["micro"] if self.micro_batch_tokens < 160 else []
        return "_".join(parts)


EP2 = Parallel(experts=2)
REPLAY = MoE(freeze_router=False, routing_replay=True, expert_bias_rate=0.0)
BALANCED = MoE(freeze_router=True, routing_replay=True, expert_bias_rate=0.01)
CASES = [
    Case("qwen3", 2),
    Case("qwen3", 2, objective="policy", activations="recompute"),
    Case("qwen3", 2, objective="full", micro_batch_tokens=40),
    Case("qwen3", 2, objective="sampled", count=1),
    Case("qwen3-tied", 2, activations="offload"),
    Case("qwen3-tied", 2, objective="full"),
    Case("qwen3-moe", 2, EP2, objective="policy", moe=REPLAY, activations="recompute"),
    Case("qwen3-moe", 2),
    Case("nemotron-h", 2, objective="policy"),
    Case("nemotron-h", 2, EP2, objective="policy", moe=BALANCED, micro_batch_tokens=40),
    Case("nemotron-h", 2, EP2, objective="sampled", activations="recompute"),
    Case("nemotron-h-mtp", 2, EP2, mtp=MTP(depth=2), moe=BALANCED),
    Case("nemotron-h-mtp", 2, mtp=MTP(train_backbone=False)),
    Case("qwen3", 2, half=True),
    Case("qwen3-moe", 2, EP2, half=True, activations="recompute"),
    Case("nemotron-h", 2, half=True),
    Case("qwen3", 4, objective="policy", count=3),
    Case("qwen3", 4, Parallel(replicate=2), objective="sampled"),
    Case("qwen3-moe", 4, Parallel(experts=4), activations="recompute"),
    Case("qwen3-moe", 4, Parallel(experts=2), objective="full", micro_batch_tokens=40),
    Case("nemotron-h", 4, EP2, objective="policy", moe=BALANCED, micro_batch_tokens=40),
    Case("nemotron-h", 4, Parallel(experts=2, replicate=2), objective="full"),
    Case("nemotron-h-mtp", 4, EP2, mtp=MTP(), moe=BALANCED, count=3),
]


def make_examples(case: Case, step: int) -> list[Example]:
    """Ragged, with every column that an objective may want and a sampler's routing."""
    draw = torch.Generator().manual_seed(7 + step)
    layers = 2
    lengths = [int(torch.randint(12, 40, (1,), generator=draw)) for _ in range(case.count)]
    total = sum(length - 5 for length in lengths)
    found = []
    for row, length in enumerate(lengths):
        scored = length - 5
        columns = {
            "weights": torch.full((scored,), 1.0 / total),
            "advantages": torch.randn(scored, generator=draw),
            "sampler_logprobs": -4.2 + 0.1 * torch.randn(scored, generator=draw),
            "teacher_logprobs": -4.0 + 0.3 * torch.randn(scored, generator=draw),
            "reference_logprobs": -4.2 + 0.1 * torch.randn(scored, generator=draw),
            "sequence": torch.full((scored,), row),
            "teacher": torch.full((scored,), row % 2),
            "teacher_hidden": torch.randn(scored, HIDDEN, generator=draw),
        }
        experts = [
            torch.stack([torch.randperm(EXPERTS, generator=draw)[:2] for _ in range(layers)])
            for _ in range(length - 1)
        ]
        ids = torch.randint(4, VOCABULARY, (length,), generator=draw).tolist()
        found.append(
            Example(ids, [False] * 5 + [True] * scored, columns, torch.stack(experts).to(torch.int16))
        )
    return found


def make_objective(kind: str) -> Objective:
    if kind == "policy":
        return PolicyGradient(1.0, GRPO(kl_coefficient=0.1))
    if kind == "sampled":
        return SampledDistillation(1.0, 0.2, 5.0)
    if kind == "full":
        torch.manual_seed(5)
        heads = [nn.Linear(HIDDEN, VOCABULARY, bias=False).requires_grad_(False) for _ in range(2)]
        return FullDistillation(1.0, 1e-9, 1e9, heads)
    return Supervised()


def trainer_of(case: Case, folder: Path) -> ModelTrainer:
    part = ModelPart(source="made here", precision="bf16" if case.half else "fp32")
    kept = case.activations if world() > 1 else "keep"
    model, _ = load_policy_model(folder / case.model, part, parallel=case.parallel, activations=kept)
    return ModelTrainer(
        model,
        Optimizer(learning_rate=1e-3),
        total_steps=STEPS,
        micro_batch_tokens=case.micro_batch_tokens,
        pad_id=0,
        moe=case.moe,
        mtp=case.mtp,
    )


def weights(trainer: ModelTrainer) -> dict[str, torch.Tensor]:
    """All parameters, whole, as the optimiser steps them, and the biases that balance experts."""
    masters, model = trainer.masters, trainer.model
    found = {name: whole(masters.of(p).detach()).clone() for name, p in model.named_parameters()}
    biases = {f"bias-{n}": r.e_score_correction_bias.clone() for n, r in enumerate(routers(model))
              if hasattr(r, "e_score_correction_bias")}  # fmt: skip
    return {**found, **biases}


def train(case: Case, folder: Path) -> dict[str, Any]:
    """Metrics of every update, weights after the last, and the share of the parameters held here."""
    trainer = trainer_of(case, folder)
    objective = make_objective(case.objective)
    metrics = [trainer.update(step, make_examples(case, step), objective) for step in range(STEPS)]
    held, all_of_them = 0, 0
    for parameter in trainer.model.parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        held, all_of_them = held + local.numel(), all_of_them + parameter.numel()
    assert all(tensor.dtype == torch.float32 for tensor in weights(trainer).values())
    return {"metrics": metrics, "weights": weights(trainer), "held": held / all_of_them}


def reference(case: Case, folder: Path) -> dict[str, Any]:
    """What one process makes of the case, made once."""
    path = folder / f"{case.name}.pt"
    if not path.exists():
        torch.save(train(case, folder), path)
    found: dict[str, Any] = torch.load(path)
    return found


def compare(found: dict[str, Any], expected: dict[str, Any], floor: float) -> dict[str, float]:
    """Largest differences: of losses and other metrics (relative above 1), of a tensor at the end.

    floor: of the norm to which a tensor's difference is set in relation.
    """
    worst = {"loss": 0.0, "metrics": 0.0}
    for own, other in zip(found["metrics"], expected["metrics"], strict=True):
        for name in own.keys() | other.keys():
            kind = "loss" if name == "loss" else "metrics"
            difference = abs(own[name] - other[name]) / max(1.0, abs(other[name]))
            worst[kind] = max(worst[kind], difference)
    tensors = [
        float((found["weights"][name] - tensor).norm() / tensor.norm().clamp(min=floor))
        for name, tensor in expected["weights"].items()
    ]
    return {**worst, "weights": max(tensors), "held": found["held"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    join_group()
    root = Path(sys.argv[1])
    results = {}
    for one in CASES:
        if one.processes == world():
            expected = torch.load(root / f"{one.name}.pt")
            # A bias that begins at 0 is all AdamW's steps, whose signs rounding decides.
            floor = 0.5 if one.half else 1e-9
            results[f"{one.processes}-{one.name}"] = compare(train(one, root), expected, floor)
    if rank() == 0:
        (root / f"found-{world()}.json").write_text(json.dumps(results))
        groups = len(torch.distributed.distributed_c10d._world.pg_map)
        (root / f"groups-{world()}.json").write_text(json.dumps(groups))
    wait_for_all()
    torch.distributed.destroy_process_group()
