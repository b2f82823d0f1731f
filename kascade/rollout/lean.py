"""What the lean decoders share: prompts computed once, right-padded; then one token of each row a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.data.packing import micro_batches
from kascade.models.loops import kernels_for
from kascade.models.projections import through
from kascade.rollout.attention import RowAttention
from kascade.rollout.mamba import scale_to_unit
from kascade.rollout.prefix import Prefix, blocks_of
from kascade.rollout.static import StaticAttention, StepGraphs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFILL_TOKENS = 1024  # padded prompt tokens of one forward: what fits the caches of a CPU core
ANY_TOKEN = 0  # fills the right of padded prompts; causal layers never look there


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts in prefill, padded on the right, and where what they leave behind goes.

    lengths: [P]. prefix, places: where their keys and values are stored. rows, owners: the rows to start,
    each from the prompt with index owners[i], both [R].
    """

    lengths: Tensor
    prefix: Prefix
    places: slice
    rows: Tensor
    owners: Tensor

    def last(self, x: Tensor) -> Tensor:
        """Of x [P, L, ...] what belongs to each prompt's last token: [P, 1, ...]."""
        return x[torch.arange(len(x), device=x.device), self.lengths - 1].unsqueeze(1)

    def keep(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [P, L, kv heads, D] of an attention layer (counted among those)."""
        longest = keys.shape[1]
        self.prefix.keys[layer][self.places, :, :longest] = keys.transpose(1, 2)
        self.prefix.values[layer][self.places, :, :longest] = values.transpose(1, 2)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Causal attention of scaled queries, [P, L, heads, D] or of the last tokens only, [P, 1, heads, D].

        Returns [P, L or 1, heads * D].
        """
        query, keys, values = (x.transpose(1, 2) for x in (query, keys, values))
        causal, mask = query.shape[2] == keys.shape[2], None
        if not causal:
            mask = torch.arange(keys.shape[2], device=keys.device) < self.lengths[:, None]
            mask = mask[:, None, None]
        out = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=causal, scale=1.0, enable_gqa=True
        )
        return out.transpose(1, 2).flatten(2)


# Attention over what rows have stored: layer; queries, keys, values [n, Q + 2 K, D] side by side. [n, Q D].
Attend = Callable[[int, Tensor], Tensor]


class Layer(Protocol):
    """One layer, residual connection included. mixes: whether it looks at other tokens than its own."""

    mixes: bool

    def prefill(self, x: Tensor, prompts: Prompts, *, only_last: bool) -> Tensor:
        """x [P, L, H] to [P, L, H], or of the last tokens only to [P, 1, H]."""
        ...

    def step(self, x: Tensor, attend: Attend) -> Tensor:
        """x [n, H] of the rows' newest tokens to [n, H]."""
        ...


