"""Processes that train together: how they meet, and the mesh on which transformers spreads a model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kascade.errors import Fault, UserError
from kascade.recipe.parallel import Parallel, parallel_problems

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel
    from transformers.distributed import DistributedConfig

LAYOUTS = 8  # ways of spreading whose meshes are kept: a stage has one or two
PATIENCE = timedelta(hours=2)  # for each other: the first process may write a large model meanwhile


def join_group() -> None:
    """Under torchrun, meet the other processes, once; elsewhere do nothing."""
    import torch
    from torch import distributed

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def join_others(address: str, rank: int, world: int, start_within_s: float) -> None:
    """Meet the other processes at HOST:PORT, where the first of them waits for all."""
    import torch
    from torch import distributed

    host, _, port = address.rpartition(":")
    meet: Any = distributed.TCPStore  # type: ignore[attr-defined]
    store = meet(host, int(port), world, is_master=rank == 0, timeout=timedelta(seconds=start_within_s))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)


def world() -> int:
    """How many processes train together."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    from torch import distributed

    return distributed.get_rank() if distributed.is_initialized() else 0


def wait_for_all() -> None:
    """Until all processes are here."""
    from torch import distributed

    if world() > 1:
        distributed.barrier()


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    return int(reduced([float(number)], maximum=True)[0])


def reduced(numbers: list[float], *, maximum: bool = False) -> list[float]:
    """The processes' numbers, place by place added up (or the largest of each)."""
    import torch

    if world() == 1:
        return numbers
    totals = torch.tensor(numbers, dtype=torch.float64, device=device_here())
    add_up(totals, maximum=maximum)
    found: list[float] = totals.tolist()
    return found


def add_up(tensor: Tensor, *, maximum: bool = False) -> None:
    """Add the processes' tensors up in place (or take the largest)."""
    from torch import distributed

    if world() > 1:
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX if maximum else distributed.ReduceOp.SUM)


def gathered(parts: list[Tensor]) -> list[Tensor]:
    """The processes' lists of tensors, first process first."""
    from torch import distributed

    everyone: list[Any] = [None] * world()
    distributed.all_gather_object(everyone, parts)
    return [tensor for each in everyone for tensor in each]


def device_here() -> torch.device:
    """Where this process computes."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_processes(part: Parallel, where: str) -> None:
    """Raise UserError when the processes that have met cannot train as `part` says."""
    problems = parallel_problems(part, world())
    faults = [Fault(f"{where}.{p.path[0]}", p.what, p.allowed, p.remedy) for p in problems]
    if faults:
        raise UserError(faults)


def distributed_config(part: Parallel, *, half: bool, rests: bool = False) -> DistributedConfig:
    """What `from_pretrained` is given. half: bfloat16 computes, float32 is kept.

    rests: shards lie in the host's memory and come to the device layer by layer; on a CPU they are there.
    """
    from transformers.distributed import DistributedConfig

    return DistributedConfig(
        fsdp_size=part.shard_of(world()),
        dp_replicate_size=part.replicate,
        ep_size=part.experts,
        fsdp_mixed_precision=half,
        fsdp_cpu_offload=rests and device_here().type != "cpu",
    )


@contextmanager
def shared_mesh() -> Iterator[None]:
    """Within, a model is spread over the mesh of those that were spread alike before it.

    transformers makes six new groups of processes for each model. A group has threads and, with NCCL, buffers
    on the device; a stage may hold ten models: the policy, its reference and its teachers.
    """
    from torch import distributed
    from transformers.distributed import mixin

    make = mixin.initialize_distributed_mesh

    def kept(config: DistributedConfig) -> Any:
        return _mesh_of(distributed.group.WORLD, config.fsdp_size, config.dp_replicate_size, config.ep_size)

    mixin.initialize_distributed_mesh = kept
    try:
        yield
    finally:
        mixin.initialize_distributed_mesh = make


@lru_cache(maxsize=LAYOUTS)
def _mesh_of(group: object, shard: int, replicate: int, experts: int) -> Any:
    """What transformers makes for these sizes, once for all who have met as `group`."""
    from transformers.distributed import DistributedConfig
    from transformers.distributed.utils import initialize_distributed_mesh

    config = DistributedConfig(fsdp_size=shard, dp_replicate_size=replicate, ep_size=experts)
    return initialize_distributed_mesh(config)


def spread_module(model: PreTrainedModel, module: nn.Module) -> None:
    """Spread a module that was added to a spread model in the same way, as a unit of its own."""
    from torch.distributed.fsdp import fully_shard
    from transformers.distributed.fsdp import _get_fsdp_policy_kwargs

    config = model.config.distributed_config
    names = ("dp_replicate", "fsdp") if config.dp_replicate_size > 1 else "fsdp"
    fully_shard(module, mesh=model._mesh_manager.get_mesh(names), **_get_fsdp_policy_kwargs(config))


def compute_dtype(model: PreTrainedModel) -> torch.dtype | None:
    """In what a spread model computes where that is not what its weights are kept in; else None."""
    import torch

    config = getattr(model.config, "distributed_config", None)
    return torch.bfloat16 if config is not None and config.fsdp_mixed_precision else None


def parallel_of(model: PreTrainedModel) -> Parallel:
    """How a spread model is spread."""
    config = model.config.distributed_config
    return Parallel(shard=config.fsdp_size, experts=config.ep_size, replicate=config.dp_replicate_size)
