"""What can be found wrong before anything starts, without loading weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.recipe.load import LoadedRecipe
from kascade.recipe.schema import DataSource, RLStage

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


def _sources(loaded: LoadedRecipe) -> Iterator[tuple[DataSource, str, bool]]:
    """(data source, place, whether its answers are graded) of all tasks, each once."""
    parts: list[tuple[tuple[str | int, ...], DataSource, bool]] = [
        (("stages", i, "data", j, "source"), mix.source, isinstance(stage, RLStage))
        for i, stage in enumerate(loaded.recipe.stages)
        for j, mix in enumerate(stage.data)
    ]
    for i, exam in enumerate(loaded.recipe.benchmarks):
        parts.append((("benchmarks", i, "source"), exam.source, True))
    seen: list[DataSource] = []
    for path, source, graded in parts:
        if source not in seen:
            seen.append(source)
            field = () if source.path is None else ("path",)
            yield source, loaded.place(*path, *field), graded


def _data_faults(loaded: LoadedRecipe) -> list[Fault]:
    from kascade.data.files import local_path
    from kascade.environments import get_environment
    from kascade.environments.loading import load_tasks

    faults: list[Fault] = []
    for source, place, graded in _sources(loaded):
        if source.path is None and not source.options:
            continue
        path = str(source.path)
        try:
            environment = get_environment(source.environment).with_options(source.options)
            if (
                graded
                and environment.needs_judge(rows=source.path is not None)
                and loaded.recipe.judge is None
            ):
                what = f"{source.environment} asks a judge, and the recipe names none"
                faults.append(Fault(place, what, remedy="add `judge: {url: ..., model: ...}` to the recipe"))
            if source.path is None:
                continue
            local = local_path(path)
            if local is None:  # fetching it is the run's business
                continue
            if not local.exists():
                remedy = f"put rows there, or name others: data: {{{source.environment}: PATH}}"
                allowed = "a file or folder of rows, hf://OWNER/NAME, s3://BUCKET/KEY"
                faults.append(Fault(place, f"{path} does not exist", allowed, remedy))
                continue
            load_tasks(environment, source)
        except ValueError as error:  # an option
            faults.append(Fault(place, str(error), remedy="see docs/environments.md and docs/graders.md"))
        except UserError as error:
            faults += error.faults[:FAULTS_PER_FILE]
            if len(error.faults) > FAULTS_PER_FILE:
                what = f"faulty rows beyond these: {len(error.faults) - FAULTS_PER_FILE}"
                faults.append(Fault(path, what, remedy="all of them: kascade data check"))
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
