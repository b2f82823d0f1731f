"""What can be found wrong before anything starts, without loading weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.recipe.load import LoadedRecipe
from kascade.recipe.schema import DataSource

FAULTS_PER_FILE = 5  # more of them rarely tell more


def preflight_faults(loaded: LoadedRecipe, out: Path | None = None) -> list[Fault]:
    """Faults of the model's folder, of the data files and their rows, and of the output folder."""
    faults = [*_model_faults(loaded), *_data_faults(loaded)]
    return faults + (output_faults(out) if out is not None else [])


def _model_faults(loaded: LoadedRecipe) -> list[Fault]:
    from kascade.models.fit import fit_faults
    from kascade.models.load import BUILTIN_SCHEME, check_model_folder, resolve_source

    source = loaded.recipe.model.source
    if Path(source).is_dir():
        return check_model_folder(Path(source)) or fit_faults(Path(source), loaded.recipe)
    is_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~", BUILTIN_SCHEME))
    if is_hub_id:  # fetching it is the run's business
        return []
    try:
        folder = resolve_source(source)
        return check_model_folder(folder) or fit_faults(folder, loaded.recipe)
    except UserError as error:
        where = loaded.place("model", "source")
        return [Fault(where, fault.what, fault.allowed, fault.remedy) for fault in error.faults]


def _sources(loaded: LoadedRecipe) -> Iterator[tuple[str, str, str]]:
    """(environment, path, place) of each data file, once."""
    seen: set[tuple[str, str]] = set()
    parts: list[tuple[tuple[str | int, ...], DataSource]] = [
        (("stages", i, "data", j, "source", "path"), mix.source)
        for i, stage in enumerate(loaded.recipe.stages)
        for j, mix in enumerate(stage.data)
    ]
    for i, exam in enumerate(loaded.recipe.benchmarks):
        parts.append((("benchmarks", i, "source", "path"), exam.source))
    for path, source in parts:
        if source.path is not None and (source.environment, source.path) not in seen:
            seen.add((source.environment, source.path))
            yield source.environment, source.path, loaded.place(*path)


def _data_faults(loaded: LoadedRecipe) -> list[Fault]:
    from kascade.data.rows import tasks_from_rows
    from kascade.environments import get_environment

    faults: list[Fault] = []
    for environment, path, place in _sources(loaded):
        if not Path(path).is_file():
            remedy = f"put rows there, or name another file: data: {{{environment}: PATH}}"
            faults.append(Fault(place, f"{path} does not exist", "a JSONL file of NeMo-Gym rows", remedy))
            continue
        try:
            tasks_from_rows(get_environment(environment), Path(path))
        except UserError as error:
            faults += error.faults[:FAULTS_PER_FILE]
            if len(error.faults) > FAULTS_PER_FILE:
                faults.append(Fault(path, f"{len(error.faults) - FAULTS_PER_FILE} more faulty rows"))
    return faults


def output_faults(out: Path) -> list[Fault]:
    """Why a run cannot be written to `out`; empty when it can."""
    from kascade.storage.layout import RunLayout

    if out.exists() and not out.is_dir():
        return [Fault(str(out), "is a file, not a folder", remedy="name another folder with --out")]
    if out.is_dir() and any(out.iterdir()) and not RunLayout(out).resolved_recipe.is_file():
        what = "holds files that are not a Kascade run; nothing was touched"
        return [Fault(str(out), what, "a new or empty folder, or that of a run", "name another with --out")]
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return [Fault(str(out), f"cannot be written: {nearest}", remedy="name another folder with --out")]
    return []
