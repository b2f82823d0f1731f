"""Whether a run that is started again and again has a reason to train, and which.

What the last run that ended was made of is a tag of the registered model. A run that failed leaves none, so
the next one trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kascade.errors import redact
from kascade.guard.approval import read_waiting
from kascade.guard.end_check import read_end_verdict
from kascade.guard.lineage import own_outcomes
from kascade.recipe.identity import data_digest, model_identity, short_hash
from kascade.recipe.schema import Recipe
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder
from kascade.storage.uris import open_store
from kascade.tracking.mlflow_server import is_own, tracking_uri
from kascade.tracking.promote import registered
from kascade.version import __version__

FIRST = "No earlier run of this name has ended, as far as {where} knows."
ASKED = "retrain.when says so."
UNREADABLE = "What the last run was made of cannot be read: another version of Kascade wrote it."
SAME = "Nothing changed since the last run that ended"
LONGEST_ROWS = 3000  # characters; the tag that holds them takes 5,000
PARTS = ("seed", "adapter", "benchmarks", "guard", "judge")  # what a run's result depends on, beside stages


class Inputs(BaseModel):
    """Hashes of what a run is made of. recipe: by part, stages by `stages.NAME`. rows: by place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    model: str
    recipe: dict[str, str]
    rows: dict[str, str]


class LastRun(BaseModel):
    """The last run that ended: when (ISO 8601), and what it was made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: str
    inputs: Inputs


class Reason(BaseModel):
    """Whether a run trains, and why. since: when the last run ended, ISO 8601; None: there was none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: bool
    reasons: tuple[str, ...]
    inputs: Inputs
    since: str | None = None


def inputs_of(recipe: Recipe) -> Inputs:
    """What a run of this recipe is made of, as it lies there now."""
    dumped = recipe.model_dump(mode="json")
    stages = {f"stages.{one['name']}": _without_rows(one) for one in dumped["stages"]}
    parts = {name: _without_rows(dumped[name]) for name in PARTS}
    return Inputs(
        code=__version__,
        model=short_hash([model_identity(recipe.model.source), dumped["model"]]),
        recipe={name: short_hash(value) for name, value in {**parts, **stages}.items()},
        rows=_fitting(dict(_rows(recipe))),
    )


def _without_rows(value: Any) -> Any:
    """A part of a recipe without the addresses of its rows: their contents count."""
    if isinstance(value, dict):
        return {key: _without_rows(item) for key, item in value.items() if key != "path"}
    return [_without_rows(item) for item in value] if isinstance(value, list) else value


