"""Simulated cascades for the guard's table: tasks, drift, losses and paired answers. Imports nothing of
kascade.

Every array of chances is [R, T]: R independent benchmarks, T tasks. Answers are binary. Difficulties are Beta
distributions with masses at 0 and 1, fitted to the confirming scores of one quickstart run (nine benchmarks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# mass at 0, mass at 1, Beta's a and b
FITS: dict[str, tuple[float, float, float, float]] = {
    "math": (0.2229, 0.0, 2.0747, 1.5650),
    "instructions": (0.0686, 0.0, 0.5005, 0.1429),
    "knowledge": (0.0714, 0.0114, 0.9214, 0.9820),
    "tools": (0.1076, 0.0, 1.5036, 0.4244),
    "structure": (0.0057, 0.0, 6.8271, 1.0874),
    "chat": (0.0, 0.3804, 1302.18, 1064.39),
    "retrieval": (0.0, 0.0, 0.1596, 0.1610),
    "code": (0.0291, 0.0, 4.1397, 1.1354),
    "repair": (0.0451, 0.0, 2.6507, 1.3270),
}


@dataclass(frozen=True, slots=True)
class Drift:
    """How a stage moves the chances with mean zero.

    kind "beta": p' ~ Beta(p w, (1 - p) w), strength w. "symmetric": p + s min(p, 1 - p) u, u in [-1, 1],
    strength s. "skewed": one task in ten loses s min(p, 1 - p), nine gain a ninth of it.
    shared: chance that a task's move is the same in all nine benchmarks ("symmetric" only).
    """

    kind: str = "none"
    strength: float = 0.0
    shared: float = 0.0


def tasks(rng: np.random.Generator, rows: int, num_tasks: int) -> Floats:
    """Chances [rows, num_tasks]; row i has the difficulty of benchmark i modulo nine."""
    found = np.empty((rows, num_tasks))
    for index, (none, all_, a, b) in enumerate(FITS.values()):
        mine = found[index :: len(FITS)]
        uniform = rng.random(mine.shape)
        inside = rng.beta(a, b, mine.shape)
        mine[:] = np.where(uniform < none, 0.0, np.where(uniform < none + all_, 1.0, inside))
    return found


def drifted(rng: np.random.Generator, chances: Floats, drift: Drift) -> Floats:
    """The chances after one stage that changed nothing on average."""
    room = np.minimum(chances, 1 - chances) * drift.strength
    if drift.kind == "beta":
        inside = np.clip(chances, 1e-3, 1 - 1e-3)
        return np.asarray(rng.beta(inside * drift.strength, (1 - inside) * drift.strength))
    if drift.kind == "symmetric":
        return np.asarray(chances + room * _directions(rng, chances.shape, drift.shared))
    if drift.kind == "skewed":
        return np.asarray(np.where(rng.random(chances.shape) < 0.1, chances - room, chances + room / 9))
    return chances


def _directions(rng: np.random.Generator, shape: tuple[int, ...], shared: float) -> Floats:
    own = rng.uniform(-1, 1, shape)
    if not shared:
        return own
    cascades = shape[0] // len(FITS)
    common = np.repeat(rng.uniform(-1, 1, (cascades, shape[1])), len(FITS), axis=0)
    which = np.repeat(rng.random((cascades, shape[1])) < shared, len(FITS), axis=0)
    return np.where(which, common, own)


def lowered(rng: np.random.Generator, chances: Floats, fall: float, shape: str) -> Floats:
    """Chances whose mean over tasks is lower by `fall` in each row.

    "proportional": all by the same factor. "uniform": all by the same amount, at most to 0. "whole tasks":
    random tasks fall to 0 until `fall` is lost.
    """
    if shape == "proportional":
        return np.asarray(chances * np.maximum(0, 1 - fall / chances.mean(axis=1, keepdims=True)))
    if shape == "uniform":
        return chances - np.minimum(chances, _cut(chances, fall))
    order = np.argsort(rng.random(chances.shape), axis=1)
    shuffled = np.take_along_axis(chances, order, axis=1)
    before = np.cumsum(shuffled, axis=1) - shuffled
    lost = np.clip(fall * chances.shape[1] - before, 0, shuffled)
    found = np.empty_like(chances)
    np.put_along_axis(found, order, shuffled - lost, axis=1)
    return found


def _cut(chances: Floats, fall: float) -> Floats:
    """The amount c [R, 1] for which the mean of min(chance, c) is `fall`."""
    low, high = np.zeros((len(chances), 1)), np.ones((len(chances), 1))
    for _ in range(30):
        middle = (low + high) / 2
        under = np.minimum(chances, middle).mean(axis=1, keepdims=True) < fall
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return low


def paired(
    rng: np.random.Generator, before: Floats, after: Floats, samples: int, shared: float = 0.0
) -> tuple[Ints, Ints]:
    """Pairs of answers [R, T]: how many were right only before, and how many only after.

    shared: chance that both checkpoints answer from the same random number, else from two of their own.
    """
    apart = 1 - shared
    only_before = shared * np.maximum(before - after, 0) + apart * before * (1 - after)
    only_after = shared * np.maximum(after - before, 0) + apart * after * (1 - before)
    lost = rng.binomial(samples, np.clip(only_before, 0, 1))
    rest = np.clip(only_after / np.maximum(1 - only_before, 1e-12), 0, 1)
    return lost, rng.binomial(samples - lost, rest)