class LeanDecoder(ABC):
    """Decodes on plain tensors that share the model's weights; rows of any lengths side by side.

    A prompt's keys and values are kept once for all its rows. A row that ends is overwritten by the last
    one, so nothing else moves.
    """

    uneven = True

    def __init__(self, model: PreTrainedModel, *, static: bool | None = None) -> None:
        """static: keep all of a row in memory that stays (see `static`); None: on CUDA."""
        self._model: Any = model
        self.static = model.device.type == "cuda" if static is None else static
        self._graphs = StepGraphs(self._run_layers, self.row_states)
        self.start(0)
        self.refresh()

    @classmethod
    @abstractmethod
    def supports(cls, model: PreTrainedModel) -> bool:
        """Whether this decoder computes exactly what `model` does."""

    @abstractmethod
    def num_attention_layers(self) -> int:
        """How many layers keep keys and values, at least one."""

    @abstractmethod
    def make_layers(self) -> list[Any]:
        """The layers (see `Layer`), with what is derived from the weights."""

    @abstractmethod
    def final_norm(self) -> Any:
        """The model's last norm."""

    def row_states(self) -> list[Tensor]:
        """What layers keep of each row beside keys and values, [rows, ...]."""
        return []

    def start(self, rows: int) -> None:
        """See `Decoder.start`."""
        config = self._model.config
        device, dtype = self._model.device, self._model.dtype
        self._count = 0
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self._like = torch.empty(config.num_key_value_heads, config.head_dim, device=device, dtype=dtype)
        self._attention: RowAttention | StaticAttention
        if self.static:
            self._attention = StaticAttention(self.num_attention_layers(), rows, self._like, self.lengths)
        else:
            self._attention = RowAttention(self.num_attention_layers(), rows, self._like)
        self._graphs.forget()

    def refresh(self) -> None:
        """See `Decoder.refresh`."""
        self._embedding = self._model.get_input_embeddings().weight.detach()
        self._head = self._model.get_output_embeddings()
        self._layers = self.make_layers()
        self._graphs.forget()
        self._last_mixing = max(i for i, layer in enumerate(self._layers) if layer.mixes)
        self._norm = Norm(self.final_norm())

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Tensor:
        """See `Decoder.admit`."""
        device = self.lengths.device
        ends = [self._count + end for end in accumulate(copies)]
        parts: list[tuple[Tensor, Tensor]] = []
        for block in blocks_of([len(prompt) for prompt in prompts]):
            lengths = [len(prompts[i]) for i in block]
            prefix = Prefix.empty(lengths, self.num_attention_layers(), self._like)
            rows = [list(range(ends[i] - copies[i], ends[i])) for i in block]
            # A block is sorted by length, so that parts of it pad little.
            for members in micro_batches(lengths, PREFILL_TOKENS):
                places = slice(members[0], members[-1] + 1)  # the block is sorted, so they are neighbours
                owners = [place for place, own in enumerate(rows[places]) for _ in own]
                batch = Prompts(
                    torch.tensor(lengths[places], device=device),
                    prefix,
                    places,
                    torch.tensor(list(chain(*rows[places])), device=device),
                    torch.tensor(owners, device=device),
                )
                self.lengths[batch.rows] = batch.lengths[batch.owners]
                parts.append((batch.rows, self._prefill([prompts[i] for i in block[places]], batch)))
            flat = list(chain(*rows))
            self._attention.admit(prefix, flat, [place for place, own in enumerate(rows) for _ in own])
        # Logits in the order of rows, whatever the order in which prompts were computed.
        order = torch.cat([rows for rows, _ in parts]).argsort()
        self._count = ends[-1]
        return torch.cat([scores for _, scores in parts])[order]

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder.step`."""
        self._attention.begin()
        if isinstance(self._attention, StaticAttention) and tokens.is_cuda:
            shape = (self._attention.room, self._attention.slots)
            logits = self._graphs.run(tokens, len(self.lengths), shape)
        else:
            logits = self._run_layers(tokens)
        self._attention.end()
        self.lengths[: self._count] += 1
        return logits

    def _run_layers(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self._embedding)
        self.before_step(x)
        for layer in self._layers:
            x = layer.step(x, self._attention)
        return self.head(self._norm(x))

    def retain(self, order: Sequence[int]) -> None:
        """See `Decoder.retain`."""
        # Only rows that change move: most stay where they are.
        targets = [i for i, source in enumerate(order) if source != i]
        into = torch.tensor(targets, dtype=torch.long, device=self.lengths.device)
        from_ = torch.tensor([order[i] for i in targets], dtype=torch.long, device=self.lengths.device)
        self._attention.retain(order, into, from_)
        for state in [self.lengths, *self.row_states()]:
            state[into] = state[from_]
        self._count = len(order)

    def before_prefill(self, ids: Tensor) -> None:
        """What the layers share in prefill (rotary embeddings), where there is any."""
        return

    def before_step(self, x: Tensor) -> None:
        """What the layers share in a step."""
        return

    def head(self, hidden: Tensor) -> Tensor:
        return through(self._head, hidden)

    def _prefill(self, prompts: Sequence[Sequence[int]], batch: Prompts) -> Tensor:
        """Next-token logits of the rows to start: [R, V]."""
        longest = max(map(len, prompts))
        padded = [[*prompt, *[ANY_TOKEN] * (longest - len(prompt))] for prompt in prompts]
        ids = torch.tensor(padded, device=self.lengths.device)
        self.before_prefill(ids)
        x = F.embedding(ids, self._embedding)
        for number, layer in enumerate(self._layers):
            # Behind the last layer that mixes tokens only each prompt's last token is needed.
            x = layer.prefill(x, batch, only_last=number == self._last_mixing)
        return self.head(self._norm(x[:, 0]))[batch.owners]


class Norm:
    """What transformers' RMSNorm module computes; on a CPU in one pass."""

    def __init__(self, norm: Any) -> None:
        self._weight, self._epsilon = norm.weight.detach(), norm.variance_epsilon
        self._kernel = kernels_for(self._weight)

    def __call__(self, x: Tensor) -> Tensor:
        """[..., H] to [..., H]."""
        if self._kernel is None:
            return scale_to_unit(x, self._epsilon).mul_(self._weight)
        if x.dim() > 2:  # whole prompts
            return self(x.flatten(0, -2)).view_as(x)
        x = x.contiguous()
        out, scales = torch.empty_like(x), x.new_empty(len(x))
        self._kernel.rms_norm(x.numpy(), self._weight.numpy(), self._epsilon, out.numpy(), scales.numpy())
        return out


def runs_in_its_type(model: PreTrainedModel) -> bool:
    """Whether lean layers compute in the model's type: float32 anywhere, bfloat16 on CUDA."""
    on_cuda = model.device.type == "cuda"
    return bool(model.dtype == torch.float32 or (model.dtype == torch.bfloat16 and on_cuda))
