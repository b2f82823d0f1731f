"""Adapters on a loaded model: made, read, written, merged, and several of them over one base.

A model with an adapter stays the transformers class that it is. peft puts its layers around the linear ones
(`inject_adapter_in_model`). Adapter weights are float32 whatever the base's type, so that small updates are
not rounded away. Files are peft's own, so `PeftModel.from_pretrained` and vLLM read them.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kascade.errors import Fault, UserError
from kascade.models.activations import evaluated
from kascade.models.adapter_targets import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    NEVER,
    known_targets,
    target_faults,
)
from kascade.models.mesh import rank
from kascade.models.projections import weight_of
from kascade.models.seams import in_full_shape
from kascade.recipe.adapter import SAME, Adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "default"  # of the one adapter of a model, as peft calls it
LEFT_OUT = r"(^|.*\.)(mtp|lm_head)(\..*|$)"  # draft heads, and the output layer
PREFIX = "base_model.model."  # of the names in peft's files


def has_adapter(model: nn.Module) -> bool:
    """Whether layers of the model have an adapter."""
    return any(hasattr(module, "lora_A") for module in model.modules())


def add_adapter(model: PreTrainedModel, part: Adapter, seed: int) -> None:
    """Give the model a new adapter, which changes nothing yet; all other weights are frozen.

    seed: fixes its first matrices. Raises UserError for targets that the model lacks.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(_targets(model, part))
    config = LoraConfig(
        r=part.rank,
        lora_alpha=cast("int", part.alpha),  # any number will do
        target_modules=targets,
        exclude_modules=LEFT_OUT,
        lora_dropout=part.dropout,
        bias="none",
        task_type="CAUSAL_LM",
    )
    model.requires_grad_(False)
    devices = [model.device] if model.device.type == "cuda" else []
    # peft draws lora_A from the global generator: the stage's own numbers must not move.
    with (
        evaluated(model),
        in_full_shape(model),
        torch.random.fork_rng(devices),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed % 2**32)
        inject_adapter_in_model(config, model, NAME)
    for _, parameter in _own(model):
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


def _targets(model: PreTrainedModel, part: Adapter) -> tuple[str, ...]:
    """The names of layers to adapt. Raises UserError for those that the model lacks."""
    kind = model.config.model_type
    there = {
        name.rpartition(".")[2]
        for name, module in model.base_model.named_modules()
        if type(module) is nn.Linear
    }
    known = known_targets(model.config.to_dict())
    usable = tuple(sorted(there - set(NEVER))) if known is None else tuple(n for n in known if n in there)
    if part.targets is None:
        return usable
    if faults := target_faults(kind, part.targets, usable):
        raise UserError(faults)
    return part.targets


def read_adapter(model: PreTrainedModel, folder: Path, trained: Adapter | None = None) -> None:
    """Give the model the adapter in `folder`. trained: how it learns on; None: it is frozen.

    Raises UserError when the adapter does not fit the model.
    """
    said = adapter_config(folder)
    part = Adapter(
        rank=said["r"],
        alpha=said["lora_alpha"],
        targets=tuple(sorted(said["target_modules"])),
        dropout=trained.dropout if trained else 0.0,
    )
    add_adapter(model, part, 0)
    saved = load_file(folder / ADAPTER_WEIGHTS)
    own = {_file_name(name): parameter for name, parameter in _own(model)}
    if wrong := sorted({*own} ^ {*saved} | {n for n in {*own} & {*saved} if own[n].shape != saved[n].shape}):
        what = f"the adapter does not fit its base: {', '.join(wrong[:3])} and others of {len(wrong)} tensors"
        raise UserError(Fault(str(folder), what, remedy="give it the base that it was trained on"))
    copy_adapter(model, folder)
    for parameter in own.values():
        parameter.requires_grad_(trained is not None)


def copy_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Take over the weights of the adapter in `folder`, which has the shape of the model's own."""
    saved = load_file(folder / ADAPTER_WEIGHTS)
    with torch.no_grad():
        for name, parameter in _own(model):
            parameter.copy_(saved[_file_name(name)])


