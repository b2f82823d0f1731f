"""What a recipe file may hold, at three levels, and its JSON Schema for editors.

1. dials: `preset` and a few words beside it; 2. `overrides` of single stages, benchmarks and the guard;
3. everything spelt out, as `Recipe` has it, in place of `preset`.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, Literal

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt

from kascade.recipe.budget import Budget
from kascade.recipe.schema import Name, Part, Recipe

Overrides = dict[str, JsonValue]
OVERRIDES_HELP = (
    "stage name: fields to change, or null to leave the stage out; `benchmarks`: the same by benchmark; "
    "`guard`, `judge`, `storage`, `tracking`, `cluster`, `adapter`, `hardware`, `budget`, `prices`, "
    "`approval`, `attest` and `retrain`: fields to change; `notify`: a list in place of all; "
    "`exam_processes`, `save_on_signal`: a number"
)
DATA_HELP = (
    "by environment, rows in place of its tasks: a path, or fields of a source such as {path: ..., columns: "
    "{...}}; or a folder of ENVIRONMENT.jsonl files"
)
Rows = str | dict[str, JsonValue]


class Dials(Part):
    """Level 1 and 2: what the command line and a short file may say on top of a recipe."""

    name: Name | None = Field(None, description="of the run; None: the preset's")
    description: str | None = Field(None, description="what the recipe is for; None: the preset's")
    model: str | dict[str, JsonValue] | None = Field(
        None, description="builtin://NAME, a folder, or a hub id; or fields of `model` to change"
    )
    data: str | dict[str, Rows] | None = Field(None, description=DATA_HELP)
    seed: int | None = Field(None, ge=0, lt=2**32, description="of everything that is drawn at random")
    threads: PositiveInt | None = Field(None, description="CPU threads")
    scale: Name | None = Field(None, description="one of the sizes that the preset declares under `scales`")
    budget: PositiveFloat | Budget | None = Field(
        None, description="CPU hours, or fields of `budget`: a stage that would exceed it waits"
    )
    overrides: Overrides = Field(default_factory=dict, description=OVERRIDES_HELP)


class PresetFile(Dials):
    """A recipe that starts from a preset."""

    kascade: Literal[1] = Field(1, description="version of this format")
    preset: str = Field(description="the recipe to start from: see `kascade init --help`")


class FullDials(Part):
    """What a file that spells everything out may hold beside `Recipe`'s fields."""

    data: str | dict[str, Rows] | None = Field(None, description=DATA_HELP)
    scale: Name | None = Field(None, description="which of `scales` to take; None: none")
    scales: dict[Name, Overrides] = Field(
        default_factory=dict, description="overrides by name of a size, for `scale` to choose from"
    )


@cache
def model_schema(model: type[Part]) -> dict[str, Any]:
    """JSON Schema of a model, for input."""
    return model.model_json_schema(mode="validation")


def _refs_to_partial(node: Any) -> Any:
    """A schema whose mappings may be incomplete. Lists are replaced whole, so their items stay complete."""
    if not isinstance(node, dict):
        return node
    changed = {key: value for key, value in node.items() if key not in ("required", "default")}
    if "$ref" in node:
        changed["$ref"] = f"{node['$ref']}Changes"
    for key in ("anyOf", "oneOf"):
        if key in node:
            changed[key] = [_refs_to_partial(branch) for branch in node[key]]
    if "properties" in node:
        changed["properties"] = {name: _refs_to_partial(part) for name, part in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), dict):
        changed["additionalProperties"] = _refs_to_partial(node["additionalProperties"])
    return changed


