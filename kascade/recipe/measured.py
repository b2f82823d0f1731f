"""What work took where it was measured: shipped runs of the built-in models, and own earlier runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kascade.recipe.checks import BASE
from kascade.recipe.run_recipe import find_run_recipe
from kascade.recipe.schema import Recipe
from kascade.recipe.work import END, units_of
from kascade.storage.run_folder import ACCELERATOR, RunFolder

SHIPPED = Path(__file__).parent / "measurements.json"
LIGHT = "other"  # steps without a model: preflight, verdicts, settling, the report


class Took(BaseModel):
    """Seconds of one unit of work, of one try. size: of the work (`Unit.size`). times: how often it was done.

    whole: whether it came to its end: what was interrupted says nothing about a plan.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: float
    kind: str
    times: int
    wall_s: float
    cpu_s: float
    accelerator_s: float = 0.0
    whole: bool = True


class Measurement(BaseModel):
    """One run. recipe: its recipe's name. units: by `Unit.key`, and `other`. date: of its last step.
    processor: in words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    recipe: str
    model: str
    date: str
    processor: str
    units: dict[str, Took]

    @property
    def stages(self) -> int:
        return sum(key.endswith(".train") for key in self.units)


@cache
def shipped() -> tuple[Measurement, ...]:
    """The runs that this version ships as measurements."""
    found = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return tuple(Measurement.model_validate(one) for one in found["runs"])


def measure(folder: RunFolder, recipe: Recipe, name: str) -> Measurement:
    """What the steps of a run took, whole or not. recipe: the one that it was run with."""
    costs = folder.costs()
    ended = {state["step"] for state in folder.states() if state["state"] == "succeeded"}
    known = {unit.key: unit for unit in units_of(recipe)}
    kinds = {stage.name: stage.kind for stage in recipe.stages}
    grouped: dict[str, dict[str, Mapping[str, float]]] = defaultdict(dict)
    for step, cost in costs.items():
        key = unit_key(step)
        grouped[key if key in known else LIGHT][step] = cost
    units = {}
    for key, steps in grouped.items():
        unit = known.get(key)
        units[key] = Took(
            size=unit.size if unit else 0.0,
            kind=kinds.get(key.partition(".")[0], key.partition(".")[0]),
            times=max(1, sum(".recover-" in one and one.count(".") == 1 for one in steps)),
            wall_s=sum(float(cost.get("wall_s", 0.0)) for cost in steps.values()),
            cpu_s=sum(float(cost.get("cpu_s", 0.0)) for cost in steps.values()),
            accelerator_s=sum(float(cost.get(ACCELERATOR, 0.0)) for cost in steps.values()),
            whole=not ended or set(steps) <= ended,
        )
    newest = folder.newest(folder.cost_files())
    date = datetime.fromtimestamp(newest, UTC).date().isoformat()
    return Measurement(
        name=name,
        recipe=recipe.name,
        model=recipe.model.source,
        date=date,
        processor=_processor(folder),
        units=units,
    )


def unit_key(step: str) -> str:
    """The unit that a step belongs to: "rl.recover-1.evaluate" to "rl.recovery"."""
    stage, _, rest = step.partition(".")
    if step == "retain":
        return f"{END}.end check"
    if rest.rpartition(".")[2] in ("begin", "skip", "verdict", "settle") or not rest:
        return LIGHT
    if rest.startswith("recover-"):
        return f"{stage}.recovery"
    if stage == BASE or rest.endswith("evaluate"):
        return f"{stage}.benchmarks"
    return f"{stage}.train"


def _processor(folder: RunFolder) -> str:
    """The machine that preflight wrote down, in words."""
    found = folder.load(folder.preflight, lambda path: json.loads(path.read_text(encoding="utf-8"))) or {}
    machine = found.get("machine") or {}
    gpus = ", ".join(machine.get("gpus") or [])
    cpu = f"{machine.get('cpu', 'an unknown processor')}, {machine.get('cores', '?')} cores"
    return f"{gpus} beside {cpu}" if gpus else cpu


def runs_beside(folder: Path, recipe: Recipe, most: int = 5) -> list[Measurement]:
    """The newest runs of the same model in the folder that holds `folder`, itself left out."""
    beside = [one for one in _run_folders(folder.absolute().parent) if one != folder.absolute()]
    newest = sorted(beside, key=lambda one: -one.stat().st_mtime)
    return list(_of_model(newest, recipe))[:most]


def _run_folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (one for one in place.iterdir() if one.is_dir() and RunFolder(one).has_begun)


def _of_model(folders: Iterable[Path], recipe: Recipe) -> Iterator[Measurement]:
    for path in folders:
        found = measure_folder(path)
        if found is not None and found.model == recipe.model.source and found.units:
            yield found


def measure_folder(path: Path) -> Measurement | None:
    """What a run's folder measured; None for a folder that no present recipe can be read from."""
    folder = RunFolder.tolerant(path)
    recipe = find_run_recipe(folder)
    return measure(folder, recipe, path.name) if recipe is not None else None
