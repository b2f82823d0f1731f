"""Several adapters over one base: whichever is chosen counts, or none. One of them may be in training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from kascade.models.activations import evaluated
from kascade.models.adapter_targets import ADAPTER_WEIGHTS
from kascade.models.adapters import LEFT_OUT, NAME, PREFIX, adapter_config, has_adapter, trained_tensors
from kascade.models.seams import in_full_shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel


FROZEN = "frozen"  # begins the names of adapters that hang beside the one in training


def hang_adapter(model: PreTrainedModel, folder: Path, name: str) -> None:
    """Hang the adapter in `folder` over the model as `name`: frozen, and whole on every process."""
    from peft import LoraConfig, inject_adapter_in_model

    said = adapter_config(folder)
    config = LoraConfig(
        r=said["r"],
        lora_alpha=said["lora_alpha"],
        target_modules=sorted(said["target_modules"]),
        exclude_modules=LEFT_OUT,
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    with evaluated(model), in_full_shape(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, model, name)
    saved, marked = load_file(folder / ADAPTER_WEIGHTS), f".{name}."
    with torch.no_grad():
        for parameter, tensor in model.named_parameters():
            if ".lora_" in parameter and marked in parameter:
                tensor.data = tensor.data.float()
                tensor.copy_(saved[PREFIX + parameter.replace(marked, ".")])
    model.requires_grad_(False)


def choose_adapter(model: PreTrainedModel, name: str | None) -> None:
    """Let the adapter called `name` count, and no other; None: the base alone."""
    for module in model.modules():
        layer: Any = module
        if hasattr(layer, "lora_A"):
            layer.enable_adapters(name is not None)
            if name is not None:
                layer.set_adapter([name])
    model.requires_grad_(False)


def train_again(model: PreTrainedModel) -> None:
    """Let the model's own adapter count and learn again; nothing where it has only frozen ones."""
    own = trained_tensors(model) if has_adapter(model) else {}
    if own:
        choose_adapter(model, NAME)
    for tensor in own.values():
        tensor.requires_grad_(True)


@contextmanager
def seen_with(model: PreTrainedModel, name: str | None) -> Iterator[None]:
    """Within, the frozen adapter called `name` counts, or the base alone; after it the model's own again."""
    choose_adapter(model, name)
    try:
        yield
    finally:
        train_again(model)
