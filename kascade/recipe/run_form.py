"""The run form: the few parameters that a compiled pipeline asks for, as text, and the recipe they make.

A pipeline's shape is compiled: which stages, from which parents, how many recoveries, on which pods. What the
form says may change everything else; what would change the shape is refused with the way to compile it.
An empty field of the form has not been filled in.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kascade.errors import CheckpointError, Fault, StorageError, UserError
from kascade.recipe.checks import nearest
from kascade.recipe.form_text import FORM, json_object, pairs, parts, positive
from kascade.recipe.identity import canonical_json, differences
from kascade.recipe.load import LoadedRecipe, preset_names, read_recipe_text
from kascade.recipe.load import read_recipe as read_recipe_file
from kascade.recipe.order import parent_of, starts_elsewhere, teachers_of
from kascade.recipe.schema import Recipe
from kascade.storage.address import SCHEMES, is_remote, parse_uri
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.uris import open_uri

# What the form shows beside each field. Order: the one in which people fill them in.
FIELDS: Mapping[str, str] = {
    "recipe": "Preset's name, or the path or URI of a recipe file; empty: the recipe this was compiled from.",
    "model": "Model to start from: builtin://NAME, a folder on the volume, or a hub id; empty: the recipe's.",
    "data": "Folder of ENVIRONMENT.jsonl files, or math=/kascade/rows/math.jsonl; ... for some environments; "
    "empty: the recipe's.",
    "scale": "One of the recipe's scales; empty: none.",
    "budget": "CPU hours, or accelerator_hours=100; money=5000: what exceeds it waits; empty: the recipe's.",
    "overrides": "Changes, such as if_rl.steps=20; guard.min_drop=0.05, or the same as JSON; empty: none.",
    "start_from": "Checkpoint of an earlier run to start from in place of the model: URI@sha256:DIGEST.",
    "approve": "Names of what a person approves, such as if_rl; promotion. With `reject` before a name: no.",
    "run": "Folder of this run; {id} is the Kubeflow run's id. An earlier run's folder is continued.",
}


@dataclass(frozen=True, slots=True)
class RunForm:
    """The form as it was filled in. stages: "name=true other=false", which stages to train."""

    recipe: str = ""
    model: str = ""
    data: str = ""
    scale: str = ""
    budget: str = ""
    overrides: str = ""
    start_from: str = ""
    stages: str = ""
    approve: str = ""


def pack(recipe: Recipe, scales: Mapping[str, Any] | None = None) -> str:
    """A recipe as text to travel inside its compiled pipeline: completed, with its scales.

    Compressed, because Kubeflow keeps some ten copies of it in one object of 1 MiB, and in an alphabet in
    which neither Argo nor Kubernetes finds anything to fill in.
    """
    text = canonical_json(recipe.model_dump(mode="json") | ({"scales": dict(scales)} if scales else {}))
    return base64.b64encode(zlib.compress(text.encode(), level=9)).decode("ascii")


def packed_text(packed: str) -> str:
    """The recipe that `pack` wrote, as JSON."""
    return zlib.decompress(base64.b64decode(packed)).decode()


def unpack(packed: str) -> Recipe:
    """The recipe that `pack` wrote."""
    fields = json.loads(packed_text(packed))
    return Recipe.model_validate({key: value for key, value in fields.items() if key != "scales"})


def resolve_form(packed: str, form: RunForm) -> Recipe:
    """The recipe that the form asks for. Raises UserError with everything that is wrong with it.

    packed: the compiled pipeline's own recipe, from `pack`.
    """
    compiled = unpack(packed)
    faults: list[Fault] = []
    switches = _switches(form.stages, compiled, faults)
    overrides = _changes(form.overrides, [name for name, on in switches.items() if not on], faults)
    dials = _dials(form, faults)
    if not any(switches.values()):
        raise UserError(faults)
    try:
        wanted = _load(packed, form.recipe, overrides, dials).recipe
    except UserError as error:
        raise UserError([*faults, *error.faults]) from None
    faults += _shape_faults(compiled, wanted, switches, form)
    if faults:
        raise UserError(faults)
    return wanted


def _changes(text: str, off: list[str], faults: list[Fault]) -> dict[str, Any] | list[str]:
    """Changes of the recipe, from JSON or from settings `field=value` between semicolons or lines.

    off: stages to take out, too.
    """
    if text.lstrip().startswith("{"):
        return json_object("overrides", text, faults) | dict.fromkeys(off)
    settings = parts(text)
    allowed = "if_rl.steps=20; guard.min_drop=0.05, or a JSON object"
    wrong = [setting for setting in settings if "=" not in setting]
    faults += [Fault(f"{FORM} overrides", f"{setting!r} is no change", allowed) for setting in wrong]
    return [*(setting for setting in settings if "=" in setting), *(f"{stage}=null" for stage in off)]


def _load(
    packed: str, source: str, overrides: dict[str, Any] | list[str], dials: Mapping[str, Any]
) -> LoadedRecipe:
    if not source:
        origin = "the compiled recipe"
        return read_recipe_text(packed_text(packed), origin, Path("/"), overrides, dials, given=FORM)
    if "://" not in source:
        return read_recipe_file(source, overrides, dials)
    try:
        with open_uri(source) as file:
            text = file.read().decode("utf-8")
    except (StorageError, OSError, UnicodeDecodeError) as error:
        allowed = f"{SCHEMES}; or one of {', '.join(preset_names())}"
        raise UserError(Fault(f"{FORM} recipe", f"cannot be read: {error}", allowed)) from error
    address = parse_uri(source)
    folder = address.parent if isinstance(address, Path) else Path("/")
    return read_recipe_text(text, source, folder, overrides, dials, given=FORM)


def _dials(form: RunForm, faults: list[Fault]) -> dict[str, Any]:
    dials: dict[str, Any] = {"scale": form.scale.strip() or None}
    dials["budget"] = _budget(form.budget, faults)
    dials["model"] = _model(form, faults)
    dials["data"] = _data(form.data.strip(), faults) or None
    return dials


def _data(text: str, faults: list[Fault]) -> str | dict[str, Any]:
    """A folder, or rows by environment: from JSON, or from `environment=path` between semicolons or lines."""
    if text.startswith("{"):
        return json_object("data", text, faults)
    if "=" not in text:
        return _absolute("data", text, faults)
    paths = pairs("data", text, "math=/kascade/rows/math.jsonl; mcqa=...", faults)
    return {name: _absolute("data", path, faults) for name, path in paths.items()}


def _model(form: RunForm, faults: list[Fault]) -> str | None:
    model, start = form.model.strip(), form.start_from.strip()
    if model and start:
        what = "both a model and a checkpoint to start from are given"
        faults.append(Fault(f"{FORM} start_from", what, remedy="empty one of the two"))
    if not start:
        return model or None
    try:
        ref = CheckpointRef.parse(start)
    except CheckpointError as error:
        remedy = "copy it from the report, or from the output of the earlier run's last step"
        faults.append(Fault(f"{FORM} start_from", str(error), "URI@sha256:DIGEST", remedy))
        return None
    return ref.uri if is_remote(ref.uri) else str(ref.path)


def _absolute(field: str, path: str, faults: list[Fault]) -> str:
    if path and not path.startswith("/") and "://" not in path:
        what = f"{path!r} is a relative path, and pipeline steps do not run in your working folder"
        faults.append(Fault(f"{FORM} {field}", what, remedy=f"give the whole path, such as /kascade/{path}"))
    return path


def _budget(text: str, faults: list[Fault]) -> float | dict[str, float] | None:
    """A number of CPU hours, or limits `name=number` between semicolons or lines."""
    if "=" not in text:
        return positive("budget", text, faults)
    limits = pairs("budget", text, "accelerator_hours=100; money=5000", faults)
    numbers = {name: positive("budget", number, faults) for name, number in limits.items()}
    return {name: number for name, number in numbers.items() if number is not None} or None


def _switches(text: str, compiled: Recipe, faults: list[Fault]) -> dict[str, bool]:
    """Which stages to train; those not named are."""
    known = [stage.name for stage in compiled.stages]
    switches = dict.fromkeys(known, True)
    for pair in text.split():
        name, _, value = pair.partition("=")
        if name not in known:
            faults.append(
                Fault(f"{FORM} stages", f"there is no stage {name!r}", ", ".join(known), nearest(name, known))
            )
        elif value.lower() not in ("true", "false"):
            faults.append(Fault(f"{FORM} {name}", f"{value!r} will not do", "true, false"))
        else:
            switches[name] = value.lower() == "true"
    if not any(switches.values()):
        faults.append(Fault(f"{FORM} stages", "every stage is switched off", remedy="leave one on"))
    return switches


def shape(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe is compiled into a pipeline's graph, as a JSON value."""
    cluster = recipe.cluster
    return {
        "stages": {
            stage.name: {
                "starts from": parent_of(recipe, stage.name) or "the base model",
                "side branch": stage.side_branch,
                "teachers": sorted(teachers_of(recipe, stage.name)),
                "runs as": cluster.shape_of(stage),
                "pods": cluster.placement(stage.name).model_dump(mode="json"),
            }
            for stage in recipe.stages
        },
        "recovery rounds": recipe.guard.recovery.rounds,
        "cluster": cluster.model_dump(mode="json", exclude={"stages"}),
    }


