"""A batch of rollouts that several updates learn from, as tensors that a training state can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kascade.learning.example import Example

NUMBER, METRICS, LENGTHS, TOKENS, SCORED, COLUMN, ROUTED, ROUTING = (
    "number",
    "metrics",
    "lengths",
    "tokens",
    "scored",
    "column.",
    "routed",
    "routing",
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rollout batch `number`: its examples (none: the updates are skipped) and its rollouts' metrics."""

    number: int
    examples: Sequence[Example]
    metrics: Mapping[str, float | str]

    def tensors(self) -> dict[str, Tensor]:
        """Everything, so that `from_tensors` gives the same batch, bit for bit."""
        found = {
            NUMBER: torch.tensor(self.number),
            # Metrics hold text, too (names of benchmarks): JSON as bytes, since a state holds tensors only.
            METRICS: torch.tensor(list(json.dumps(dict(self.metrics)).encode()), dtype=torch.uint8),
            LENGTHS: torch.tensor([len(e.token_ids) for e in self.examples], dtype=torch.long),
            TOKENS: torch.tensor([t for e in self.examples for t in e.token_ids], dtype=torch.long),
            SCORED: torch.tensor([s for e in self.examples for s in e.scored], dtype=torch.bool),
        }
        for name in self.examples[0].columns if self.examples else ():
            found[COLUMN + name] = torch.cat([e.columns[name] for e in self.examples])
        routing = [e.routing for e in self.examples if e.routing is not None]
        # All or none: a batch with a partial record could not say whose it is.
        if routing and len(routing) == len(self.examples):
            found[ROUTED] = torch.tensor([len(record) for record in routing])
            found[ROUTING] = torch.cat(routing)
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Batch:
        lengths = tensors[LENGTHS].tolist()
        ids, scored = (torch.split(tensors[name], lengths) for name in (TOKENS, SCORED))
        counts = [int(mask.sum()) for mask in scored]
        columns = {
            name.removeprefix(COLUMN): torch.split(values, counts)
            for name, values in tensors.items()
            if name.startswith(COLUMN)
        }
        routing: Sequence[Tensor | None] = [None] * len(lengths)
        if ROUTING in tensors:
            routing = torch.split(tensors[ROUTING], tensors[ROUTED].tolist())
        examples = [
            Example(
                ids[row].tolist(),
                scored[row].tolist(),
                {name: parts[row] for name, parts in columns.items()},
                routing[row],
            )
            for row in range(len(lengths))
        ]
        metrics = json.loads(bytes(tensors[METRICS].tolist()).decode())
        return cls(int(tensors[NUMBER]), examples, metrics)
