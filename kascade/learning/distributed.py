"""One update by several processes: FSDP2 shards weights, gradients and optimiser; batches are shared out.

Every process calls the same methods with the same arguments (SPMD), under torchrun as in a Ray actor. The
losses are sums over tokens whose weights hold the normalisation of the whole batch, so the gradients of the
processes are added, never averaged, and the result is that of one process up to the order of additions.
"""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kascade.errors import KascadeError
from kascade.learning.optimizer import build_optimizer
from kascade.learning.state import load_state, save_state
from kascade.learning.trainer import Columns, Example, Objective, Trainer, collate, cut
from kascade.models.logprobs import TokenBatch
from kascade.recipe.schema import Optimizer


class WorkerLost(KascadeError):
    """A process that trained has gone; the last training state continues on a new one."""


def join_group() -> None:
    """Under torchrun, meet the other processes, once; elsewhere do nothing."""
    from torch import distributed

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def world() -> int:
    """How many processes train together."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    from torch import distributed

    return distributed.get_rank() if distributed.is_initialized() else 0


def wait_for_all() -> None:
    from torch import distributed

    if world() > 1:
        distributed.barrier()


class _Unit(nn.Module):
    """What is sharded: objectives compute on a model's weights without calling the model, so all of them are
    gathered around the objective."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, objective: Objective, batch: TokenBatch, columns: Columns
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        terms = objective(self.model, batch, columns)
        return terms.loss, terms.per_token


class ShardedTrainer(Trainer):
    """A `Trainer` spread over the processes of the group. `model` always holds the whole, current weights;
    what is trained is a sharded copy of it."""

    def __init__(
        self,
        model: PreTrainedModel,
        part: Optimizer,
        *,
        total_steps: int,
        micro_batch_tokens: int,
        pad_id: int,
    ) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__(
            model, part, total_steps=total_steps, micro_batch_tokens=micro_batch_tokens, pad_id=pad_id
        )
        self._unit = _Unit(copy.deepcopy(model))
        fully_shard(self._unit, mesh=init_device_mesh(model.device.type, (world(),)))
        self.optimizer = build_optimizer(self._unit, part)

    def update(self, *arguments: Any, **more: Any) -> dict[str, float]:
        metrics = super().update(*arguments, **more)
        self._gather()
        return metrics

    def _accumulate(self, examples: Sequence[Example], objective: Objective) -> dict[str, float]:
        loss, tokens = 0.0, 0
        sums: dict[str, float] = defaultdict(float)
        for chosen, counted in self._share(examples):
            batch, columns = collate(self.model, chosen, self.pad_id)
            part, per_token = self._unit(objective, batch, columns)
            (part * world()).backward()  # FSDP2 averages
            for name, values in per_token.items():
                sums[name] += float(values.detach().sum()) if counted else 0.0
            loss += float(part.detach())
            tokens += sum(map(sum, (e.scored for e in chosen))) if counted else 0
        names = sorted(sums)
        totals = torch.tensor([loss, tokens, *(sums[name] for name in names)], dtype=torch.float64)
        torch.distributed.all_reduce(totals)
        means = dict(zip(names, (totals[2:] / totals[1]).tolist(), strict=True))
        return {"loss": float(totals[0]), "tokens": float(totals[1]), **means}

    def _share(self, examples: Sequence[Example]) -> Iterator[tuple[list[Example], bool]]:
        """This process's micro-batches; all processes have equally many, the last ones for company only."""
        low, high = (len(examples) * n // world() for n in (rank(), rank() + 1))
        mine = list(cut(self.model, examples[low:high], self.micro_batch_tokens)) if low < high else []
        most = torch.tensor(len(mine))
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        yield from ((chosen, True) for chosen in mine)
        silent = replace(
            examples[0],
            columns={**examples[0].columns, "weights": torch.zeros_like(examples[0].columns["weights"])},
        )
        yield from (([silent], False) for _ in range(int(most) - len(mine)))

    def _clip(self) -> float:
        norm: Any = nn.utils.clip_grad_norm_(self._unit.parameters(), self.part.max_grad_norm)
        return float(_whole(norm).detach())

    def _gather(self) -> None:
        """Bring the trained weights into `model`, in place."""
        with torch.no_grad():
            sharded = dict(self._unit.model.named_parameters())
            for name, parameter in self.model.named_parameters():
                parameter.copy_(_whole(sharded[name].detach()))

    def save(
        self, folder: Path, step: int, rollouts: Mapping[str, Tensor] | None = None, *, keep: int = 2
    ) -> None:
        """The state that a single process would write, so that it can be continued by any number of them."""
        optimizer: Any = _WholeOptimizer(self.optimizer)
        if rank() == 0:
            save_state(folder, step, self.model, optimizer, rollouts, keep=keep)
        else:
            optimizer.state_dict()  # gathering takes everybody
        wait_for_all()

    def load(self, folder: Path, rollouts: dict[str, Tensor] | None = None) -> int:
        optimizer: Any = _WholeOptimizer(self.optimizer)
        step = load_state(folder, self.model, optimizer, rollouts)
        whole = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, parameter in self._unit.model.named_parameters():
                parameter.copy_(_like(whole[name].detach(), parameter))
        return step


class _WholeOptimizer:
    """A sharded optimiser whose state goes in and out as whole tensors."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        found = self._optimizer.state_dict()
        state = {
            index: {name: _whole(value) for name, value in entry.items()}
            for index, entry in found["state"].items()
        }
        return {**found, "state": state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        state = {
            index: {
                name: _like(value, parameters[index]) if value.ndim else value
                for name, value in entry.items()
            }
            for index, entry in saved["state"].items()
        }
        self._optimizer.load_state_dict({**saved, "state": state})


def _whole(tensor: Any) -> Tensor:
    """All of a sharded tensor, on every process."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def _like(whole: Tensor, sharded: Any) -> Tensor:
    """A whole tensor laid out as `sharded` is; every process holds the same whole one."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, sharded.device_mesh, sharded.placements)
