"""Linear layers, with an adapter or without: what the written-out forward passes and decoders compute with.

A layer with an adapter (peft's `lora.Linear`) hides a trap: its `weight` is the base's alone. Whoever reads
weights past the modules reads them here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kascade.models.products import linear
from kascade.models.seams import whole as gathered


def is_adapted(module: Any) -> bool:
    """Whether the layer has an adapter that counts now."""
    return hasattr(module, "base_layer") and bool(active_adapters(module))


def active_adapters(module: Any) -> list[str]:
    """Names of the layer's adapters that its forward adds; none while they are off."""
    if module.disable_adapters:
        return []
    return [name for name in module.active_adapters if name in module.lora_A]


def base_of(module: Any) -> Any:
    """The linear layer itself, under its adapter where it has one."""
    return getattr(module, "base_layer", module)


@torch.no_grad()
def weight_of(module: Any) -> Tensor:
    """The weight [O, I] that the layer multiplies by, adapters merged, in the base's type; no gradient.

    Of a layer that is spread over processes: the whole of it, for which all of them call this.
    """
    weight = gathered(base_of(module).weight.detach())
    if not is_adapted(module):
        return weight
    # Merged in float32: an update smaller than a step of bfloat16 still moves the sum.
    whole = weight.float()
    for name in active_adapters(module):
        a, b = module.lora_A[name].weight, module.lora_B[name].weight
        whole = torch.addmm(whole, b.float(), a.float(), alpha=module.scaling[name])
    return whole.to(weight.dtype)


def through(module: Any, x: Tensor) -> Tensor:
    """`module(x)`, by `linear` where it is a plain linear layer, with or without an adapter."""
    base = base_of(module)
    if type(base) is not torch.nn.Linear:
        return module(x)  # type: ignore[no-any-return]
    result = linear(x, base.weight, base.bias)
    return result + correction(module, x) if is_adapted(module) else result


def project(x: Tensor, *modules: Any) -> Tensor:
    """Outputs of several linear layers without bias on one input, side by side: [..., I] to [..., sum of O].

    One product for all of them; adapters add theirs.
    """
    joined = linear(x, torch.cat([base_of(module).weight for module in modules]))
    if not any(map(is_adapted, modules)):
        return joined
    # Zeros for layers without an adapter: the outputs stay side by side.
    added = [
        correction(module, x) if is_adapted(module) else joined.new_zeros(*x.shape[:-1], len(module.weight))
        for module in modules
    ]
    return joined + torch.cat(added, dim=-1)


def correction(module: Any, x: Tensor) -> Tensor:
    """What the layer's adapters add to its output, computed in the type of `x`: [..., I] to [..., O]."""
    parts = []
    for name in active_adapters(module):
        a, b = (one[name].weight.to(x.dtype) for one in (module.lora_A, module.lora_B))
        inner = linear(module.lora_dropout[name](x), a)
        parts.append(linear(inner, b) * module.scaling[name])
    total: Tensor = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
    return total
