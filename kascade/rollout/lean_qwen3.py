"""Lean decoding of dense Qwen3 on plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.models.fused import gated
from kascade.models.products import linear, linear_added
from kascade.models.projections import weight_of
from kascade.rollout.lean import Attend, LeanDecoder, Norm, Prompts, runs_in_its_type
from kascade.rollout.loops import kernels_for
from kascade.rollout.mamba import scale_to_unit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STATIC_ROPE = ("default", "linear", "yarn", "llama3")  # angles that depend on the position alone


class Qwen3Decoder(LeanDecoder):
    """Fused query-key-value and gate-up products; queries and keys normed and rotated together."""

    @classmethod
    def supports(cls, model: PreTrainedModel) -> bool:
        config: Any = model.config
        return bool(
            config.model_type == "qwen3"
            and runs_in_its_type(model)
            and set(config.layer_types) == {"full_attention"}
            and config.rope_parameters["rope_type"] in STATIC_ROPE
            and not config.attention_bias
            and config.hidden_act == "silu"
        )

    def num_attention_layers(self) -> int:
        return int(self._model.config.num_hidden_layers)

    def make_layers(self) -> list[Any]:
        return [_Layer(layer, number, self) for number, layer in enumerate(self._model.model.layers)]

    def final_norm(self) -> Any:
        return self._model.model.norm

    def refresh(self) -> None:
        self.kernels = kernels_for(self._like)
        super().refresh()
        self._angles: Tensor | None = None

    def before_prefill(self, ids: Tensor) -> None:
        self._cos, self._sin = self._angles_at(torch.arange(ids.shape[1], device=ids.device)[None])

    def before_step(self, x: Tensor) -> None:
        if self.kernels is not None:
            return
        cos, sin = self._angles_at(self.lengths[: x.shape[0]])
        heads = self._model.config.num_attention_heads + self._model.config.num_key_value_heads
        # for each head: whole rows are multiplied faster than broadcast ones
        self._cos, self._sin = (part.expand(-1, heads, -1).contiguous() for part in (cos, sin))

    def _angles_at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines, and sines signed for a roll, of positions [...] for all heads: each [..., 1, D]."""
        width = self._like.shape[1]
        if self.kernels is None:
            both = self._compute_angles(positions.view(1, -1)).view(*positions.shape, 1, 2 * width)
        else:
            both = F.embedding(positions, self._angles_up_to(positions)).unsqueeze(-2)
        return both[..., :width], both[..., width:]

    def _angles_up_to(self, positions: Tensor) -> Tensor:
        """A table of the angles of all positions up to the highest of these."""
        longest = int(positions.max()) + 1
        if self._angles is None or longest > len(self._angles):
            self._angles = self._compute_angles(torch.arange(2 * longest)[None])[0]
        return self._angles

    def _compute_angles(self, positions: Tensor) -> Tensor:
        cos, sin = self._model.model.rotary_emb(self._like, positions)
        first, second = sin.chunk(2, dim=-1)
        return torch.cat((cos, -first, second), dim=-1)

    def norm_and_rotate(self, heads: Tensor, norms: Tensor, epsilon: float, *, step: bool) -> None:
        """Norm the first heads of [..., heads, D], and turn them by their position, in place.

        norms: [those heads, D]. step: of a step's rows; else of whole prompts.
        """
        if step and self.kernels is not None:
            positions = self.lengths[: len(heads)]
            angles = self._angles_up_to(positions)
            arrays = (x.numpy() for x in (heads, norms, angles, positions))
            self.kernels.norm_and_rotate(*arrays, epsilon)
            return
        turned = heads[..., : len(norms), :]
        x = scale_to_unit(turned, epsilon).mul_(norms)
        # rotate_half as a roll: its minus sign is in the sines.
        torch.addcmul(x.roll(x.shape[-1] // 2, -1).mul_(self._sin), x, self._cos, out=turned)


class _Layer:
    mixes = True

    def __init__(self, layer: Any, number: int, decoder: Qwen3Decoder) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._number, self._decoder, self._width = number, decoder, attention.head_dim
        self._before, self._after = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        projections = [weight_of(p) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
        self._qkv = torch.cat(projections)
        self._queries, self._keys, _ = (len(p) // self._width for p in projections)
        self._out = weight_of(attention.o_proj)
        scaled = attention.q_norm.weight.detach() * attention.scaling  # a rotation keeps the scale
        self._norms = torch.stack([scaled] * self._queries + [attention.k_norm.weight.detach()] * self._keys)
        self._epsilon = attention.q_norm.variance_epsilon
        self._gate_up = torch.cat([weight_of(mlp.gate_proj), weight_of(mlp.up_proj)])
        self._down = weight_of(mlp.down_proj)

    def prefill(self, x: Tensor, prompts: Prompts, *, only_last: bool) -> Tensor:
        heads = self._heads(x, step=False)
        query, key, value = heads.split_with_sizes([self._queries, self._keys, self._keys], -2)
        prompts.keep(self._number, key, value)
        if only_last:
            x, query = prompts.last(x), prompts.last(query)
        # Keys and values of all tokens are stored above; behind them one token per prompt is enough.
        x = x + linear(prompts.attend(query, key, value), self._out)
        return self._mlp(x.flatten(0, 1)).view_as(x)

    def step(self, x: Tensor, attend: Attend) -> Tensor:
        heads = self._heads(x, step=True)
        return self._mlp(linear_added(attend(self._number, heads), self._out, x))

    def _heads(self, x: Tensor, *, step: bool) -> Tensor:
        """Queries (scaled), keys and values of x [..., H] side by side: [..., Q + 2 K, D]."""
        heads = linear(self._before(x), self._qkv).view(*x.shape[:-1], -1, self._width)
        self._decoder.norm_and_rotate(heads, self._norms, self._epsilon, step=step)
        return heads

    def _mlp(self, x: Tensor) -> Tensor:
        return linear_added(gated(linear(self._after(x), self._gate_up)), self._down, x)
