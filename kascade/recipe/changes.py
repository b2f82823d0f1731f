"""Changes that make a stage need less memory on each device, cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from kascade.recipe.hardware import DEVICES, GIB, Hardware
from kascade.recipe.memory import Layout

SHOWN = 3
MOST_DOUBLINGS = 4  # of processes or of rows cut in half
ADAPTER_RANK = 32


@dataclass(frozen=True, slots=True)
class Change:
    """text: what to write. layout: the stage with it. memory: of the device. cost: to compare them by."""

    text: str
    layout: Layout
    memory: float
    cost: float


def cheapest(
    layout: Layout, needs: Callable[[Layout], float], hardware: Hardware, *, sampling: bool
) -> list[Change]:
    """At most three changes, or pairs of them, with which `needs(layout)` bytes fit a device."""
    singles = list(_singles(layout, hardware, sampling=sampling))
    pairs = [both for pair in combinations(singles, 2) if (both := _both(layout, *pair)) is not None]
    fitting = [change for change in (*singles, *pairs) if needs(change.layout) <= change.memory]
    chosen: list[Change] = []
    for change in sorted(fitting, key=lambda one: one.cost):
        if not any(_says_more(change, earlier) for earlier in chosen):
            chosen.append(change)
    return chosen[:SHOWN]


def _says_more(change: Change, earlier: Change) -> bool:
    """Whether a change contains one that is enough by itself, or is a stronger form of it."""
    kinds = {part.partition(":")[0] for part in change.text.split(" and ")}
    return {part.partition(":")[0] for part in earlier.text.split(" and ")} <= kinds


def _both(layout: Layout, one: Change, other: Change) -> Change | None:
    """Two changes of different fields as one; None where they touch the same."""
    names = Layout.__dataclass_fields__
    changed = [name for name in names if getattr(other.layout, name) != getattr(layout, name)]
    if any(getattr(one.layout, name) != getattr(layout, name) for name in changed):
        return None
    together = replace(one.layout, **{name: getattr(other.layout, name) for name in changed})
    memory = max(one.memory, other.memory)
    return Change(f"{one.text} and {other.text}", together, memory, one.cost + other.cost)


def _singles(layout: Layout, hardware: Hardware, *, sampling: bool) -> Iterator[Change]:
    if sampling:
        yield from _for_samplers(layout, hardware)
    else:
        yield from _for_trainers(layout, hardware)
    yield from _other_devices(layout, hardware)


def _for_trainers(layout: Layout, hardware: Hardware) -> Iterator[Change]:
    memory = float(hardware.memory_bytes)
    if layout.activations == "keep":
        yield Change("activations: recompute", replace(layout, activations="recompute"), memory, 1.3)
    if layout.activations != "offload":
        yield Change("activations: offload", replace(layout, activations="offload"), memory, 1.6)
    if layout.whole_teachers and not layout.teachers_rest:
        yield Change("frozen_weights: host", replace(layout, teachers_rest=True), memory, 1.4)
    if layout.adapter is None:
        teachers = layout.adapter_teachers + layout.whole_teachers
        adapted = (ADAPTER_RANK, None)
        changed = replace(layout, adapter=adapted, whole_teachers=0, adapter_teachers=teachers)
        yield Change(f"adapter: {{rank: {ADAPTER_RANK}}} for the whole recipe", changed, memory, 2.0)
    for doublings in range(1, MOST_DOUBLINGS + 1):
        shard = layout.shard * 2**doublings
        lacking = shard > hardware.devices
        more = f" (there are {hardware.devices} devices)" if lacking else ""
        changed = replace(layout, shard=shard, samples=None)
        yield Change(f"processes: {shard} that train{more}", changed, memory, 2.5 * doublings + 4 * lacking)
    for halvings in range(1, MOST_DOUBLINGS + 1):
        tokens = max(1, layout.tokens // 2**halvings)
        text = f"rows: of at most {tokens:,} tokens"
        yield Change(text, replace(layout, tokens=tokens), memory, 3.5 + halvings)


def _for_samplers(layout: Layout, hardware: Hardware) -> Iterator[Change]:
    for doublings in range(1, MOST_DOUBLINGS + 1):
        cut = layout.shard * 2**doublings
        text = f"model.rollout: {{engine: vllm, vllm: {{tensor_parallel_size: {cut}}}}}"
        yield Change(text, replace(layout, shard=cut), float(hardware.memory_bytes), 2.0 * doublings)
    if layout.samples is not None and layout.samples[0] > 1:
        rows, longest = layout.samples
        for halvings in range(1, MOST_DOUBLINGS + 1):
            fewer = max(1, rows // 2**halvings)
            changed = replace(layout, samples=(fewer, longest))
            text = f"model.rollout.max_batch_rows: {fewer}"
            yield Change(text, changed, float(hardware.memory_bytes), 0.5 + halvings)


def _other_devices(layout: Layout, hardware: Hardware) -> Iterator[Change]:
    memory = hardware.memory_bytes
    larger = sorted((one.memory_gib, name) for name, one in DEVICES.items() if one.memory_gib * GIB > memory)
    for rank, (gib, name) in enumerate(larger):
        yield Change(f"hardware.device: {name}", layout, gib * GIB, 6.0 + rank)
