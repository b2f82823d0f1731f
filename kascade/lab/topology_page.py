"""A race of topologies as Markdown and as JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kascade.lab.page import Table, markdown_table
from kascade.lab.topology_results import Difference, TopologyRace, differences
from kascade.storage.files import write_json, write_text

SHOWN = (
    "benchmark",
    "first",
    "other",
    "difference, 95% interval over seeds (one seed: over tasks)",
    "seeds apart",
    "shown",
)
BUDGET = ("recipe", "answers sampled", "tokens of them", "updates", "CPU s of training", "score, by seed")


def write_race(out: Path, race: TopologyRace) -> None:
    """Write results.json and topology.md."""
    write_json(out / "results.json", race.model_dump(mode="json"))
    write_text(out / "topology.md", markdown(race))


def markdown(race: TopologyRace) -> str:
    """What was raced, what it cost, and who ended higher where."""
    first, *others = race.recipes
    settings = race.settings
    lines = [
        f"# {' against '.join(race.recipes)}",
        f"Seeds {', '.join(map(str, settings.seeds))}. A score is the mean reward on {settings.tasks} test "
        f"tasks per benchmark, {settings.samples} sampled answers each. Costs are means over seeds, of the "
        "stages that sample their answers.",
        markdown_table(Table(BUDGET, tuple(_budget(race, name) for name in race.recipes))),
    ]
    for other in others:
        found = differences(race, other)
        rows = tuple(_row(name, one) for name, one in found.items())
        columns = tuple({"first": first, "other": other}.get(name, name) for name in SHOWN)
        lines += [headline(first, other, found["mean"]), markdown_table(Table(columns, rows))]
    return "\n\n".join(lines)


def headline(first: str, other: str, mean: Difference) -> str:
    """Who ended higher over all benchmarks, and whether the seeds show it."""
    low, high = mean.interval
    told = f"{mean.mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    if mean.verdict == "not shown":
        return f"Over all benchmarks neither is shown to end higher: {other} less {first} is {told}."
    ahead = other if mean.verdict == "higher" else first
    return f"Over all benchmarks {ahead} ends higher: {other} less {first} is {told}."


def _budget(race: TopologyRace, recipe: str) -> tuple[str, ...]:
    entries = race.of(recipe)
    return (
        recipe,
        f"{np.mean([one.sampled.answers for one in entries]):,.0f}",
        f"{np.mean([one.sampled.tokens for one in entries]):,.0f}",
        f"{np.mean([one.sampled.updates for one in entries]):,.0f}",
        f"{np.mean([one.sampled.cpu_s for one in entries]):,.0f}",
        ", ".join(f"{one.mean:.3f}" for one in entries),
    )


def _row(name: str, found: Difference) -> tuple[str, ...]:
    low, high = found.interval
    apart = [ends for ends in found.task_intervals if ends[0] > 0 or ends[1] < 0]
    signs = "".join("+" if ends[0] > 0 else "-" for ends in apart)
    return (
        name,
        f"{found.before:.3f}",
        f"{found.after:.3f}",
        f"{found.mean:+.3f} [{low:+.3f}, {high:+.3f}]",
        f"{len(apart)} of {len(found.seeds)}" + (f" ({signs})" if signs else ""),
        found.verdict,
    )
