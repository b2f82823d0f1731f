"""Where a model comes from and what is not known about it: for the head of the report and the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kascade.guard.blindness import blindness
from kascade.guard.power import describe, visible_falls
from kascade.recipe.schema import Recipe
from kascade.storage.files import read_json
from kascade.storage.run_folder import RunFolder
from kascade.tracking import wording
from kascade.tracking.summary import RunSummary
from kascade.version import __version__

SHOWN_DIGEST = 19  # characters: "sha256:" and twelve


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a run wrote down about itself. Parts that it did not write down are None or empty.

    data: (path, digest) of every source of rows. limits: what the benchmarks cannot see, in sentences.
    """

    base: str | None
    license: str | None
    data: tuple[tuple[str, str], ...]
    machine: str | None
    began: datetime | None
    ended: datetime | None
    code: tuple[str, ...]
    limits: tuple[str, ...]

    @property
    def hub_id(self) -> str | None:
        """The base model's id on the hub, where its source is one."""
        source = self.base or ""
        is_id = source.count("/") == 1 and not source.startswith((".", "/", "~", "builtin:"))
        return source if is_id else None


def provenance(run: Path, summary: RunSummary) -> Provenance:
    """All that a run's folder says about its origins."""
    folder, recipe = RunFolder.tolerant(run), summary.recipe
    noted = _noted(folder)
    states = folder.states()
    ends = [state["started"] + (state["seconds"] or 0.0) for state in states]
    return Provenance(
        base=recipe.model.source if recipe else None,
        license=noted.get("license"),
        data=tuple(sorted((_shown(path), digest) for path, digest in (noted.get("data") or {}).items())),
        machine=_machine(noted.get("machine")),
        began=_time(min((state["started"] for state in states), default=None)),
        ended=_time(max(ends, default=None)),
        code=tuple(sorted({one.manifest.code_version for one in summary.current})) or (__version__,),
        limits=tuple(_limits(recipe, summary, noted)) if recipe else (),
    )


def head_line(found: Provenance, summary: RunSummary) -> str:
    """When, how long, on what and with which code, in one line."""
    parts = []
    if found.began and found.ended:
        parts.append(f"{found.began:%Y-%m-%d %H:%M} to {found.ended:%Y-%m-%d %H:%M} UTC")
    wall, cpu = (sum(getattr(cost, name) for cost in summary.costs) for name in ("wall_s", "cpu_s"))
    if wall:
        parts.append(f"{wording.duration(wall)} of steps, {wording.duration(cpu)} of CPU time")
    if found.machine:
        parts.append(found.machine)
    parts.append(f"Kascade {', '.join(found.code)}")
    return " · ".join(parts)


def _noted(folder: RunFolder) -> Mapping[str, Any]:
    try:
        found = read_json(folder.preflight)
    except (OSError, ValueError):  # before preflight, or of an older version
        return {}
    return found if isinstance(found, dict) else {}


def _shown(path: str) -> str:
    """Rows as a published card may name them: an address whole, a file of this machine by its name."""
    return path if "://" in path else Path(path).name


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _machine(found: Mapping[str, Any] | None) -> str | None:
    if not found:
        return None
    gpus = f"{', '.join(found['gpus'])}; " if found.get("gpus") else ""
    return f"{gpus}{found['cpu']}, {wording.count(found['cores'], 'core')}, {found['memory_gib']:g} GiB"


def _limits(recipe: Recipe, summary: RunSummary, noted: Mapping[str, Any]) -> Iterator[str]:
    """What the benchmarks of this run cannot see, and what training had seen of them."""
    for name, seen in visible_falls(_as_asked(recipe, summary)).items():
        yield f"{describe(name, seen, recipe.guard)}."
    points = summary.base.points if summary.base else {}
    for name, point in points.items():
        if problem := blindness(point.score):
            yield f"{name}: {problem}."
    for stage, seen_tasks in (noted.get("contamination") or {}).items():
        for name, number in seen_tasks.items():
            tasks = wording.count(number, "task")
            yield f"{name}: {tasks} of this benchmark also occur in the data of stage {stage}."


def _as_asked(recipe: Recipe, summary: RunSummary) -> Recipe:
    """The recipe with as many tasks per benchmark as there really were."""
    points = summary.base.points if summary.base else {}
    real = [
        one.model_copy(update={"tasks": points[one.name].score.num_tasks}) if one.name in points else one
        for one in recipe.benchmarks
    ]
    return recipe.model_copy(update={"benchmarks": tuple(real)})
