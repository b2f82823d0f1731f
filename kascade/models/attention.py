"""Attention over packed or padded rows, as the training forwards share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.models.batch import Block, TokenBatch


def varlen_kernel(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """Attention over rows of any lengths in one launch, where there is one: CUDA, 16-bit."""
    if device.type != "cuda" or dtype not in {torch.bfloat16, torch.float16}:
        return None
    from torch.nn.attention.varlen import varlen_attn

    kernel: Any = varlen_attn  # returns more than the output only when asked to
    return cast("Callable[..., Tensor]", kernel)


class Segments:
    """Rows of all blocks as stretches of queries in the flat batch, and of keys: a prompt's, then the row's.

    Padding at the end of a row counts as part of it: what is causal never looks there from before.
    """

    def __init__(self, batch: TokenBatch) -> None:
        device, first = batch.token_ids.device, batch.blocks[0]
        queries, keys, places = [0], [0], []
        for block in batch.blocks:
            parents = [None] * block.rows if block.parents is None else block.parents.tolist()
            for row, parent in enumerate(parents):
                seen = [torch.arange(block.length) + block.start + row * block.length]
                if parent is not None:
                    prompt = torch.arange(int(first.lengths[parent])) + first.start + parent * first.length
                    seen.insert(0, prompt)
                places += seen
                queries.append(queries[-1] + block.length)
                keys.append(keys[-1] + sum(map(len, seen)))
        self.keys = torch.cat(places).to(device)  # of all rows, one after another: places in the flat batch
        ends = [torch.tensor(ends, dtype=torch.int32) for ends in (queries, keys)]
        self.longest = [int(end.diff().max()) for end in ends]
        self.ends = [end.to(device) for end in ends]  # cumulative lengths, from 0

    def attend(self, kernel: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `Attention.__call__`; where a row has fewer queries than keys, they are its last."""
        key, value = key.index_select(0, self.keys), value.index_select(0, self.keys)
        out = kernel(
            query.contiguous(), key, value, *self.ends, *self.longest,
            window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
        return out.flatten(1)


class Attention:
    """Causal attention within the rows of a batch's blocks, and over the prompts they continue."""

    def __init__(self, batch: TokenBatch, dtype: torch.dtype) -> None:
        self._blocks = batch.blocks
        self._kernel = varlen_kernel(batch.token_ids.device, dtype)
        if self._kernel is not None:
            self._segments = Segments(batch)
            return
        self._masks = [_mask(block, batch.blocks[0], dtype) for block in batch.blocks]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query: [M, heads, D]; key, value: [M, kv heads, D]; to [M, heads D]."""
        if self._kernel is not None:
            return self._segments.attend(self._kernel, query, key, value)
        parts = []
        first: tuple[Tensor, Tensor] | None = None
        sizes = [block.rows * block.length for block in self._blocks]  # split once: one cat in the backward
        by_block = zip(*(x.split_with_sizes(sizes) for x in (query, key, value)), strict=True)
        for block, mask, flat in zip(self._blocks, self._masks, by_block, strict=True):
            q, k, v = (x.view(block.rows, block.length, *x.shape[1:]).transpose(1, 2) for x in flat)
            if block.parents is not None and first is not None:
                k = torch.cat([first[0].index_select(0, block.parents), k], dim=2)
                v = torch.cat([first[1].index_select(0, block.parents), v], dim=2)
            first = first or (k, v)
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1]
            )
            parts.append(out.transpose(1, 2).reshape(block.rows * block.length, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _mask(block: Block, first: Block, dtype: torch.dtype) -> Tensor | None:
    """What to add to the scores of a block that continues prompts: [rows, 1, T, prompt + T]."""
    if block.parents is None:
        return None
    device = block.lengths.device
    prompt = torch.arange(first.length, device=device) < first.lengths[block.parents, None]
    causal = torch.ones(block.length, block.length, dtype=torch.bool, device=device).tril()
    visible = torch.cat(
        [
            prompt[:, None, None].expand(-1, 1, block.length, -1),
            causal.expand(block.rows, 1, -1, -1),
        ],
        dim=-1,
    )
    return torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, -torch.inf)


def positions(batch: TokenBatch) -> Tensor:
    """Position of every token in its sequence: [M]."""
    parts = []
    for block in batch.blocks:
        within = torch.arange(block.length, device=batch.token_ids.device).expand(block.rows, -1)
        if block.parents is not None:
            within = within + batch.blocks[0].lengths[block.parents, None]
        parts.append(within.reshape(-1))
    return torch.cat(parts)
