"""The devices that a recipe is written for: what `kascade plan` counts memory against.

Memory: what nvidia-smi reports as total, a little under the name's number. Compute (dense bf16) and
bandwidth: by the makers' data sheets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.checks import CrossCheckError, Problem, nearest
from kascade.recipe.parts import Part

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Device:
    """memory_gib: in all. tflops: dense bf16, 10^12 a second. bandwidth_gbs: of its memory, 10^9 bytes/s."""

    memory_gib: float
    tflops: float
    bandwidth_gbs: float


DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        "a100-40gb": Device(40.0, 312, 1555),
        "a100-80gb": Device(80.0, 312, 2039),
        "h100-80gb": Device(79.6, 989, 3350),
        "h200-141gb": Device(140.4, 989, 4800),
        "b200-180gb": Device(179.1, 2250, 8000),
        "l40s-48gb": Device(45.0, 362, 864),
        "rtx-4090-24gb": Device(24.0, 165, 1008),
    }
)


class Hardware(Part):
    """Devices of one kind, on nodes that are alike."""

    device: str = Field(description=f"one of {', '.join(DEVICES)}; any other name with its memory_gib")
    memory_gib: PositiveFloat | None = Field(None, description="of a device; None: that of the named device")
    per_node: PositiveInt = Field(8, description="devices on a node")
    nodes: PositiveInt = Field(1, description="nodes that one stage may use")

    @model_validator(mode="after")
    def _memory_is_known(self) -> Hardware:
        if self.memory_gib is None and self.device not in DEVICES:
            what = f"no device {self.device!r} is known"
            remedy = nearest(self.device, list(DEVICES)) or "give its memory_gib beside it"
            raise CrossCheckError([Problem(("device",), what, ", ".join(DEVICES), remedy)])
        return self

    @property
    def memory_bytes(self) -> int:
        """Of one device."""
        gib = self.memory_gib if self.memory_gib is not None else DEVICES[self.device].memory_gib
        return int(gib * GIB)

    @property
    def devices(self) -> int:
        """In all."""
        return self.per_node * self.nodes
