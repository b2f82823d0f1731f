"""The run form: the few parameters that a compiled pipeline asks for, as text, and the recipe they make.

A pipeline's shape is compiled: which stages, from which parents, how many recoveries, on which pods. What the
form says may change everything else; what would change the shape is refused with the way to compile it.
An empty field of the form has not been filled in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kascade.errors import CheckpointError, Fault, StorageError, UserError
from kascade.recipe.checks import nearest
from kascade.recipe.identity import canonical_json, differences, parent_of, short_hash, teachers_of
from kascade.recipe.load import LoadedRecipe, preset_names, read_recipe_text
from kascade.recipe.load import read_recipe as read_recipe_file
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.uris import SCHEMES, is_remote, open_uri, parse_uri

FORM = "run form"
AS_COMPILED = "compiled"
# What the form shows beside each field. Order: the one in which people fill them in.
FIELDS: Mapping[str, str] = {
    "recipe": "Preset's name, or the path or URI of a recipe file; empty: the recipe this was compiled from.",
    "model": "Model to start from: builtin://NAME, a folder on the volume, or a hub id; empty: the recipe's.",
    "data": "Folder of ENVIRONMENT.jsonl files, or JSON {environment: path}; empty: the recipe's.",
    "scale": "One of the recipe's scales; empty: none.",
    "budget": "CPU hours after which no further stage is begun; empty: the recipe's.",
    "overrides": 'Changes as JSON, such as {"if_rl": {"steps": 20}, "guard": {"min_drop": 0.05}}.',
    "start_from": "Checkpoint of an earlier run to start from in place of the model: URI@sha256:DIGEST.",
    "run": "Folder of this run; {id} stands for the Kubeflow run's id. An earlier run's folder is continued.",
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


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a form makes of a compiled recipe.

    revision: AS_COMPILED where the form changed nothing, else a hash of the recipe: caches keep them apart.
    """

    recipe: Recipe
    revision: str


def pack(recipe: Recipe, scales: Mapping[str, Any] | None = None) -> str:
    """A recipe as text to travel inside its compiled pipeline: completed, with its scales."""
    return canonical_json(recipe.model_dump(mode="json") | ({"scales": dict(scales)} if scales else {}))


def unpack(packed: str) -> Recipe:
    """The recipe that `pack` wrote."""
    return Recipe.model_validate({key: v for key, v in json.loads(packed).items() if key != "scales"})


def resolve_form(packed: str, form: RunForm) -> Resolved:
    """The recipe that the form asks for. Raises UserError with everything that is wrong with it.

    packed: the compiled pipeline's own recipe, from `pack`.
    """
    compiled = unpack(packed)
    faults: list[Fault] = []
    switches = _switches(form.stages, compiled, faults)
    overrides = _json_object("overrides", form.overrides, faults)
    dials = _dials(form, faults)
    overrides |= {name: None for name, on in switches.items() if not on}
    try:
        wanted = _load(packed, form.recipe, overrides, dials).recipe
    except UserError as error:
        raise UserError([*faults, *error.faults]) from None
    faults += _shape_faults(compiled, wanted, switches, form)
    if faults:
        raise UserError(faults)
    if wanted.model_dump(mode="json") == compiled.model_dump(mode="json"):
        return Resolved(compiled, AS_COMPILED)
    return Resolved(wanted, short_hash(wanted.model_dump(mode="json")))


def _load(packed: str, source: str, overrides: Mapping[str, Any], dials: Mapping[str, Any]) -> LoadedRecipe:
    if not source:
        origin = "the compiled recipe"
        return read_recipe_text(packed, origin, Path("/"), overrides, dials, given=FORM)
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
    dials["budget"] = _positive("budget", form.budget, faults)
    dials["model"] = _model(form, faults)
    if form.data.lstrip().startswith("{"):
        dials["data"] = _json_object("data", form.data, faults) or None
    else:
        dials["data"] = _absolute("data", form.data.strip(), faults) or None
    return dials


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
        what = f"{path!r} is seen from nowhere: a step has no working folder of yours"
        faults.append(Fault(f"{FORM} {field}", what, remedy=f"give the whole path, such as /kascade/{path}"))
    return path


def _positive(field: str, text: str, faults: list[Fault]) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        faults.append(Fault(f"{FORM} {field}", f"{text!r} will not do", "a number > 0, or nothing"))
        return None
    return number


def _json_object(field: str, text: str, faults: list[Fault]) -> dict[str, Any]:
    where = f"{FORM} {field}"
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        what = f"is not JSON: {error.msg} at character {error.pos + 1}"
        faults.append(Fault(where, what, "a JSON object", 'check quotes ("), commas and brackets there'))
        return {}
    if not isinstance(value, dict):
        faults.append(Fault(where, f"is JSON, but no object: {text.strip()[:40]}", '{"name": ...}'))
        return {}
    return value


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
                "runs as": cluster.shape_of(stage.name, stage.kind),
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
