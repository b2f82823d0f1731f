"""NCCL's own interface, as far as weights need it: one process sends to all others.

vLLM's workers open a communicator of their own, apart from torch's groups. A trainer without vLLM's package
joins it with NCCL's unique id, and answers its first all-reduce. NCCL is the one that torch has loaded.
Interface: NVIDIA's nccl.h 2.x.
"""

from __future__ import annotations

import base64
import ctypes
from typing import Any

import torch
from torch import Tensor

UNIQUE_ID_BYTES = 128
TYPES = {"float32": 7, "float16": 6, "bfloat16": 9, "int64": 4, "int32": 2, "uint8": 1, "int8": 0}
SUM, SENDER = 0, 0


class _UniqueId(ctypes.Structure):
    _fields_ = (("internal", ctypes.c_byte * UNIQUE_ID_BYTES),)


class Sender:
    """The first of `world` processes of a communicator; the others receive."""

    def __init__(self, world: int) -> None:
        self._nccl: Any = ctypes.CDLL("libnccl.so.2")
        self._nccl.ncclGetErrorString.restype = ctypes.c_char_p
        self._world = world
        self._id = _UniqueId()
        self._checked(self._nccl.ncclGetUniqueId(ctypes.byref(self._id)))
        self._group = ctypes.c_void_p()

    @property
    def unique_id(self) -> str:
        """What the others join with, in base64."""
        return base64.b64encode(bytes(self._id.internal)).decode()

    def join(self) -> None:
        """Meet the others, which must do so at the same time."""
        self._checked(self._nccl.ncclCommInitRank(ctypes.byref(self._group), self._world, self._id, SENDER))
        first = torch.zeros(1, device="cuda")
        self._checked(
            self._nccl.ncclAllReduce(
                self._at(first), self._at(first), ctypes.c_size_t(1), TYPES["float32"], SUM, self._group,
                self._stream(),
            )
        )  # fmt: skip
        torch.cuda.current_stream().synchronize()

    def send(self, tensor: Tensor) -> None:
        """Broadcast a tensor of this device; `wait` before it is changed."""
        kind = TYPES[str(tensor.dtype).removeprefix("torch.")]
        place = self._at(tensor)
        count = ctypes.c_size_t(tensor.numel())
        self._checked(
            self._nccl.ncclBroadcast(place, place, count, kind, SENDER, self._group, self._stream())
        )

    def wait(self) -> None:
        torch.cuda.current_stream().synchronize()

    def close(self) -> None:
        self._checked(self._nccl.ncclCommDestroy(self._group))

    def _checked(self, status: int) -> None:
        if status:
            raise RuntimeError(f"NCCL: {self._nccl.ncclGetErrorString(status).decode()}")

    @staticmethod
    def _at(tensor: Tensor) -> ctypes.c_void_p:
        return ctypes.c_void_p(tensor.data_ptr())

    @staticmethod
    def _stream() -> ctypes.c_void_p:
        return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
