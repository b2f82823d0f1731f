"""How much memory a process needs that only samples: on Ray's actors, and where benchmarks are sat."""

from __future__ import annotations

from kascade.recipe.layout import BYTES, FP32, Layout, Range, exactly
from kascade.recipe.memory import LOGIT_COPIES, RUNTIME_GIB, cached_rows, sampler_copies
from kascade.recipe.shapes import ModelShape


def sampler_memory(shape: ModelShape, layout: Layout, processes: int = 1) -> dict[str, Range]:
    """Bytes of each part on the fullest device: a whole model, and what the engine keeps beside it.

    An engine that spreads its own copy over several devices has the whole model on the first. A server's copy
    is not counted: `layout.samples` is None. processes: that share the device, each with a model.
    """
    width, rows = BYTES[layout.precision], (layout.samples or (0, 0))[0]
    head = 0 if layout.engine_devices else rows * shape.vocabulary * FP32 * LOGIT_COPIES
    parts = {
        "weights": exactly((shape.size + shape.draft_size) * width),
        "sampler": exactly(sampler_copies(shape, layout) * width),
        "judge": exactly(layout.beside),
        "rollouts": cached_rows(shape, layout),
        "head": exactly(head),
        "runtime": Range(*(one * 2.0**30 for one in RUNTIME_GIB[layout.device])),
    }
    return {name: amount.scaled((processes,) * 3) for name, amount in parts.items() if amount.high > 0}