def _shape_faults(
    compiled: Recipe, wanted: Recipe, switches: Mapping[str, bool], form: RunForm
) -> Iterator[Fault]:
    """Why the compiled pipeline is not the one that `wanted` needs."""
    kept = [stage.name for stage in compiled.stages if switches[stage.name]]
    names = [stage.name for stage in wanted.stages]
    source = form.recipe or "RECIPE"
    scale = f" --scale {form.scale}" if form.scale else ""
    remedy = f"compile it and run that pipeline: kascade compile {source}{scale} --out pipeline.yaml"
    if names != kept:
        missing = [name for name in kept if name not in names]
        if missing and [name for name in kept if name in names] == names:
            for name in missing:
                what = f"{name!r} cannot be taken out here"
                yield Fault(f"{FORM} overrides", what, remedy=f"set the form's switch of {name} to false")
            return
        what = f"this pipeline was compiled for the stages {', '.join(kept)}; asked for: {', '.join(names)}"
        yield Fault(f"{FORM} recipe", what, remedy=remedy)
        return
    for name in switches:
        if not switches[name] and starts_elsewhere(compiled, name):
            what = f"it starts from {parent_of(compiled, name)!r}, and without it the next stage would, too"
            yield Fault(f"{FORM} {name}", what, remedy=remedy)
    before = shape(_without(compiled, kept))
    for difference in differences(before, shape(wanted)):
        yield Fault(f"{FORM}", f"the pipeline is compiled otherwise: {difference}", remedy=remedy)


def _without(recipe: Recipe, kept: list[str]) -> Recipe:
    """The recipe with only the stages `kept`."""
    fields = recipe.model_dump(mode="json")
    fields["stages"] = [stage for stage in fields["stages"] if stage["name"] in kept]
    placements = fields["cluster"]["stages"]
    fields["cluster"]["stages"] = {name: p for name, p in placements.items() if name in kept}
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise UserError(Fault(FORM, f"the stages left make no cascade: {error}")) from error
