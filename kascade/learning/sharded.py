"""One update by several processes: shares of a batch, sums over processes, clipping over several meshes.

Every process calls the trainer's methods with the same arguments (SPMD), under torchrun as in a Ray actor.
The losses are sums over tokens whose weights hold the normalisation of the whole batch, so the gradients of
the processes are added, never averaged, and the result is that of one process up to the order of additions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from kascade.errors import KascadeError
from kascade.learning.example import Example
from kascade.models.mesh import add_up, largest, rank, world

Cut = Callable[[Sequence[Example]], Iterator[list[Example]]]


class WorkerLost(KascadeError):
    """A process that trained has gone; the last training state continues on a new one."""


def shares(examples: Sequence[Example], cut: Cut) -> Iterator[tuple[list[Example], bool]]:
    """This process's micro-batches, and whether they count.

    The layers of a sharded model gather their weights together, so all processes make equally many forwards.
    One with less work adds company: the shortest example with weights of 0.
    """
    share = share_of(examples)
    mine = list(cut(share)) if share else []
    missing = largest(len(mine)) - len(mine)  # asked before any forward: the others may be in one of theirs
    yield from ((chosen, True) for chosen in mine)
    yield from (([_company(examples)], False) for _ in range(missing))


def share_of(examples: Sequence[Example]) -> Sequence[Example]:
    """The examples that this process computes: all shares one after another are all examples."""
    # Contiguous, so that results of all processes one after another are in the order of the examples.
    low, high = (len(examples) * n // world() for n in (rank(), rank() + 1))
    return examples[low:high]


def _company(examples: Sequence[Example]) -> Example:
    # Weights of 0 make its gradient 0, whatever the objective: the company is only paid for in time.
    shortest = min(examples, key=lambda example: len(example.token_ids))
    columns = dict(shortest.columns)
    if "weights" in columns:  # what is only scored may have none
        columns["weights"] = torch.zeros_like(columns["weights"])
    return replace(shortest, columns=columns)


def mesh_of(tensor: Tensor) -> Any:
    """The processes over which a tensor is spread; None for one that every process holds whole."""
    return tensor.device_mesh if isinstance(tensor, DTensor) else None


def by_mesh(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors of each mesh together: norms and fused steps cannot span two."""
    groups: dict[Any, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[mesh_of(tensor)].append(tensor)
    return list(groups.values())


def sum_whole_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of parameters that every process holds whole, as FSDP2 does for shards.

    Losses were multiplied by the number of processes, because FSDP2 averages.
    """
    for parameter in parameters:
        if parameter.grad is not None and mesh_of(parameter) is None:
            add_up(parameter.grad)
            parameter.grad /= world()


def clip_by_mesh(parameters: Sequence[Tensor], max_norm: float) -> float:
    """Scale gradients on any meshes down to a common norm of `max_norm`; returns their norm before."""
    groups = by_mesh([p for p in parameters if p.grad is not None])
    norms = [get_total_norm([p.grad for p in group if p.grad is not None]) for group in groups]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    # The norm of norms: one threshold for the model, although no fused call can span two meshes.
    total = torch.linalg.vector_norm(torch.stack(whole))
    for group in groups:
        clip_grads_with_norm_(group, max_norm, total)
    return float(total)