def _rows(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Place and digest of every file or folder of rows."""
    owners = [(stage.name, [mix.source for mix in stage.data]) for stage in recipe.stages]
    owners += [(benchmark.name, [benchmark.source]) for benchmark in recipe.benchmarks]
    for owner, sources in owners:
        paths = [path for one in sources for path in (one.path, one.join.path if one.join else None)]
        for number, path in enumerate(paths):
            if path is not None:
                yield f"{owner} {number}: {Path(path).name}", short_hash(_rows_digest(path))


def _fitting(rows: dict[str, str]) -> dict[str, str]:
    """Digests by place, or by stage and benchmark where so many places would not fit into MLflow's tag."""
    if sum(len(place) + len(digest) for place, digest in rows.items()) <= LONGEST_ROWS:
        return rows
    owners: dict[str, dict[str, str]] = {}
    for place, digest in rows.items():
        owners.setdefault(place.partition(" ")[0], {})[place] = digest
    return {owner: short_hash(own) for owner, own in owners.items()}


def _rows_digest(path: str) -> Any:
    """Of rows in a bucket: names, sizes and times. What lies elsewhere stands for itself by its address."""
    if not path.startswith("s3://"):
        return data_digest(path)
    folder, _, name = path.rstrip("/").rpartition("/")
    entries = open_store(folder).entries(name)
    return sorted([one.name, one.size, one.modified.isoformat()] for one in entries)


def consider(run: Path, recipe: Recipe) -> Reason:
    """Decide whether a run trains, and write it into its folder.

    Raises TrackingError when MLflow cannot be reached: then nobody knows what the last run was made of.
    """
    now, uri, layout = inputs_of(recipe), tracking_uri(run, recipe), RunFolder(run)
    with registered(run, recipe) as model:
        last, champion = model.last_run(), model.champion()
    fallen = champion.fell if champion else ()
    if recipe.retrain is not None and recipe.retrain.when == "always":
        found = Reason(train=True, reasons=(ASKED,), inputs=now)
    elif last is None:
        where = "this folder's own MLflow file" if is_own(layout, uri) else f"MLflow at {redact(uri)}"
        found = Reason(train=True, reasons=(FIRST.format(where=where),), inputs=now)
    elif (before := _last_run(last)) is None:
        found = Reason(train=True, reasons=(UNREADABLE,), inputs=now)
    else:
        changed = (*changes(before.inputs, now), *fallen)
        same = f"{SAME} ({before.since[:16].replace('T', ' ')} UTC)."
        found = Reason(train=bool(changed), reasons=changed or (same,), inputs=now, since=before.since)
    write_record(layout.retrain, found.model_dump_json(indent=1))
    return found


def _last_run(text: str) -> LastRun | None:
    """The last run by its tag; None where this version cannot read it."""
    try:
        return LastRun.model_validate_json(text)
    except ValidationError:
        return None


def changes(before: Inputs, now: Inputs) -> Iterator[str]:
    """What is another than it was, a sentence each."""
    if before.code != now.code:
        yield f"Kascade changed from {before.code} to {now.code}."
    if before.model != now.model:
        yield "The model changed."
    if parts := _differing(before.recipe, now.recipe):
        yield f"The recipe changed: {', '.join(parts)}."
    if rows := _differing(before.rows, now.rows):
        yield f"Rows changed: {', '.join(rows)}."


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]


def remember(run: Path, recipe: Recipe) -> None:
    """Note what a run that ended was made of, for the next one to compare with. Idempotent.

    One that the guard stopped has ended, too: the same inputs would stop again. Raises TrackingError when
    MLflow cannot be reached.
    """
    layout = RunFolder(run)
    found = read_reason(layout)
    if found is None or not found.train or not _has_ended(layout, recipe):
        return
    since = datetime.now(UTC).isoformat(timespec="seconds")
    with registered(run, recipe) as model:
        last = _last_run(model.last_run() or "")
        if last is None or last.inputs != found.inputs:
            model.remember_run(LastRun(since=since, inputs=found.inputs).model_dump_json())
        model.answer_fall()


def _has_ended(layout: RunFolder, recipe: Recipe) -> bool:
    """Whether every stage was settled and the end check made, or the guard stopped the run."""
    if read_waiting(layout) is not None:
        return False
    outcomes = own_outcomes(layout, recipe)
    if any(one.decision == "stopped" for one in outcomes.values()):
        return True
    line = [stage.name for stage in recipe.stages if not stage.side_branch]
    last = outcomes.get(line[-1])
    all_settled = all(stage.name in outcomes for stage in recipe.stages)
    accepted = last.accepted if last else None
    return all_settled and accepted is not None and read_end_verdict(layout, accepted) is not None


def note_examined(layout: RunFolder, fallen: Sequence[str]) -> None:
    """Add to the reason what the champion did when it was looked at again."""
    found = read_reason(layout)
    if found is not None:
        then = (
            (*fallen, "The next run trains.")
            if fallen
            else ("The champion was looked at, and did not fall.",)
        )
        reasons = tuple(dict.fromkeys((*found.reasons, *then)))
        write_record(layout.retrain, found.model_copy(update={"reasons": reasons}).model_dump_json(indent=1))


def why(found: Reason) -> str:
    """What a person reads of it, as one sentence and the reasons."""
    said = "The run trains." if found.train else "Nothing was trained."
    return f"{said} {' '.join(found.reasons)}"


def read_reason(layout: RunFolder) -> Reason | None:
    """Why the run trains, or not; None where nobody asked. Raises UserError for a broken file."""
    return layout.load(layout.retrain, _parse)


def _parse(path: Path) -> Reason:
    return Reason.model_validate_json(path.read_text(encoding="utf-8"))
