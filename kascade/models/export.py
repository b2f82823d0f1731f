"""Weights out of a model under the names and in the layout that the hub knows, one layer at a time.

transformers' own `save_pretrained` gathers all of a sharded model in one process. Here no process ever holds
more than a layer of it whole, and one file of the folder being written.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from kascade.models.mesh import compute_dtype, rank, wait_for_all
from kascade.models.projections import weight_of
from kascade.models.seams import whole
from kascade.storage.files import write_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INDEX, ONE_FILE = "model.safetensors.index.json", "model.safetensors"
FILE_BYTES = 5 * 2**30  # of one file, which the first process holds; as transformers' own older default


def hub_weights(model: PreTrainedModel, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Names and whole tensors as a checkpoint on the hub has them; each storage once.

    dtype: of floating-point weights that are spread in float32; None: as they are. Buffers keep theirs.
    Adapters are merged. All processes that share the model must go through it together.
    """
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {name: t for name, t in model.state_dict(keep_vars=True).items() if name not in tied}
    for names in _layers(tensors):
        layer = {}
        for name in names:
            if ".lora_" in name:
                continue
            tensor = _whole_weight(model, name, tensors[name])
            half = dtype is not None and name in parameters
            layer[name.replace(".base_layer.", ".")] = tensor.to(dtype) if half else tensor
        # A layer at a time: stacked experts are cut apart again, as the hub names them.
        yield from revert_weight_conversion(model, layer).items()


def _whole_weight(model: PreTrainedModel, name: str, tensor: Tensor) -> Tensor:
    """A tensor of the state dict; the weight of a layer with an adapter has that merged."""
    layer, adapted, rest = name.partition(".base_layer.")
    return weight_of(model.get_submodule(layer)) if adapted and rest == "weight" else whole(tensor.detach())


def _layers(names: Any) -> list[list[str]]:
    """Names of one layer together, in order; what belongs to none is alone."""
    found: dict[Any, list[str]] = {}
    for name in names:
        number = re.search(r"\.(\d+)\.", name)
        key = (name[: number.start()], int(number[1])) if number else name
        found.setdefault(key, []).append(name)
    return list(found.values())


def export_weights(
    model: PreTrainedModel, folder: Path, dtype: torch.dtype | None = None, *, file_bytes: int = FILE_BYTES
) -> None:
    """Write `hub_weights` as safetensors files with their index.

    All processes that share the model must call it; the first one writes, and all return when it has.
    """
    # Gathering is a call of all processes, also of those that write nothing.
    writer = _Writer(folder, file_bytes) if rank() == 0 else None
    for name, tensor in hub_weights(model, dtype):
        if writer is not None:
            writer.add(name, tensor)
    if writer is not None:
        writer.finish()
    wait_for_all()


def export_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a spread model's folder: weights as it computes with them, and its configs."""
    dtype = compute_dtype(model)
    export_weights(model, folder, dtype)
    if rank() == 0:
        config = copy.deepcopy(model.config)
        del config.distributed_config
        config.dtype = dtype or model.dtype
        config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
    wait_for_all()


class _Writer:
    """Files of at most `file_bytes`, unless one tensor is larger; named when their number is known."""

    def __init__(self, folder: Path, file_bytes: int) -> None:
        self._folder, self._file_bytes = folder, file_bytes
        self._held: dict[str, Tensor] = {}
        self._files: list[list[str]] = []
        self._bytes = self._total = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, tensor: Tensor) -> None:
        if self._held and self._bytes + tensor.nbytes > self._file_bytes:
            self._flush()
        self._held[name] = tensor.to("cpu").contiguous()
        self._bytes += tensor.nbytes
        self._total += tensor.nbytes

    def _flush(self) -> None:
        save_file(self._held, self._part(len(self._files)), metadata={"format": "pt"})
        self._files.append(list(self._held))
        self._held, self._bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.safetensors"

    def finish(self) -> None:
        """Give the files their names; one file needs no index."""
        self._flush()
        count = len(self._files)
        if count == 1:
            self._part(0).rename(self._folder / ONE_FILE)
            return
        where: dict[str, str] = {}
        for number, names in enumerate(self._files):
            file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            self._part(number).rename(self._folder / file)
            where |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(where.items()))}
        write_text(self._folder / INDEX, json.dumps(index, indent=2) + "\n")
