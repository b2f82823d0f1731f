"""Layers of Transformer Engine in place of a model's own, where `precision.placements` says so.

Imported only when a recipe asks for fp8 or nvfp4; Transformer Engine itself only inside functions. Weights
stay in bfloat16 (the optimiser's), quantised for each product. NVFP4's training recipe is the library's
default: 2D block scales on weights, random Hadamard transforms on the inputs of weight gradients,
stochastic rounding of gradients (arXiv 2512.20856 §2.4).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kascade.models.precision import BLOCK, ComputedIn, LayerPrecision, is_experts
from kascade.recipe.schema import LowPrecision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXTRA_STATE = "_extra_state"  # Transformer Engine's own bookkeeping; no weights


def installed() -> bool:
    return importlib.util.find_spec("transformer_engine") is not None


def _engine() -> Any:
    return importlib.import_module("transformer_engine.pytorch")


def why_unavailable(precision: LayerPrecision) -> str | None:
    """What Transformer Engine says keeps this GPU from computing in `precision`; None: nothing."""
    checks = {"fp8": "is_fp8_available", "mxfp8": "is_mxfp8_available", "nvfp4": "is_nvfp4_available"}
    check = getattr(_engine(), checks[precision], None)
    if check is None:
        return f"this Transformer Engine does not know {precision}: it needs a newer one"
    available, reason = check(return_reason=True)
    return None if available else str(reason)


def make_recipe(precision: LayerPrecision, low: LowPrecision) -> Any:
    """Transformer Engine's recipe for a format."""
    recipes = importlib.import_module("transformer_engine.common.recipe")
    if precision == "nvfp4":
        return recipes.NVFP4BlockScaling()
    if precision == "mxfp8":
        return recipes.MXFP8BlockScaling()
    kind = recipes.DelayedScaling if low.fp8_scaling == "delayed" else recipes.Float8CurrentScaling
    return kind(fp8_format=recipes.Format.HYBRID)


def _autocast(recipe: Any) -> AbstractContextManager[None]:
    engine = _engine()
    if hasattr(engine, "autocast"):  # the name from 2.9 on
        context: AbstractContextManager[None] = engine.autocast(enabled=True, recipe=recipe)
    else:
        context = engine.fp8_autocast(enabled=True, fp8_recipe=recipe)
    return context


class _Autocast:
    """Hooks that put a module's forward under a recipe. Holds no module, so copies of models are safe."""

    def __init__(self, recipe: Any) -> None:
        self._recipe = recipe
        self._open: list[AbstractContextManager[None]] = []

    def attach(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self.enter)
        module.register_forward_hook(self.leave, always_call=True)

    def enter(self, module: nn.Module, args: Any) -> None:
        context = _autocast(self._recipe)
        context.__enter__()
        self._open.append(context)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._open.pop().__exit__(None, None, None)


def swap_layers(model: PreTrainedModel, placed: Mapping[str, ComputedIn], low: LowPrecision) -> None:
    """Replace the modules that are not to stay in bfloat16, and run the model under their recipes.

    A module whose format differs from most (Mamba output projections under nvfp4) has a recipe of its own.
    """
    low_modules = {name: p.precision for name, p in placed.items() if p.precision != "bf16"}
    if not low_modules:
        return
    formats = list(low_modules.values())
    main = max(dict.fromkeys(formats), key=formats.count)
    for name, precision in low_modules.items():
        old = model.get_submodule(name)
        new = GroupedExperts(old) if is_experts(old) else _linear_of(old)
        model.set_submodule(name, new)
        if precision != main:
            _Autocast(make_recipe(precision, low)).attach(new)
    _Autocast(make_recipe(main, low)).attach(model.base_model)


@cache
def _linear_class() -> Any:
    """`te.Linear` for any number of rows: low-precision products take multiples of a block only."""

    class PaddedLinear(_engine().Linear):  # type: ignore[misc]
        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            rows = x.reshape(-1, x.shape[-1])
            padded = F.pad(rows, (0, 0, 0, -len(rows) % BLOCK))
            y = super().forward(padded, *args, **kwargs)
            return y[: len(rows)].reshape(*x.shape[:-1], -1)

    return PaddedLinear


