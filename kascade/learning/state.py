"""Training state for exact resume: weights, optimiser and step, at a step's end.

A state is a folder `step-N` with `state.json` written last; that file holds the other files' digests,
so a half-written or damaged state is recognised, named in the log, and the one before it is used.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kascade.storage.checkpoint import file_digest
from kascade.storage.files import read_json, write_json

KEPT = 2  # one to resume from, one in case that one is damaged
log = logging.getLogger(__name__)


def save_state(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state after `step` updates under `folder`, then remove all but the newest two."""
    target = folder / f"step-{step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    save_file(_model_tensors(model), target / "model.safetensors")
    save_file(_optimizer_tensors(optimizer), target / "optimizer.safetensors")
    digests = {path.name: file_digest(path) for path in sorted(target.iterdir())}
    write_json(target / "state.json", {"step": step, "files": digests})
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put the newest intact state into model and optimiser; returns its step, 0 when there is none.

    Weights are copied into the tensors that are there, so who shares them sees the change.
    """
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        fault = _fault(candidate)
        if fault is None:
            _restore_model(model, load_file(candidate / "model.safetensors"))
            _restore_optimizer(optimizer, load_file(candidate / "optimizer.safetensors"))
            return int(read_json(candidate / "state.json")["step"])
        log.warning("training state %s is not used: %s", candidate, fault)
    return 0


def _fault(folder: Path) -> str | None:
    """Why this state cannot be used; None when it is intact."""
    try:
        digests: Mapping[str, str] = read_json(folder / "state.json")["files"]
        for name, digest in digests.items():
            if file_digest(folder / name) != digest:
                return f"{name} changed since it was written"
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        return f"incomplete ({error})"
    return None


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each storage once (tied weights have one name)."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _restore_model(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            tensor.copy_(saved[name])


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
