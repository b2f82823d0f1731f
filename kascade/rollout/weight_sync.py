"""Weights from the trainer into a vLLM server by vLLM's own weight transfer, a part at a time.

The process that sends is the first one of those that train. It walks through `hub_weights`, so no process
holds more of a spread model than a layer and one part. The server's side is vLLM's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import requests
import torch
from safetensors.torch import save_file
from torch import Tensor

from kascade.errors import TrainingStopped
from kascade.models.export import hub_weights
from kascade.models.mesh import compute_dtype, rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEMORY = "/dev/shm"  # files here lie in memory
PART_BYTES = 256 * 2**20  # of weights that are on their way at once
SHOWN = 400  # characters of the server's answer that a message repeats
Transfer = Literal["nccl", "shared_memory"]


@dataclass(frozen=True, slots=True)
class Control:
    """Requests to a vLLM server, one at a time."""

    url: str
    timeout_s: float

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that it answers. Raises TrainingStopped."""
        return self._ask("post", path, json=body)

    def get(self, path: str) -> Any:
        return self._ask("get", path)

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        try:
            response = requests.request(method, f"{self.url}/{path}", timeout=self.timeout_s, **more)
        except requests.exceptions.RequestException as error:
            what = f"the vLLM server at {self.url} does not answer {path} ({type(error).__name__})"
            raise TrainingStopped(f"{what}. To do: read its log, start it, and resume") from None
        if not response.ok:
            what = f"the vLLM server at {self.url} refused {path}: {response.status_code}"
            remedy = "To do: read its log, start it as docs/distributed.md says, and resume"
            raise TrainingStopped(f"{what} {response.text[:SHOWN]}. {remedy}")
        return response.json() if response.content else None


class Channel(Protocol):
    """A way for weights to a server, opened once per process."""

    def send(self, part: Mapping[str, Tensor]) -> None: ...


class SharedMemory:
    """Each part is a file in memory of this machine, gone once the server has read it."""

    def __init__(self, control: Control) -> None:
        self._control = control
        control.post("init_weight_transfer_engine", {"init_info": {}})

    def send(self, part: Mapping[str, Tensor]) -> None:
        where = MEMORY if Path(MEMORY).is_dir() else None
        with tempfile.NamedTemporaryFile(dir=where, prefix="kascade-", suffix=".safetensors") as file:
            save_file({name: tensor.cpu().contiguous() for name, tensor in part.items()}, file.name)
            self._control.post("update_weights", {"update_info": {"path": file.name}})


class NCCL:
    """Each part is announced by names and shapes, then broadcast tensor by tensor."""

    def __init__(self, control: Control) -> None:
        from kascade.rollout.nccl import Sender

        self._control = control
        workers = int(control.get("get_world_size")["world_size"])
        self._sender = Sender(1 + workers)
        begin = {
            "nccl_unique_id_b64": self._sender.unique_id,
            "rank_offset": 1,
            "world_size": 1 + workers,
            "packed": False,
        }
        _meanwhile(
            lambda: control.post("init_weight_transfer_engine", {"init_info": begin}), self._sender.join
        )

    def send(self, part: Mapping[str, Tensor]) -> None:
        there = [tensor.to("cuda").contiguous() for tensor in part.values()]
        update = {
            "names": list(part),
            "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in there],
            "shapes": [list(tensor.shape) for tensor in there],
        }

        def broadcast() -> None:
            for tensor in there:
                self._sender.send(tensor)
            self._sender.wait()

        _meanwhile(lambda: self._control.post("update_weights", {"update_info": update}), broadcast)


def _meanwhile(ask: Callable[[], Any], work: Callable[[], None]) -> None:
    """`work` in this thread while the server, which takes part in it, is asked in another."""
    pool = ThreadPoolExecutor(1)
    try:
        asked = pool.submit(ask)
        work()
        asked.result()
    finally:
        pool.shutdown(wait=False)  # a server that failed may never answer


@lru_cache(maxsize=4)
def channel_to(control: Control, transfer: Transfer) -> Channel:
    """This process's channel to a server."""
    return NCCL(control) if transfer == "nccl" else SharedMemory(control)


@dataclass(frozen=True, slots=True)
class WeightSender:
    """Hands a model's weights over to a server; it can be sent to the process that does so.

    dtype: in which vLLM computes: floating-point weights are rounded to it. label: what the server will call
    this version.
    """

    control: Control
    transfer: Transfer
    dtype: str
    label: str

    def send(self, model: PreTrainedModel) -> None:
        """All processes that share the model call it together; the first one sends.

        Raises TrainingStopped when the server refuses.
        """
        weights = hub_weights(model, getattr(torch, self.dtype))
        try:
            if rank() == 0:
                self._send(weights)
        finally:
            for _ in weights:  # the others gather with us, whatever the server does
                pass

    def _send(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        channel = channel_to(self.control, self.transfer)
        self.control.post("start_weight_update")
        for part in parts_of(weights, PART_BYTES):
            channel.send(part)
        self.control.post("finish_weight_update", {"weight_version": self.label})
        self.control.post("reset_prefix_cache")  # older weights computed it


def parts_of(weights: Iterator[tuple[str, Tensor]], most_bytes: int) -> Iterator[dict[str, Tensor]]:
    """The weights in parts of at most so many bytes, unless one tensor is larger."""
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in weights:
        if part and size + tensor.nbytes > most_bytes:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    if part:
        yield part


def computes_in(model: PreTrainedModel) -> str:
    """The type in which a model computes: of a spread one that of its forward, not of its masters."""
    dtype = compute_dtype(model) or next(model.parameters()).dtype
    return str(dtype).removeprefix("torch.")
