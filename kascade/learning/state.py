"""Training state for exact resume: weights, optimiser, step, and rollouts that will be used again.

A state is a folder `step-N` with `state.json` written last; that file holds the other files' digests, so a
half-written or damaged state is recognised, named in the log, and the one before it is used. One process
writes whole tensors, and weights and config then load with `from_pretrained`. Several write their shards.
Either is continued by any number of processes.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Container, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kascade.learning import shards
from kascade.learning.masters import Masters
from kascade.models.adapters import trained_tensors
from kascade.models.mesh import largest, rank, world
from kascade.models.seams import is_sharded
from kascade.storage.files import file_digest, naming, read_json, seal_of, write_json, write_text

MODEL, OPTIMIZER, ROLLOUTS = "model.safetensors", "optimizer.safetensors", "rollouts.safetensors"
SHARDS = "shards"
QUANTITIES = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, by parameter
Tensors = dict[str, Tensor]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """What training changes: the model, its optimiser, and the float32 masters that the optimiser steps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    masters: Masters

    @property
    def config(self) -> str | None:
        """The model's config as JSON; None when it has none."""
        config = getattr(self.model, "config", None)
        return None if config is None else config.to_json_string()


class StateWriter:
    """Writes states beside the training: `save` copies the tensors and returns, a thread writes them.

    Use it as a context manager: leaving waits for the last state. What went wrong in the thread is raised by
    the next `save`, or on leaving.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pending: Future[None] | None = None
        self._group: Any = None  # of the threads, so that their messages stay apart from the training's

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:
            self.wait()

    def wait(self) -> None:
        """Until the last state is written; raises what its writing raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def save(self, step: int, state: State, rollouts: Mapping[str, Tensor] | None = None) -> None:
        """Take the state after `step` updates; it is written while training continues."""
        self.wait()
        files = {ROLLOUTS: _copied(rollouts)} if rollouts else {}
        if is_sharded(state.model):
            self._group = self._group or shards.thread_group()
            staged = shards.stage(named_tensors(state))
            taken = _Taken(step, files, state.config, partial(shards.write, staged, self._group))
        else:
            files |= {MODEL: _copied(_model_tensors(state)), OPTIMIZER: _copied(_optimizer_tensors(state))}
            taken = _Taken(step, files, state.config, None)
        self._pending = self._thread.submit(_write, self._folder, taken, self._keep)


def save_state(
    folder: Path, step: int, state: State, rollouts: Mapping[str, Tensor] | None = None, *, keep: int = 2
) -> None:
    """Write the state after `step` updates under `folder`, then remove all but the newest `keep`."""
    with StateWriter(folder, keep) as writer:
        writer.save(step, state, rollouts)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A state apart from the training: whole files by name, and how to write shards where there are some."""

    step: int
    files: Mapping[str, Tensors]
    config: str | None
    write_shards: shards.Write | None


def _write(folder: Path, taken: _Taken, keep: int) -> None:
    """One state, its manifest last. Of several processes each writes its shards, the first one the rest."""
    target = folder / f"step-{taken.step:08d}"
    with naming(target):
        _write_into(target, taken)
    if taken.write_shards is None or rank() == 0:
        # Only now: until the new state is whole, the old ones are what a crash continues from.
        for old in sorted(folder.glob("step-*"))[:-keep]:
            shutil.rmtree(old)


def _write_into(target: Path, taken: _Taken) -> None:
    first = taken.write_shards is None or rank() == 0
    if first:
        # What is there was cut off: an intact state of this step would have been continued from.
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    digests = {} if taken.write_shards is None else taken.write_shards(target / SHARDS)
    if not first:
        return
    for name, tensors in taken.files.items():
        save_file(tensors, target / name, metadata={"format": "pt"})
        _to_disk(target / name)
    if taken.config is not None:
        write_text(target / "config.json", taken.config)
    digests |= {path.name: file_digest(path) for path in sorted(target.iterdir()) if path.is_file()}
    said = {"step": taken.step, "files": digests}
    write_json(target / "state.json", {**said, "seal": seal_of(said)})


def _to_disk(path: Path) -> None:
    """Force a file out of the page cache: the manifest must not be there before what it vouches for."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _copied(tensors: Mapping[str, Tensor]) -> Tensors:
    """On the CPU and apart from the originals, which training changes while they are written."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def load_state(folder: Path, state: State, rollouts: Tensors | None = None) -> int:
    """Put the newest intact state into model and optimiser; returns its step, 0 when there is none.

    Any number of processes continue what any other number wrote. Weights are copied into the tensors that are
    there, so who shares them sees the change. rollouts: filled with the state's rollouts that will be used
    again, where it has some.
    """
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        fault = _fault(candidate)
        if fault is None:
            if (candidate / SHARDS).exists():
                shards.read(candidate / SHARDS, partial(named_tensors, state))
            else:
                _restore_model(state, candidate / MODEL)
                _restore_optimizer(state, candidate / OPTIMIZER)
            state.masters.round_into_model()
            if rollouts is not None and (candidate / ROLLOUTS).exists():
                rollouts.update(load_file(candidate / ROLLOUTS))
            return _step_of(candidate)
        log.warning("training state %s is not used: %s", candidate, fault)
    return 0


def _step_of(folder: Path) -> int:
    """By the folder's name, which `_fault` compares with what the state says."""
    return int(folder.name.removeprefix("step-"))


