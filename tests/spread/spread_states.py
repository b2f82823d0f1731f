"""Training states of several processes, as a program: one process of a group.

    python -m torch.distributed.run --nproc-per-node N spread_states.py MODELS FOLDER MODE

MODE whole: train, save while training goes on, load into a fresh trainer, and train the same again.
MODE go-on: one update from the newest state, which is then saved.
MODE die: one update, and a process that dies while the state is written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from spread_cases import BALANCED, EP2, Case, make_examples, make_objective, trainer_of, weights

from kascade.learning import shards
from kascade.models.export import export_model
from kascade.models.mesh import join_group, rank, wait_for_all, world
from kascade.recipe.model_parts import MTP
from kascade.recipe.parallel import Parallel


def cases() -> Iterator[Case]:
    layout = EP2 if world() > 1 else Parallel()
    yield Case("qwen3-tied", world())
    yield Case("qwen3-moe", world(), layout)
    yield Case("nemotron-h-mtp", world(), layout, moe=BALANCED, mtp=MTP())


def update(trainer: Any, case: Case, step: int) -> float:
    found: float = trainer.update(step, make_examples(case, step), make_objective(case.objective))["loss"]
    return found


def whole(case: Case, models: Path, folder: Path) -> dict[str, Any]:
    """Whether a resume on the same layout gives the same bits, the writing beside the training included."""
    first = trainer_of(case, models)
    for step in range(2):
        update(first, case, step)
    first.save(folder, 2)
    for step in range(2, 4):
        update(first, case, step)
    first.finish_saving()
    second = trainer_of(case, models)
    step = second.load(folder)
    for later in range(step, 4):
        update(second, case, later)
    expected, found = weights(first), weights(second)
    export_model(second.model, folder.with_name(f"{folder.name}-export"))
    if rank() == 0:
        torch.save(found, folder.with_name(f"{folder.name}-export.pt"))
    return {"step": step, "equal": all(torch.equal(expected[name], found[name]) for name in expected)}


def go_on(case: Case, models: Path, folder: Path) -> dict[str, Any]:
    """One update from the newest state; whether that state's weights came back bit for bit."""
    trainer = trainer_of(case, models)
    step = trainer.load(folder)
    kept = folder.with_name(f"{folder.name}-weights.pt")
    restored = weights(trainer)
    equal = True
    if kept.exists():
        saved = torch.load(kept)
        equal = all(torch.equal(saved[name], restored[name]) for name in saved)
    wait_for_all()
    loss = update(trainer, case, step)
    trainer.save(folder, step + 1)
    trainer.finish_saving()
    found = weights(trainer)
    if rank() == 0:
        torch.save(found, kept)
    return {"step": step, "equal": equal, "loss": loss}


def die(case: Case, models: Path, folder: Path) -> dict[str, Any]:
    """The second process ends without a word while the shards are written."""
    trainer = trainer_of(case, models)
    step = trainer.load(folder)
    update(trainer, case, step)
    if rank() == 1:
        shards.save = lambda *arguments, **more: os._exit(9)
    trainer.save(folder, step + 1)
    trainer.finish_saving()
    return {}


def main(models: Path, folder: Path, mode: str) -> dict[str, Any]:
    make = {"whole": whole, "go-on": go_on, "die": die}[mode]
    return {case.model: make(case, models, folder / case.model) for case in cases()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    join_group()
    results = main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    if rank() == 0:
        (Path(sys.argv[2]) / "found.json").write_text(json.dumps(results))
    wait_for_all()
    torch.distributed.destroy_process_group()
