"""How much memory one process of a stage needs, by named parts: low, expected and high.

A formula over the model's tensors (`kascade.recipe.shapes`) and the layout of the stage; nothing is loaded.
What is exact (weights, masters, optimiser, gradients) has one number. What depends on lengths, on kernels or
on an allocator has three. `benchmarks/fits.py` measures it against real peaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, prod
from typing import Literal

from kascade.recipe.layout import BYTES, FP32, Layout, Range, exactly
from kascade.recipe.shapes import LayerShape, ModelShape, Tensors

MOMENTS = 2  # of AdamW
HEAD_ROWS, HEAD_ELEMENTS = 4096, 2**25  # of one chunk of logits (`kascade.models.logprobs`)
LOGIT_COPIES = 3  # logits, log-probabilities, their gradient
TAUGHT_COPIES = 2  # a teacher's logits and log-probabilities beside them
LAYER_WORK = {"low": 0.5, "expected": 1.0, "high": 2.0}  # gradients of one layer's activations, beside them
LENGTHS = {"low": 0.5, "expected": 0.75, "high": 1.0}  # mean length of rollouts to the longest allowed
WORST = Literal["low", "expected", "high"]
# Context, kernels, communication buffers. CPU: oneDNN keeps 128 kernels of 0.6 MB (`models.products`).
RUNTIME_GIB = {"cpu": (0.0, 0.0, 0.1), "oneDNN": (0.0, 0.07, 0.2), "cuda": (0.8, 1.5, 3.0)}
SLACK = {"cpu": (0.0, 0.0, 0.1), "cuda": (0.0, 0.05, 0.15)}  # of what comes and goes: the allocator's waste
ALONE = ("o_proj", "down_proj")  # layers that are not laid beside others
LEVELS: tuple[WORST, ...] = ("low", "expected", "high")


def memory_of(shape: ModelShape, layout: Layout) -> dict[str, Range]:
    """Bytes of each part on one process, at the moment when most is needed; `total_of` adds them up.

    Parts: weights, masters, optimizer, gradients, adapter, draft (a head of several tokens, with all that
    trains it), gathered (of shards), activations, head, teachers, judge, sampler (copies that stay), rollouts
    (beyond what training uses), runtime.
    """
    width = BYTES[layout.precision]
    own = sum(local_elements(tensors, layout) for tensors in tensors_of(shape))
    drafting = sum(local_elements(tensors, layout) for tensors in draft_tensors(shape))
    parts = {name: exactly(amount) for name, amount in _static(shape, layout, own).items()}
    parts |= _moving(shape, layout)
    parts["sampler"] = exactly(sampler_copies(shape, layout) * width)
    parts["draft"] = exactly(draft_memory(shape, layout))
    parts["judge"] = exactly(layout.beside)
    parts["rollouts"] = _rollouts(shape, layout, parts)
    teachers = exactly(layout.adapter_teachers * FP32 * _adapter(shape, layout))
    parts["teachers"] = teachers + _whole_teachers(shape, layout, own + drafting, parts)
    moving = parts["gathered"] + parts["activations"] + parts["head"]
    gib = 2.0**30
    here = "oneDNN" if layout.device == "cpu" and _by_trunk(shape, layout) else layout.device
    runtime = Range(*(one * gib for one in RUNTIME_GIB[here]))
    parts["runtime"] = runtime + moving.scaled(SLACK[layout.device])
    return {name: amount for name, amount in parts.items() if amount.high > 0}


def total_of(parts: Mapping[str, Range]) -> Range:
    return sum(parts.values(), exactly(0.0))


def local_elements(tensors: tuple[Tensors, bool], layout: Layout) -> int:
    """Elements of some tensors on the first process: FSDP2 cuts the first dimension, the last part is short.

    tensors: with whether they are stacked experts, of which each expert group holds its own.
    """
    shapes, stacked = tensors
    if not stacked or layout.experts == 1:
        return sum(ceil(shape[0] / layout.shard) * prod(shape[1:]) for shape in shapes)
    rest = layout.shard // layout.experts
    return sum(ceil(ceil(shape[0] / layout.experts) / rest) * prod(shape[1:]) for shape in shapes)


def tensors_of(shape: ModelShape) -> Iterable[tuple[Tensors, bool]]:
    yield shape.root, False
    yield from _blocks(shape.layers)


def draft_tensors(shape: ModelShape) -> Iterable[tuple[Tensors, bool]]:
    yield from _blocks(shape.draft)


def _blocks(layers: Iterable[LayerShape]) -> Iterable[tuple[Tensors, bool]]:
    for layer in layers:
        yield layer.weights, False
        yield layer.experts, True


def _adapter(shape: ModelShape, layout: Layout) -> int:
    return shape.adapter_size(*layout.adapter) if layout.adapter is not None else 0


def _static(shape: ModelShape, layout: Layout, own: int) -> dict[str, float]:
    """What stays all the time: of all weights, or of an adapter beside frozen ones."""
    width, spread = BYTES[layout.precision], layout.shard > 1
    if layout.adapter is not None:
        trained = _adapter(shape, layout)  # every process holds adapters whole
        return {
            "weights": own * width,
            "adapter": trained * FP32,
            "optimizer": trained * FP32 * MOMENTS,
            "gradients": trained * FP32,
        }
    masters = own * FP32 if spread or width < FP32 else 0
    return {
        "weights": 0 if spread else own * width,  # on shards the masters are the weights
        "masters": masters,
        "optimizer": own * FP32 * MOMENTS,
        "gradients": own * FP32,
    }


def draft_memory(shape: ModelShape, layout: Layout) -> float:
    """Bytes of the draft head: frozen, or with what trains it and what its tokens keep."""
    own = sum(local_elements(tensors, layout) for tensors in draft_tensors(shape))
    width, spread = BYTES[layout.precision], layout.shard > 1
    whole = layout.adapter is None  # else the head is frozen, and so is what it hangs on
    held = own * (FP32 if spread and whole else width)
    if not (layout.drafts and own and whole):
        return held
    held += own * FP32 * (1 + MOMENTS + (1 if width < FP32 and not spread else 0))
    of_a_step = sum(layer.kept for layer in shape.draft) / shape.draft_steps
    return held + layout.drafts * of_a_step * width * layout.tokens


def _gathered(shape: ModelShape, layout: Layout) -> tuple[float, Range]:
    """Of a sharded model: the root's weights, whole as long as a forward and its backward run; and layers.

    Those are whole for a moment (this one and the next); of trained ones the whole gradient, too.
    """
    if layout.shard == 1:
        return 0.0, exactly(0.0)
    width = BYTES[layout.precision]
    largest = max(_gathered_layer(layer, layout) for layer in shape.layers)
    root = 2 if shape.family == "nemotron_h" and not shape.tied else 1  # its embedding is in the same group
    trained = 0 if layout.adapter is not None else 1
    layers = Range(*((n + trained * g) * largest * width for n, g in ((1, 0), (2, 1), (2, 2))))
    return root * shape.vocabulary * shape.hidden * width, layers


def _gathered_layer(layer: LayerShape, layout: Layout) -> float:
    return sum(prod(s) for s in layer.weights) + sum(prod(s) for s in layer.experts) / layout.experts


def _moving(shape: ModelShape, layout: Layout) -> dict[str, Range]:
    """What comes and goes with a micro-batch: what it keeps, and the larger of two moments of its backward.

    Its begin has the head's chunk and gradient, each layer's turn the layer gathered, computed again, and its
    gradients.
    """
    width = BYTES[layout.precision]
    trunk = _by_trunk(shape, layout)
    kept = [_kept(layer, layout, trunk=trunk) for layer in shape.layers]
    extra = [_adapter_kept(layer, layout, trunk=trunk) for layer in shape.layers]
    per_token = [(own * width + more) * layout.tokens for own, more in zip(kept, extra, strict=True)]
    heaviest, inputs = max(per_token), shape.hidden * width * layout.tokens
    held = 4.0 * inputs  # embedding, final norm, states that predict
    if layout.activations == "keep":
        held += sum(per_token)
        held += sum(layer.copied for layer in shape.layers) * width if trunk else 0
    else:
        held += inputs * len(shape.layers) if layout.activations == "recompute" else 2 * inputs
    again = 0.0 if layout.activations == "keep" else heaviest
    root, layers = _gathered(shape, layout)
    head = _head(shape, layout)
    work = Range(*(again + LAYER_WORK[level] * heaviest for level in LEVELS))
    beyond = Range(*(max(0.0, a + b - head) for a, b in _pairs(layers, work)))
    whole = Range(*(min(a, b) for a, b in _pairs(layers, beyond)))
    rest = Range(*(a - b for a, b in _pairs(beyond, whole)))
    return {
        "gathered": exactly(root) + whole,
        "activations": exactly(held) + rest,
        "head": exactly(head),
    }


def _pairs(one: Range, other: Range) -> list[tuple[float, float]]:
    return [(one.low, other.low), (one.expected, other.expected), (one.high, other.high)]


def _kept(layer: LayerShape, layout: Layout, *, trunk: bool) -> int:
    """Elements per token. Kascade's forward keeps the same whether weights are frozen or not."""
    if trunk:
        return layer.kept_by_trunk
    return layer.kept - (layer.spared if layout.adapter is not None else 0)


