"""Training states of several processes: each writes its shards (torch's distributed checkpoints).

The tensors are copied first and written in a thread. torch's own asynchronous save fails on CPUs for
processes that hold nothing of a tensor. Any number of processes, on any mesh, reads them again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, Replicate
from transformers.distributed.checkpoint import _redistribute_state_dict

from kascade.models.mesh import rank, world
from kascade.storage.files import file_digest

Tensors = dict[str, Tensor]
Write = Callable[[Path], dict[str, str]]
METADATA = ".metadata"


def thread_group() -> Any:
    """A group of all processes in which their writing threads meet. All processes must call it."""
    return distributed.new_group(backend="gloo")


def stage(tensors: Mapping[str, Tensor]) -> Tensors:
    """A copy on the CPU of what this process holds, in shards that can be written."""
    # Training spreads experts in ways of its own; a checkpoint holds plain shards, which any mesh reads.
    plain = _redistribute_state_dict({name: tensor.detach() for name, tensor in tensors.items()})
    return {name: tensor.to("cpu", copy=True) for name, tensor in plain.items()}


def write(staged: Tensors, group: Any, folder: Path) -> dict[str, str]:
    """Write the shards of all processes into `folder`; returns all files' digests, by their names beside it.

    All processes must call it. It returns when every file is on the disk.
    """
    distributed.barrier(group)  # the first process has made the folder around this one
    save(staged, checkpoint_id=folder, process_group=group)
    own = sorted(folder.glob(f"__{rank()}_*"))
    if rank() == 0:
        own.append(folder / METADATA)
    # Each process reads its own files back once; nobody reads another one's.
    digests: list[Any] = [None] * world()
    found = {f"{folder.name}/{path.name}": file_digest(path) for path in own}
    distributed.all_gather_object(digests, found, group=group)
    return {name: digest for part in digests for name, digest in part.items()}


def read(folder: Path, tensors_of: Callable[[Container[str]], Tensors]) -> None:
    """Fill `tensors_of(names that were saved)` in place."""
    saved = FileSystemReader(folder).read_metadata().state_dict_metadata
    wanted = tensors_of(saved)
    plain = _redistribute_state_dict(dict(wanted))
    load(plain, checkpoint_id=folder, no_dist=world() == 1)
    again = _redistribute_state_dict(plain, reference_state_dict=wanted)
    with torch.no_grad():
        for name, tensor in wanted.items():
            # Tensors that were plain already have been filled in place.
            if again[name] is not tensor:
                tensor.copy_(again[name])


def copy_whole(into: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor, which every process has, into one that may be spread over them."""
    with torch.no_grad():
        if not isinstance(into, DTensor):
            into.copy_(whole)
            return
        mesh = into.device_mesh
        everywhere = [Replicate()] * mesh.ndim
        # Everyone has all of it, so spreading it is a matter of cutting: no process sends anything.
        local = whole.to(into.to_local().device, into.dtype)
        spread = DTensor.from_local(local, mesh, everywhere, run_check=False)
        into.copy_(spread.redistribute(placements=into.placements))
