"""Token sequences laid out for one forward: rectangles of similar length, shared prompts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kascade.data.packing import buckets, equal_lengths


@dataclass(frozen=True, slots=True)
class Block:
    """One rectangle of right-padded rows, `rows` x `length` tokens from `start` in the flat batch.

    lengths: [rows] tokens without padding. parents: [rows] which row of the first block each row
    continues; None where rows begin a sequence.
    """

    start: int
    rows: int
    length: int
    lengths: Tensor
    parents: Tensor | None = None

    def view(self, flat: Tensor) -> Tensor:
        """The block's rows of a flat tensor [M, ...]: [rows, length, ...]."""
        return flat.narrow(0, self.start, self.rows * self.length).view(
            self.rows, self.length, *flat.shape[1:]
        )

    def to(self, device: torch.device | str) -> Block:
        parents = None if self.parents is None else self.parents.to(device)
        return replace(self, lengths=self.lengths.to(device), parents=parents)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Sequences of which some tokens are scored (from the hidden state before them, so never the first).

    token_ids: [M] int64, all blocks one after another, padding included. blocks: where sequences, or shared
    prompts (first block) and what continues them, are. predictors: [N] position in `token_ids` of the
    state that predicts each scored token; targets: [N] the scored tokens. Both go through the sequences in
    the order in which they were given, whatever the layout.
    """

    token_ids: Tensor
    blocks: tuple[Block, ...]
    predictors: Tensor
    targets: Tensor

    @classmethod
    def collate(
        cls,
        sequences: Sequence[Sequence[int]],
        scored: Sequence[Sequence[bool]],
        pad_id: int,
        *,
        share_prefixes: bool = False,
        packed: bool = False,
    ) -> TokenBatch:
        """One rectangle as long as the longest sequence; or, with `share_prefixes`, several.

        Then the unscored beginning that sequences have in common is there once, and rows of similar length go
        together (`packed`: of equal length only, so that nothing but prompts is padded; for attention that
        takes any lengths). Only models that `kascade.models.trunk` knows can compute that. Raises ValueError
        when a mask does not fit or scores a first token.
        """
        if [len(s) for s in sequences] != [len(m) for m in scored]:
            raise ValueError("each sequence needs a mask of its own length")
        if any(mask and mask[0] for mask in scored):
            raise ValueError(
                "the first token of a sequence has no hidden state before it: it cannot be scored"
            )
        layout = _Layout(pad_id)
        if share_prefixes:
            # Packed attention takes any lengths, so equal lengths avoid all padding; else buckets bound it.
            predictors = _lay_out_in_blocks(layout, sequences, scored, equal_lengths if packed else buckets)
        else:
            begins = layout.add(sequences)
            predictors = [_states_before(mask, begin) for mask, begin in zip(scored, begins, strict=True)]
        targets = [
            token
            for ids, mask in zip(sequences, scored, strict=True)
            for token, is_scored in zip(ids, mask, strict=True)
            if is_scored
        ]
        return cls(
            torch.tensor(layout.token_ids, dtype=torch.long),
            tuple(layout.blocks),
            torch.tensor([state for states in predictors for state in states], dtype=torch.long),
            torch.tensor(targets, dtype=torch.long),
        )

    @property
    def rectangle(self) -> Tensor | None:
        """The tokens as [B, T] where they are one rectangle, which every model can compute."""
        return self.blocks[0].view(self.token_ids) if len(self.blocks) == 1 else None

    def to(self, device: torch.device | str) -> TokenBatch:
        return TokenBatch(
            self.token_ids.to(device),
            tuple(block.to(device) for block in self.blocks),
            self.predictors.to(device),
            self.targets.to(device),
        )


class _Layout:
    """Flat tokens and blocks in the making."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id
        self.token_ids: list[int] = []
        self.blocks: list[Block] = []

    def add(self, rows: Sequence[Sequence[int]], parents: Sequence[int] | None = None) -> list[int]:
        """Append a rectangle; where each row begins in the flat batch."""
        start, longest = len(self.token_ids), max(map(len, rows))
        for row in rows:
            self.token_ids += [*row, *[self.pad_id] * (longest - len(row))]
        lengths = torch.tensor([len(row) for row in rows])
        parent_rows = None if parents is None else torch.tensor(parents)
        self.blocks.append(Block(start, len(rows), longest, lengths, parent_rows))
        return [start + row * longest for row in range(len(rows))]


def _lay_out_in_blocks(
    layout: _Layout,
    sequences: Sequence[Sequence[int]],
    scored: Sequence[Sequence[bool]],
    grouped: Callable[[Sequence[int]], list[list[int]]],
) -> list[list[int]]:
    """Blocks of all sequences, rows `grouped` by length. Returns, by sequence, where the state
    before each scored token is.
    """
    cuts = shared_cuts(sequences, scored)
    prompts = {tuple(s[:cut]): 0 for s, cut in zip(sequences, cuts, strict=True)} if any(cuts) else {}
    for number, prompt in enumerate(prompts):
        prompts[prompt] = number
    begins = layout.add(list(prompts)) if prompts else []
    predictors: list[list[int]] = [[]] * len(sequences)
    for group in grouped([len(s) - cut for s, cut in zip(sequences, cuts, strict=True)]):
        parents = [prompts[tuple(sequences[row][: cuts[row]])] for row in group] if prompts else None
        starts = layout.add([sequences[row][cuts[row] :] for row in group], parents)
        for index, (row, start) in enumerate(zip(group, starts, strict=True)):
            cut = cuts[row]
            states = _states_before(scored[row][cut:], start)
            # The first scored token is predicted by the last state of its prompt, which is in block 0.
            if parents is not None and scored[row][cut]:
                states[0] = begins[parents[index]] + cut - 1
            predictors[row] = states
    return predictors


def shared_cuts(sequences: Sequence[Sequence[int]], scored: Sequence[Sequence[bool]]) -> list[int]:
    """How many tokens of each sequence to take as its prompt: those before the first scored one.

    All 0 where no two sequences have the same prompt, or one has no scored token: then nothing is shared.
    """
    # A sequence without scored tokens has no end of its prompt.
    if not all(any(mask) for mask in scored):
        return [0] * len(sequences)
    cuts = [list(mask).index(True) for mask in scored]
    seen = Counter(tuple(s[:cut]) for s, cut in zip(sequences, cuts, strict=True))
    # Sharing pays only when a prompt occurs twice: blocks of their own would add a forward's overhead.
    return cuts if any(count > 1 for count in seen.values()) else [0] * len(sequences)


def _states_before(mask: Sequence[bool], begin: int) -> list[int]:
    """Flat positions of the states that predict a row's scored tokens; the row begins at `begin`."""
    return [begin + position - 1 for position, is_scored in enumerate(mask) if is_scored]
