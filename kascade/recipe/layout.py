"""What a process of a stage keeps, and amounts of memory: what `recipe.memory` counts with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FP32 = 4
BYTES = {"fp32": 4, "bf16": 2, "fp8": 2, "nvfp4": 2}  # of a weight as it is kept (low precision: beside it)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes."""

    low: float
    expected: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def scaled(self, factors: tuple[float, float, float]) -> Range:
        return Range(self.low * factors[0], self.expected * factors[1], self.high * factors[2])


def exactly(amount: float) -> Range:
    return Range(amount, amount, amount)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a stage's training keeps on one process.

    shard: processes that share one copy of the weights; experts: groups among them with different experts.
    tokens: of a micro-batch, at least its longest row. adapter: (rank, targets), None: all weights train.
    whole_teachers, adapter_teachers: frozen models that score, of their own and over the policy's base.
    teachers_rest: whole ones lie in the host's memory while others compute.
    samples: rows that this process samples at once and the longest of them; None: others do.
    engine_devices: over which vLLM spreads a copy of its own; 0: the native sampler shares the weights.
    engine_bytes: what vLLM takes of each, weights and caches, whether it needs them or not.
    beside: bytes of another model in this process, such as a judge. full_vocabulary: of distillation.
    drafts: tokens ahead that the draft head is trained to predict; 0: it is frozen.
    """

    precision: str = "bf16"
    device: Literal["cpu", "cuda"] = "cuda"
    shard: int = 1
    experts: int = 1
    activations: Literal["keep", "recompute", "offload"] = "keep"
    tokens: int = 8192
    adapter: tuple[int, tuple[str, ...] | None] | None = None
    whole_teachers: int = 0
    teachers_rest: bool = False
    adapter_teachers: int = 0
    samples: tuple[int, int] | None = None
    engine_devices: int = 0
    engine_bytes: float = 0.0
    beside: int = 0
    full_vocabulary: bool = False
    drafts: int = 0
    trunk: bool = field(default=True)  # whether Kascade's own forward computes: not on shards