def _overrides_schema(definitions: dict[str, Any]) -> dict[str, Any]:
    stage_kinds = [name for name, part in definitions.items() if "kind" in part.get("properties", {})]
    stages = [{"$ref": f"#/$defs/{name}Changes"} for name in stage_kinds if name.endswith("Stage")]
    benchmark = {"anyOf": [{"$ref": "#/$defs/BenchmarkChanges"}, {"type": "null"}]}
    return {
        "type": "object",
        "description": OVERRIDES_HELP,
        "properties": {
            "model": {"anyOf": [{"$ref": "#/$defs/ModelPartChanges"}, {"type": "string"}]},
            "guard": {"$ref": "#/$defs/GuardChanges"},
            "judge": {"$ref": "#/$defs/JudgeModelChanges"},
            "storage": {"$ref": "#/$defs/StorageChanges"},
            "tracking": {"$ref": "#/$defs/TrackingChanges"},
            "cluster": {"$ref": "#/$defs/ClusterChanges"},
            "adapter": {"$ref": "#/$defs/AdapterChanges"},
            "hardware": {"$ref": "#/$defs/HardwareChanges"},
            "attest": {"$ref": "#/$defs/AttestChanges"},
            "retrain": {"$ref": "#/$defs/RetrainChanges"},
            "notify": {"type": "array", "items": {"$ref": "#/$defs/Notify"}},
            "budget": {"anyOf": [{"$ref": "#/$defs/BudgetChanges"}, {"type": "number"}]},
            "prices": {"$ref": "#/$defs/PricesChanges"},
            "approval": {"$ref": "#/$defs/ApprovalChanges"},
            "exam_processes": {"type": "integer"},
            "save_on_signal": {"type": "number"},
            "benchmarks": {
                "anyOf": [
                    {"type": "object", "additionalProperties": benchmark},
                    {"type": "array", "items": {"$ref": "#/$defs/Benchmark"}},
                ]
            },
        },
        "additionalProperties": {"anyOf": [*stages, {"type": "null"}]},
    }


def _add_short_forms(definitions: dict[str, Any]) -> None:
    """Let sources, data of stages and models be written in the short ways of `kascade.recipe.forms`."""
    fields = {"$ref": "#/$defs/DataSourceChanges"}
    rows = {"type": "object", "additionalProperties": {"anyOf": [{"type": ["string", "null"]}, fields]}}
    weighted = {**definitions["DataSource"], "description": "a source, with its weight beside its fields"}
    weighted["properties"] = weighted["properties"] | {"weight": definitions["Mix"]["properties"]["weight"]}
    definitions["WeightedSource"] = weighted
    for part in definitions.values():
        own = part.get("properties", {})
        if "data" in own and "kind" in own:
            listed = {"type": "array", "items": {"$ref": "#/$defs/WeightedSource"}}
            own["data"] = {"anyOf": [own["data"], listed, rows]}
        if "source" in own and "$ref" in own["source"]:
            own["source"] = {"anyOf": [own["source"], {"type": "string"}, {**rows, "maxProperties": 1}]}


def file_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe file at any level: `preset` decides which form is meant."""
    full, dials, preset = (copy.deepcopy(model_schema(m)) for m in (Recipe, FullDials, PresetFile))
    definitions: dict[str, Any] = full.pop("$defs")
    changes = {f"{name}Changes": _refs_to_partial(part) for name, part in definitions.items()}
    definitions |= changes
    _add_short_forms(definitions)
    overrides = _overrides_schema(definitions)
    preset.pop("$defs", None)
    preset["properties"]["overrides"] = {"$ref": "#/$defs/Overrides"}
    scales = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Overrides"}}
    dials["properties"]["scales"] = scales
    full["properties"] |= dials["properties"]
    full["properties"]["model"] = {"anyOf": [full["properties"]["model"], {"type": "string"}]}
    full["properties"]["budget"] = {"anyOf": [full["properties"]["budget"], {"type": "number"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Kascade recipe",
        "type": "object",
        "if": {"required": ["preset"]},
        "then": {"$ref": "#/$defs/PresetFile"},
        "else": {"$ref": "#/$defs/FullFile"},
        "$defs": {**definitions, "Overrides": overrides, "PresetFile": preset, "FullFile": full},
    }
