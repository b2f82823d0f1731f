"""Training state for exact resume: weights, optimiser, step, and rollouts that will be used again.

A state is a folder `step-N` with `state.json` written last; that file holds the other files' digests,
so a half-written or damaged state is recognised, named in the log, and the one before it is used. Its weights
and config load with `from_pretrained`.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kascade.storage.checkpoint import file_digest
from kascade.storage.files import read_json, write_json, write_text

MODEL, OPTIMIZER, ROLLOUTS = "model.safetensors", "optimizer.safetensors", "rollouts.safetensors"
Tensors = dict[str, Tensor]
log = logging.getLogger(__name__)


class StateWriter:
    """Writes states beside the training: `save` copies the tensors and returns, a thread writes them.

    Use it as a context manager: leaving waits for the last state. What went wrong in the thread is raised by
    the next `save`, or on leaving.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pending: Future[None] | None = None

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

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        rollouts: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take the state after `step` updates; it is written while training goes on."""
        self.wait()
        files = {MODEL: _copied(_model_tensors(model)), OPTIMIZER: _copied(_optimizer_tensors(optimizer))}
        if rollouts:
            files[ROLLOUTS] = _copied(rollouts)
        config = getattr(model, "config", None)
        text = None if config is None else config.to_json_string()
        self._pending = self._thread.submit(_write, self._folder, step, files, text, self._keep)


def save_state(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollouts: Mapping[str, Tensor] | None = None,
    *,
    keep: int = 2,
) -> None:
    """Write the state after `step` updates under `folder`, then remove all but the newest `keep`."""
    with StateWriter(folder, keep) as writer:
        writer.save(step, model, optimizer, rollouts)


def _write(folder: Path, step: int, files: Mapping[str, Tensors], config: str | None, keep: int) -> None:
    target = folder / f"step-{step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, tensors in files.items():
        save_file(tensors, target / name, metadata={"format": "pt"})
        _to_disk(target / name)
    if config is not None:
        write_text(target / "config.json", config)
    digests = {path.name: file_digest(path) for path in sorted(target.iterdir())}
    write_json(target / "state.json", {"step": step, "files": digests})
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def _to_disk(path: Path) -> None:
    """Force a file out of the page cache: the manifest must not be there before what it vouches for."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _copied(tensors: Mapping[str, Tensor]) -> Tensors:
    """On the CPU and apart from the originals, which training changes while they are written."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def load_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollouts: Tensors | None = None,
) -> int:
    """Put the newest intact state into model and optimiser; returns its step, 0 when there is none.

    Weights are copied into the tensors that are there, so who shares them sees the change. rollouts: filled
    with the state's rollouts that will be used again, where it has some.
    """
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        fault = _fault(candidate)
        if fault is None:
            _restore_model(model, load_file(candidate / MODEL))
            _restore_optimizer(optimizer, load_file(candidate / OPTIMIZER))
            if rollouts is not None and (candidate / ROLLOUTS).exists():
                rollouts.update(load_file(candidate / ROLLOUTS))
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