def _by_trunk(shape: ModelShape, layout: Layout) -> bool:
    """Whether Kascade's own forward computes: on whole models, of hybrids where no Mamba kernel is faster."""
    whole = layout.shard == 1 and layout.activations == "keep"
    return layout.trunk and whole and (shape.family == "qwen3" or layout.device == "cpu")


def _adapter_kept(layer: LayerShape, layout: Layout, *, trunk: bool) -> float:
    """Bytes per token: the inner states of an adapter and, beside a model in bf16, inputs in float32.

    With an adapter on the last product of a gated MLP, Kascade's forward keeps what it otherwise makes again.
    """
    if layout.adapter is None:
        return 0.0
    rank, targets = layout.adapter
    found = {name: size for name, size in layer.linear.items() if targets is None or name in targets}
    copied = layout.precision != "fp32" and not trunk  # peft's own layers do so
    inputs = sum(into for _, into in found.values()) if copied else 0
    gated = 2 * layer.linear["gate_proj"][0] if trunk and "gate_proj" in layer.linear else 0
    again = gated * BYTES[layout.precision] if "down_proj" in found else 0
    return FP32 * (rank * len(found) + inputs) + again


def _head(shape: ModelShape, layout: Layout) -> float:
    """One chunk of logits in float32, and the gradient of the output layer as it is made and added."""
    rows = min(layout.tokens, HEAD_ROWS, max(1, HEAD_ELEMENTS // shape.vocabulary))
    copies = LOGIT_COPIES + (TAUGHT_COPIES if layout.full_vocabulary else 0)
    logits = copies * rows * shape.vocabulary * FP32
    if layout.adapter is not None:
        return logits
    return logits + 2 * shape.vocabulary * shape.hidden * BYTES[layout.precision]


def sampler_copies(shape: ModelShape, layout: Layout) -> float:
    """Weights that a sampler in this process keeps: vLLM all of them, the native one those that it lays side
    by side."""
    if layout.engine_devices:
        return shape.size / layout.engine_devices
    if layout.samples is None or layout.shard > 1 or not layout.samples[0]:
        return 0
    merged = 0
    if layout.adapter is not None:
        targets = layout.adapter[1]
        merged = sum(
            prod(size)
            for layer in shape.layers
            for name, size in layer.linear.items()
            if (targets is None or name in targets) and (name in ALONE or not layer.copied)
        )
    return merged + sum(layer.copied for layer in shape.layers)


def _whole_teachers(shape: ModelShape, layout: Layout, own: int, parts: Mapping[str, Range]) -> Range:
    """Frozen models of their own. Of those that rest: their heads, and one that scores while nothing trains.

    Of shards that rest, a layer at a time comes, as is gathered in training anyway. Whole distributions take
    a whole head of each on every process.
    """
    width, count = BYTES[layout.precision], layout.whole_teachers
    head = shape.vocabulary * shape.hidden * width
    if layout.shard > 1:
        heads = count * head if layout.full_vocabulary else 0
        return exactly(heads + (0 if layout.teachers_rest else count * own * width))
    if not (layout.teachers_rest and count):
        return exactly(count * own * width)
    scoring, free = exactly(own * width - head), parts["activations"] + parts["gradients"]
    if not layout.engine_devices:
        free = free + parts["rollouts"]  # caches are gone when a teacher scores
    return Range(*(count * head + max(0.0, mine - theirs) for mine, theirs in _pairs(scoring, free)))


def cached_rows(shape: ModelShape, layout: Layout) -> Range:
    """What is kept of the rows that are sampled at once, on one device. vLLM takes its share at once."""
    rows, longest = layout.samples or (0, 0)
    tokens = sum(layer.cached for layer in shape.layers) * BYTES[layout.precision] * rows * longest
    states = sum(layer.state for layer in shape.layers) * FP32 * rows
    cut = layout.engine_devices or 1
    share = layout.engine_bytes - sampler_copies(shape, layout) * BYTES[layout.precision]
    return Range(*(max(share, (tokens * LENGTHS[level] + states) / cut) for level in LEVELS))


def _rollouts(shape: ModelShape, layout: Layout, parts: Mapping[str, Range]) -> Range:
    """Caches of rows that are sampled. vLLM's stay; the native sampler's go before training needs room."""
    needed = cached_rows(shape, layout)
    if layout.engine_devices:
        return needed
    free = parts["activations"] + parts["head"] + parts["gradients"] + parts["gathered"]
    return Range(*(max(0.0, mine - theirs) for mine, theirs in _pairs(needed, free)))
