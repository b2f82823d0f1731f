"""Caches with a way back: tokens that were tried and not kept are taken out again.

Keys and values are cut. A Mamba-2 state cannot be run backwards, so it is copied before the trial and
advanced again over the tokens that are kept, from what the layer saw of them: no other layer is computed
twice. (Attention: arXiv 2211.17192; Mamba: the copy-and-advance of arXiv 2408.15237 §4.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(slots=True)
class _State:
    """A Mamba-2 layer: its mixer, its part of the cache, the state before a trial, and the trial's input."""

    mixer: Any
    layer: Any
    window: Tensor
    state: Tensor
    seen: Tensor | None = None

    def rewind(self, kept: int) -> None:
        """The state after the first `kept` tokens of the trial."""
        if self.seen is None:
            raise RuntimeError("the trial did not run through this layer")
        window, state = advance(self.mixer, self.window, self.state, self.seen[:, :kept])
        self.layer.conv_states[0].copy_(window)
        self.layer.recurrent_states[0].copy_(state)


class RollbackCache:
    """The cache of one row. Raises ValueError where the model keeps states that cannot be taken back."""

    def __init__(self, model: PreTrainedModel, cache: Any) -> None:
        self._model: Any = model
        self.cache = cache
        self._states: list[_State] = []
        for index, layer in enumerate(cache.layers):
            if isinstance(layer, LinearAttentionCacheLayerMixin) and model.config.model_type != "nemotron_h":
                raise ValueError(f"states of a {model.config.model_type} model cannot be rolled back")
            if isinstance(layer, DynamicLayer) and layer.is_sliding:
                raise ValueError(f"layer {index} forgets beyond its window, so it cannot be rolled back")

    def copy(self) -> RollbackCache:
        return RollbackCache(self._model, copy.deepcopy(self.cache))

    @contextmanager
    def trial(self) -> Iterator[None]:
        """The forward within may be undone by `keep`."""
        self._states = [
            _State(
                self._model.base_model.layers[index].mixer,
                layer,
                # Copies: the forward of the trial writes into the layer's own tensors.
                layer.conv_states[0].clone(),
                layer.recurrent_states[0].clone(),
            )
            for index, layer in enumerate(self.cache.layers)
            if isinstance(layer, LinearAttentionCacheLayerMixin)
        ]
        with ExitStack() as stack:
            for state in self._states:
                stack.callback(_remember_input(state).remove)
            yield

    def keep(self, tried: int, kept: int) -> None:
        """Of the last trial's `tried` tokens only the first `kept` have been."""
        # The cache already is what it would be made again to.
        if kept == tried:
            return
        for layer in self.cache.layers:
            if isinstance(layer, DynamicLayer):
                layer.crop(kept - tried)
        for state in self._states:
            state.rewind(kept)


def _remember_input(state: _State) -> Any:
    def hook(mixer: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        state.seen = args[0] if args else kwargs["hidden_states"]

    return state.mixer.register_forward_pre_hook(hook, with_kwargs=True)


def advance(mixer: Any, window: Tensor, state: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Convolution window [B, C, W] and state [B, heads, P, N] of a Mamba-2 mixer after `hidden` [B, t, H].

    The recurrence S_t = exp(dt A) S_{t-1} + dt x_t B_t (arXiv 2405.21060 §3); neither read out nor projected.
    """
    batch, steps, _ = hidden.shape
    groups, size = mixer.n_groups, mixer.ssm_state_size
    projected = mixer.in_proj(hidden)
    _, mixed, dt = projected.split([mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], dim=-1)
    # The window holds the inputs before `hidden`, so the convolution sees no edge.
    inputs = torch.cat([window, mixed.transpose(1, 2)], dim=-1)
    convolved = F.conv1d(inputs, mixer.conv1d.weight, mixer.conv1d.bias, groups=mixer.conv_dim)
    convolved = mixer.act(convolved[..., -steps:]).transpose(1, 2).float()
    x, B, _ = convolved.split([mixer.intermediate_size, groups * size, groups * size], dim=-1)
    dt = F.softplus(dt.float() + mixer.dt_bias.float()).clamp(*mixer.time_step_limit)
    decay = torch.exp(dt * -mixer.A_log.float().exp())[..., None, None]
    x = x.view(batch, steps, mixer.num_heads, mixer.head_dim, 1) * dt[..., None, None]
    B = B.view(batch, steps, groups, 1, size).repeat_interleave(mixer.num_heads // groups, dim=2)
    state = state.float()
    for step in range(steps):
        state = state * decay[:, step] + x[:, step] * B[:, step]
    return inputs[..., -window.shape[-1] :], state