def _linear_of(old: Any) -> Any:
    new = _linear_class()(
        old.in_features,
        old.out_features,
        bias=old.bias is not None,
        params_dtype=old.weight.dtype,
        device=old.weight.device,
    )
    with torch.no_grad():
        new.weight.copy_(old.weight)
        if old.bias is not None:
            new.bias.copy_(old.bias)
    new.weight.requires_grad_(old.weight.requires_grad)
    return new.train(old.training)


class GroupedExperts(nn.Module):
    """The experts of a layer as two grouped products; takes and gives what transformers' experts do."""

    def __init__(self, old: Any) -> None:
        super().__init__()
        self.gated = hasattr(old, "gate_up_proj")
        self.act_fn: Callable[[Tensor], Tensor] = old.act_fn
        self.up = _grouped(old.gate_up_proj if self.gated else old.up_proj)
        self.down = _grouped(old.down_proj)
        self.num_experts: int = len(old.down_proj)
        self.train(old.training)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """hidden_states [N, D], top_k_index and top_k_weights [N, K] to [N, D].

        Tokens are sorted by expert, each expert's rows padded to whole blocks.
        """
        order = top_k_index.flatten().argsort(stable=True)
        counts = torch.bincount(top_k_index.flatten(), minlength=self.num_experts)
        padded = (counts + BLOCK - 1) // BLOCK * BLOCK
        shift = (padded - counts).cumsum(0) - (padded - counts)  # padding before each expert's rows
        experts = top_k_index.flatten()[order]
        rows = torch.arange(len(order), device=order.device) + shift[experts]
        tokens = order // top_k_index.shape[1]
        splits = padded.tolist()
        laid_out = hidden_states.new_zeros(sum(splits), hidden_states.shape[1])
        laid_out = laid_out.index_copy(0, rows, hidden_states[tokens])
        inner = self.up(laid_out, splits)
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self.act_fn(gate) * up
        else:
            inner = self.act_fn(inner)
        outputs = self.down(inner, splits)[rows] * top_k_weights.flatten()[order, None]
        mixed = torch.zeros_like(hidden_states, dtype=outputs.dtype)
        return mixed.index_add(0, tokens, outputs).to(hidden_states.dtype)

    def stacked(self) -> dict[str, Tensor]:
        """The weights as transformers names them: [E, out, in]."""
        up = "gate_up_proj" if self.gated else "up_proj"
        return {up: _stacked(self.up, self.num_experts), "down_proj": _stacked(self.down, self.num_experts)}


def _grouped(weights: Tensor) -> Any:
    """A grouped product with the given weights [E, out, in]."""
    count, out_features, in_features = weights.shape
    new = _engine().GroupedLinear(
        count, in_features, out_features, bias=False, params_dtype=weights.dtype, device=weights.device
    )
    with torch.no_grad():
        for expert in range(count):
            getattr(new, f"weight{expert}").copy_(weights[expert])
    return new


def _stacked(grouped: Any, count: int) -> Tensor:
    return torch.stack([getattr(grouped, f"weight{expert}").detach() for expert in range(count)])


def plain_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """The model's weights under the names they have without Transformer Engine: what is saved."""
    grouped = {name: m for name, m in model.named_modules() if isinstance(m, GroupedExperts)}
    prefixes = tuple(f"{name}." for name in grouped)
    state = {
        key: tensor
        for key, tensor in model.state_dict().items()
        if not key.endswith(EXTRA_STATE) and not key.startswith(prefixes)
    }
    for name, module in grouped.items():
        state |= {f"{name}.{key}": tensor for key, tensor in module.stacked().items()}
    return state


def is_swapped(model: PreTrainedModel) -> bool:
    """Whether `swap_layers` has replaced anything."""
    return any(type(m).__name__ in ("PaddedLinear", "GroupedExperts") for m in model.modules())
