"""A plan in a few sentences: whether it fits, what it takes, and what is not known."""

from __future__ import annotations

from collections.abc import Iterator

from kascade.recipe.fits import MemoryGroup, MemoryPlan
from kascade.recipe.forecast import NOTHING_SAYS, Forecast
from kascade.recipe.plan import Plan
from kascade.recipe.plan_words import amount, size, some, span_text

ROLES = {
    "train": "trains",
    "sample": "samples",
    "judge": "trains its judge",
    "recover": "recovers",
    "redraw": "samples a recovery",
    "examine": "are answered",
}


def in_short(plan: Plan) -> list[str]:
    """Sentences for somebody who does not read the tables."""
    return [*_memory(plan.memory), *_time(plan.forecast), *_money(plan.forecast), *_storage(plan.forecast)]


def fits_how(group: MemoryGroup, memory: MemoryPlan) -> str:
    """yes, no, or tight: what is expected fits, and the most that may be needed does not."""
    if not group.fits:
        return "no"
    return "yes" if group.total.high <= memory.device_gib else "tight"


def _memory(memory: MemoryPlan | None) -> Iterator[str]:
    if memory is None:
        yield "Memory: not counted, because the recipe names no hardware."
    elif not memory.groups:
        yield f"Memory: not counted, because {memory.not_counted}."
    else:
        fullest = max(memory.groups, key=lambda group: group.total.expected)
        on = f"{memory.devices} x {memory.device}"
        verdict = {
            "yes": f"fits {on}",
            "tight": f"is expected to fit {on}, and may not",
            "no": f"does not fit {on}: `kascade check` names the cheapest changes",
        }
        worst = min(memory.groups, key=lambda group: ("no", "tight", "yes").index(fits_how(group, memory)))
        yield f"Memory: it {verdict[fits_how(worst, memory)]}."
        total = fullest.total
        yield (
            f"The fullest device needs {total.expected:.1f} GiB of {memory.device_gib:.1f} ({total.low:.1f}-"
            f"{total.high:.1f}), where {fullest.stage} {ROLES[fullest.role]} on {fullest.processes}."
        )


def _time(found: Forecast) -> Iterator[str]:
    total = found.total
    if total.wall_hours is None:
        unknown = [f"{row.stage} {row.part}" for row in found.rows if row.basis.startswith(NOTHING_SAYS)]
        if len(unknown) == len(found.rows):
            yield "Time: not known. Name the hardware, or run it once: the next plan rests on that run."
        else:
            yield f"Time: not known in all, because nothing says what {some(unknown)} would take."
        return
    parts = [f"{span_text(total.wall_hours, 'wall_hours')} by the clock"]
    accelerators = total.accelerator_hours
    if accelerators is not None and accelerators.high:
        parts.append(f"{span_text(accelerators, 'accelerator_hours')} of accelerators")
    elif total.cpu_hours is not None:
        parts.append(f"{span_text(total.cpu_hours, 'cpu_hours')} of CPUs")
    counted = all(row.basis.startswith("formula") for row in found.rows)
    how = " By formula: after a first run of yours the plan rests on that." if counted else ""
    yield f"Time: {', '.join(parts)}.{how}"


def _money(found: Forecast) -> Iterator[str]:
    if found.currency is None:
        yield "Money: not counted. Name a price, such as --set prices.accelerator_hour=2.5."
    elif found.total.money is not None:
        worst = found.worst["money"]
        most = f", at worst {amount(worst)}" if worst else ""
        yield f"Money: {span_text(found.total.money, 'money')} {found.currency}{most}."


def _storage(found: Forecast) -> Iterator[str]:
    if found.storage is not None:
        most = max(found.storage.peak_gb, found.storage.worst_gb)
        yield f"Storage: {size(found.storage.kept_gb)} in the end, at most {size(most)}."
