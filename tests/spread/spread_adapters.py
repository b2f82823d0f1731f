"""Adapters on shards, as a program: one process of a group, or alone.

    python -m torch.distributed.run --nproc-per-node N spread_adapters.py MODELS FOLDER

One adapter is trained; two others and their base, which is there once, score. Results go to
FOLDER/found-N.pt.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from spread_cases import STEPS, Case, make_examples, make_objective
from torch import Tensor

from kascade.learning.model_trainer import ModelTrainer
from kascade.learning.scoring import ScoreLogprobs, score_examples
from kascade.models.adapter_set import choose_adapter, hang_adapter
from kascade.models.adapters import add_adapter, dropping, trained_tensors, write_adapter
from kascade.models.export import export_weights
from kascade.models.load import load_model
from kascade.models.mesh import join_group, rank, wait_for_all, world
from kascade.models.policy_model import NewAdapter, load_policy_model
from kascade.recipe.adapter import Adapter
from kascade.recipe.parallel import Parallel
from kascade.recipe.schema import ModelPart, Optimizer

NAMES = ("qwen3", "nemotron-h")
PART = ModelPart(source="made here", precision="fp32")


def save_teachers(models: Path, folder: Path) -> None:
    """Two adapters of each model that do something."""
    for name in NAMES:
        for number in (1, 2):
            model = load_model(models / name, precision="fp32")
            add_adapter(model, Adapter(rank=4, alpha=8), number)
            draw = torch.Generator().manual_seed(number)
            with torch.no_grad():
                for tensor in trained_tensors(model).values():
                    tensor.copy_(0.05 * torch.randn(tensor.shape, generator=draw))
            write_adapter(model, None, folder / f"{name}-{number}", base="0" * 64)


def run(models: Path, folder: Path, name: str) -> dict[str, Any]:
    experts = 2 if world() > 1 and name == "nemotron-h" else 1
    layout = Parallel(experts=experts, replicate=2 if world() > 2 else 1)
    case = Case(name, world(), layout)
    adapter = NewAdapter(Adapter(rank=4, alpha=8), "", 3)
    model, _ = load_policy_model(models / name, PART, parallel=layout, adapter=adapter)
    part = Optimizer(learning_rate=1e-3)
    trainer = ModelTrainer(model, part, total_steps=STEPS, micro_batch_tokens=160, pad_id=0)
    losses = [
        trainer.update(step, make_examples(case, step), make_objective("policy"))["loss"]
        for step in range(STEPS)
    ]
    export_weights(model, folder / f"{name}-merged-{world()}")
    base = load_model(models / name, precision="fp32", parallel=layout).requires_grad_(False)
    for number in (1, 2):
        hang_adapter(base, folder / f"{name}-{number}", f"frozen{number}")
    scores = {}
    for who in ("frozen1", None, "frozen2", "frozen1"):
        choose_adapter(base, who)
        found = score_examples(
            base, make_examples(case, 0), ScoreLogprobs(), micro_batch_tokens=160, pad_id=0
        )
        scores[str(who)] = [values.clone() for values in found]
    # One row for two processes, with nothing but tokens: what a canary and DPO score.
    bare = [replace(example, columns={}) for example in make_examples(case, 0)[:1]]
    scores["bare"] = score_examples(base, bare, ScoreLogprobs(), micro_batch_tokens=160, pad_id=0)
    weights = {key: tensor.detach().clone() for key, tensor in trained_tensors(model).items()}
    return {"losses": losses, "weights": weights, "scores": scores}


def dropped_inputs(models: Path) -> list[Tensor]:
    """What an adapter drops in an update of this process, made twice with one seed."""
    adapter = NewAdapter(Adapter(rank=4, dropout=0.5), "", 3)
    model, _ = load_policy_model(models / "qwen3", PART, parallel=Parallel(), adapter=adapter)
    (dropout, *_) = (m for name, m in model.named_modules() if name.endswith("lora_dropout.default"))
    found = []
    for _ in range(2):
        with dropping(model, 5):
            found.append(dropout(torch.ones(64)))
    return found


def main(models: Path, folder: Path) -> dict[str, Any]:
    return {"dropped": dropped_inputs(models), **{name: run(models, folder, name) for name in NAMES}}


if __name__ == "__main__":
    torch.set_num_threads(1)
    join_group()
    results = main(Path(sys.argv[1]), Path(sys.argv[2]))
    torch.save(results, Path(sys.argv[2]) / f"found-{rank()}.pt")
    wait_for_all()
    torch.distributed.destroy_process_group()