def _fault(folder: Path) -> str | None:
    """Why this state cannot be used; None when it is intact. The processes share the reading of its files."""
    own = _own_fault(folder)
    return "another process found it damaged" if largest(own is not None) and own is None else own


def _own_fault(folder: Path) -> str | None:
    """What this process finds."""
    try:
        said = read_json(folder / "state.json")
        seal = said.pop("seal", None)  # None: written before states had one
        if seal not in (None, seal_of(said)) or said["step"] != _step_of(folder):
            return "state.json changed since it was written"
        digests: Mapping[str, str] = said["files"]
        if not ({MODEL, OPTIMIZER} <= digests.keys() or f"{SHARDS}/{shards.METADATA}" in digests):
            return "state.json names no weights"
        for name, digest in sorted(digests.items())[rank() :: world()]:
            if file_digest(folder / name) != digest:
                return f"{name} changed since it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"incomplete ({error})"
    return None


def named_tensors(state: State, kept: Container[str] | None = None) -> Tensors:
    """Weights (masters where there are some), buffers and the optimiser's quantities, by name.

    kept: quantities of the optimiser to make where it has none yet: those that a saved state has.
    """
    found: Tensors = {f"model.{name}": tensor for name, tensor in _model_tensors(state).items()}
    for name, parameter in _trained(state):
        entry = state.optimizer.state[parameter]
        for quantity in QUANTITIES if kept is not None else list(entry):
            key = f"optimizer.{name}.{quantity}"
            if kept is not None and key not in kept:
                entry.pop(quantity, None)
                continue
            if quantity not in entry:
                entry[quantity] = _fresh(parameter, quantity)
            found[key] = entry[quantity]
    return found


def _fresh(parameter: Tensor, quantity: str) -> Tensor:
    """Of AdamW, before its first step; a fused one counts steps where the parameter is."""
    if quantity == "step":
        return torch.zeros((), dtype=torch.float32, device=parameter.device)
    return torch.zeros_like(parameter.detach())


def _trained(state: State) -> list[tuple[str, Tensor]]:
    """What the optimiser steps, with the names of the model's parameters, matrices first."""
    named = [(n, state.masters.of(p)) for n, p in state.model.named_parameters() if p.requires_grad]
    # The order in which `build_optimizer` numbers them.
    return [pair for pair in named if pair[1].ndim >= 2] + [pair for pair in named if pair[1].ndim < 2]


def _model_tensors(state: State) -> Tensors:
    """Parameters and buffers by name, each storage once (tied weights have one name); or the adapter."""
    return {name: state.masters.of(t).detach() for name, t in trained_tensors(state.model).items()}


def _restore_model(state: State, path: Path) -> None:
    with safe_open(path, framework="pt") as saved:
        for name, tensor in _model_tensors(state).items():
            shards.copy_whole(tensor, saved.get_tensor(name))


def _optimizer_tensors(state: State) -> Tensors:
    """The optimiser's quantities as it numbers its parameters: matrices first, as `_trained` does."""
    saved = state.optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in saved.items() for name, value in entry.items()}


def _restore_optimizer(state: State, path: Path) -> None:
    with safe_open(path, framework="pt") as saved:
        keys = set(saved.keys())
        names = {name: number for number, (name, _) in enumerate(_trained(state))}
        kept = {
            f"optimizer.{name}.{quantity}"
            for name, number in names.items()
            for quantity in QUANTITIES
            if f"{number}.{quantity}" in keys
        }
        for key, tensor in named_tensors(state, kept).items():
            if key in kept:
                _, _, rest = key.partition(".")
                name, _, quantity = rest.rpartition(".")
                shards.copy_whole(tensor, saved.get_tensor(f"{names[name]}.{quantity}"))