def adapter_config(folder: Path) -> dict[str, Any]:
    """peft's config of the adapter in `folder`."""
    found: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return found


def refuse_other_shape(folder: Path, part: Adapter) -> None:
    """Raise UserError when the adapter in `folder` cannot be trained on as `part` says."""
    said = adapter_config(folder)
    there = {"rank": said["r"], "alpha": said["lora_alpha"], "targets": sorted(said["target_modules"])}
    asked = {"rank": part.rank, "alpha": part.alpha, "targets": sorted(part.targets or there["targets"])}
    faults = [
        Fault(
            f"adapter.{name}", f"the stage starts from an adapter with {name} {there[name]}", str(there[name])
        )
        for name in SAME
        if there[name] != asked[name]
    ]
    if faults:
        raise UserError(faults)


def write_adapter(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, base: str
) -> None:
    """Write the adapter, and the tokenizer where given. base: digest of the checkpoint that it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_file_name(name): tensor.detach().cpu().contiguous() for name, tensor in _own(model)}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    said = model.peft_config[NAME].to_dict()
    said |= {
        "base_model_name_or_path": f"sha256:{base}",
        "inference_mode": True,
        "target_modules": sorted(said["target_modules"]),
    }
    plain = {key: value for key, value in said.items() if _is_plain(value)}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)


def merge_adapter(model: PreTrainedModel) -> None:
    """Put the adapter into the weights: the model is whole again, without layers of peft. In place."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if hasattr(layer, "lora_A"):
                layer.base_layer.weight = nn.Parameter(weight_of(layer), requires_grad=False)
                setattr(parent, name, layer.base_layer)
    if hasattr(model, "peft_config"):
        del model.peft_config


def without_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """The base alone: a model of its own whose weights are the very tensors of `model`. Frozen."""
    base = sharing_copy(model)
    for parent in list(base.modules()):
        for name, layer in list(parent.named_children()):
            if hasattr(layer, "lora_A"):
                setattr(parent, name, layer.base_layer)
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base.requires_grad_(False)


def sharing_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A model with modules of its own that shares every frozen weight; what is trained is copied.

    Teachers and references are made so: one base in memory, however many of them there are.
    """
    # deepcopy takes what its memo names as copied already: these tensors stay the very same.
    shared: dict[int, Any] = {id(p): p for p in model.parameters() if not p.requires_grad}
    for _, parameter in _own(model):
        shared.pop(id(parameter), None)
    return copy.deepcopy(model, shared)


def plain_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Every weight by its name in the model without adapters, adapters merged in, one at a time."""
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    layers = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        layer, found, rest = name.partition(".base_layer.")
        if found and layer in adapted:
            yield f"{layer}.{rest}", weight_of(layers[layer]) if rest == "weight" else parameter.detach()
        elif ".lora_" not in name:
            yield name, parameter.detach()


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: the adapter where there is one, else all parameters and buffers."""
    if has_adapter(model):
        return dict(_own(model))
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@contextmanager
def dropping(model: nn.Module, seed: int) -> Iterator[None]:
    """Within, adapters drop inputs at their rate. The seed says which, for each process others."""
    adapted: list[Any] = [module for module in model.modules() if hasattr(module, "lora_A")]
    dropouts = [one for module in adapted for one in module.lora_dropout.values()]
    if dropouts:
        # Equal masks on all processes would be noise that a batch does not average.
        torch.manual_seed((seed + rank()) % 2**32)
    for one in dropouts:
        one.train()
    try:
        yield
    finally:
        for one in dropouts:
            one.eval()


def _own(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters by name of the model's own adapter, not of others that hang over the same base."""
    return ((n, p) for n, p in model.named_parameters() if ".lora_" in n and f".{NAME}." in n)


def _file_name(name: str) -> str:
    return PREFIX + name.replace(f".{NAME}.", ".")
