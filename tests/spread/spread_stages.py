"""Whole stages under torchrun, as a program: one process of a group, or alone.

    python -m torch.distributed.run --nproc-per-node N spread_stages.py FOLDER

DPO on all weights, DPO and SFT of an adapter, and DPO of an adapter that learns on from FOLDER/adapter. The
weights that each ends with go to FOLDER/NAME-N.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import torch
from test_dpo import dpo_stage
from toy_cascade import ENVIRONMENTS, stage
from transformers import PreTrainedModel

from kascade.environments import BUILTIN
from kascade.learning.metrics import read_metrics
from kascade.models.adapters import add_adapter, copy_adapter, trained_tensors, write_adapter
from kascade.models.export import export_weights
from kascade.models.load import load_model
from kascade.models.mesh import join_group, rank, wait_for_all, world
from kascade.models.policy_model import NewAdapter
from kascade.recipe.adapter import Adapter
from kascade.recipe.dpo import DPOStage
from kascade.recipe.parallel import Parallel
from kascade.recipe.schema import ModelPart, SFTStage
from kascade.rollout.policy import Policy
from kascade.stages.dpo import train_dpo
from kascade.stages.sft import train_sft
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.storage.run_paths import TrainingFolder

MODEL = ModelPart(source="made here", precision="fp32")


PART = Adapter(rank=4, alpha=8)
NAMES = ("dpo", "sft", "dpo-adapter", "dpo-on")


def save_adapter(model: Path, folder: Path) -> None:
    """An adapter of the model in a folder that does something."""
    made = load_model(model, precision="fp32")
    add_adapter(made, PART, 7)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in trained_tensors(made).values():
            tensor.copy_(0.05 * torch.randn(tensor.shape, generator=draw))
    write_adapter(made, None, folder, base="0" * 64)


def train(folder: Path, name: str) -> tuple[list[float], int]:
    """The losses of a stage, and how many models it holds here. Its last weights lie in FOLDER/NAME-N."""
    part: Any
    if name.startswith("dpo"):
        part = DPOStage.model_validate(dpo_stage(folder / "pairs.jsonl"))
    else:
        part = SFTStage.model_validate(stage("sft", "sft", "say_a", "say_b", steps=6))
    adapter = NewAdapter(PART, f"file:///base@sha256:{'0' * 64}", 3) if name != "dpo" else None
    before, held = num_models(), list[int]()
    policy = Policy.load(folder / "model", MODEL, parallel=Parallel(), adapter=adapter)
    if name == "dpo-on":
        copy_adapter(policy.model, folder / "adapter")
        policy.folder = folder / "adapter"
    place = TrainingFolder(folder / f"training-{name}-{world()}")
    training = Training(part, policy, training_pool(part.data, 0, name), name, folder=place)
    training.after_step = lambda done: held.append(num_models()) if done == 1 else None
    (train_dpo if name.startswith("dpo") else train_sft)(training)  # type: ignore[operator]
    export_weights(policy.model, folder / f"{name}-{world()}")
    return [float(row["loss"]) for row in read_metrics(place.curves)], held[0] - before


def num_models() -> int:
    """In the memory of this process."""
    gc.collect()
    return sum(isinstance(one, PreTrainedModel) and hasattr(one, "lm_head") for one in gc.get_objects())


def main(folder: Path) -> dict[str, tuple[list[float], int]]:
    BUILTIN.update(ENVIRONMENTS)
    return {name: train(folder, name) for name in NAMES}


if __name__ == "__main__":
    torch.set_num_threads(1)
    join_group()
    losses = main(Path(sys.argv[1]))
    if rank() == 0:
        torch.save(losses, Path(sys.argv[1]) / f"losses-{world()}.pt")
    wait_for_all()
    torch.distributed.destroy_process_group()
