"""How long work takes on a device that nobody has measured: operations over peak, bytes over bandwidth.

A forward costs two operations a parameter that a token meets (of experts, the chosen ones), and attention's
products over half the sequence. A backward costs two forwards, or one where the weights are frozen. Sampling
reads the weights, and each row's keys and values, once a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kascade.recipe.hardware import DEVICES, Hardware
from kascade.recipe.layout import Range
from kascade.recipe.shapes import LayerShape, ModelShape, count

WIDTH = 2  # bytes of a weight, of a key, of a value: bf16
# Parts of a device's peak that training reaches (model FLOPs utilisation): best, expected, worst. Llama 3 on
# H100s, dense: 0.38 to 0.43 (arXiv 2407.21783, Table 4). Lower ends, and those of models with experts or
# recurrent layers, are ours: short rows, small batches, kernels that are less tuned.
TRAINING: Mapping[str, tuple[float, float, float]] = {"dense": (0.45, 0.35, 0.15), "mixed": (0.3, 0.2, 0.07)}
# Of bandwidth and of peak that sampling reaches: ours.
SAMPLING = (0.7, 0.45, 0.2)
STEP_S = (0.002, 0.005, 0.015)  # of one step of sampling beside that: launches and scheduling
ROWS_AT_ONCE = 256  # vLLM's default of sequences at a time


@dataclass(frozen=True, slots=True)
class Speed:
    """One model on one kind of device. trains: share of the weights' work that a backward costs: 2, or 1."""

    shape: ModelShape
    tflops: float
    bandwidth: float  # bytes per second

    @classmethod
    def of(cls, shape: ModelShape, hardware: Hardware) -> Speed | None:
        """None for a device that is not known here."""
        device = DEVICES.get(hardware.device)
        return cls(shape, device.tflops, device.bandwidth_gbs * 1e9) if device else None

    @property
    def kind(self) -> str:
        """dense, or mixed: a model with experts or recurrent layers."""
        plain = all(not layer.experts and not layer.state for layer in self.shape.layers)
        return "dense" if plain else "mixed"

    def forward(self, length: float) -> float:
        """Operations of one token's forward, in sequences of this length."""
        return forward_flops(self.shape, length)

    def training_s(
        self, tokens: Range, lengths: Range, *, backward: float, scored: int, devices: int
    ) -> Range:
        """Seconds to learn from tokens. backward: forwards that a backward costs, those made again included.

        scored: further forwards over each token, of teachers, references and judges.
        """
        shares = TRAINING[self.kind]
        times = [
            amount * self.forward(length) * (1 + backward + scored) / (devices * self.tflops * 1e12 * share)
            for amount, length, share in zip(_levels(tokens), _levels(lengths), shares, strict=True)
        ]
        return Range(*times)

    def sampling_s(self, tokens: Range, lengths: Range, *, rows: int, engines: int, cut: int) -> Range:
        """Seconds to draw tokens. rows: sequences at a time of all engines; cut: devices of one engine."""
        batch = max(1.0, min(rows / engines, ROWS_AT_ONCE))
        times = []
        for place, (amount, length) in enumerate(zip(_levels(tokens), _levels(lengths), strict=True)):
            share = SAMPLING[place]
            read = weights_read(self.shape, batch) + batch * cache_bytes(self.shape, length / 2)
            computed = batch * self.forward(length / 2) / (cut * self.tflops * 1e12 * share)
            step = max(read / (cut * self.bandwidth * share), computed) + STEP_S[place]
            times.append(amount / engines / batch * step)
        return Range(*times)


def _levels(amount: Range) -> tuple[float, float, float]:
    return amount.low, amount.expected, amount.high


def forward_flops(shape: ModelShape, length: float) -> float:
    """Operations of a token's forward in a sequence of `length` tokens, causal attention over half of it."""
    weights = sum(_met(layer) for layer in shape.layers) + shape.vocabulary * shape.hidden
    attention = sum(4 * _query(layer) * length / 2 for layer in shape.layers if layer.cached)
    scan = sum(6 * layer.state for layer in shape.layers)
    return 2.0 * weights + attention + scan


def active_parameters(shape: ModelShape) -> float:
    """Parameters that one token meets, the embedding's rows left out."""
    return sum(_met(layer) for layer in shape.layers) + shape.vocabulary * shape.hidden


def _met(layer: LayerShape) -> float:
    return count(layer.weights) + layer.chosen * count(layer.experts)


def _query(layer: LayerShape) -> int:
    return layer.linear["q_proj"][0]


def weights_read(shape: ModelShape, batch: float) -> float:
    """Bytes of weights that one step of sampling reads: of experts, at most as many as rows choose."""
    found = 0.0
    for layer in shape.layers:
        found += count(layer.weights) + min(1.0, batch * layer.chosen) * count(layer.experts)
    return WIDTH * (found + shape.vocabulary * shape.hidden)


def cache_bytes(shape: ModelShape, length: float) -> float:
    """Bytes that one row's step reads of what is kept of the row: keys and values, recurrent states."""
    kept = sum(layer.cached * length * WIDTH for layer in shape.layers)
    return kept + sum(2 * 4 * layer.state for layer in shape.layers)
