"""What a recipe file may hold, at three levels, and its JSON Schema for editors.

1. dials: `preset` and a few words beside it; 2. `overrides` of single stages, benchmarks and the guard;
3. everything spelt out, as `Recipe` has it, in place of `preset`.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, Literal

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt

from kascade.recipe.schema import ModelPart, Name, Part, Recipe

Overrides = dict[str, JsonValue]
OVERRIDES_HELP = (
    "stage name: fields to change, or null to leave the stage out; `benchmarks`: the same by benchmark; "
    "`guard`, `judge`, `storage`, `tracking` and `cluster`: fields to change"
)
DATA_HELP = "environment: JSONL of NeMo-Gym rows in place of its tasks; or a folder of ENVIRONMENT.jsonl"


class Dials(Part):
    """Level 1 and 2: what the command line and a short file may say on top of a recipe."""

    name: Name | None = None
    description: str | None = None
    model: str | ModelPart | None = Field(None, description="builtin://NAME, a folder, or a hub id")
    data: str | dict[str, str] | None = Field(None, description=DATA_HELP)
    seed: int | None = Field(None, ge=0, lt=2**32)
    threads: PositiveInt | None = Field(None, description="CPU threads")
    scale: Name | None = Field(None, description="one of the sizes that the preset declares under `scales`")
    budget: PositiveFloat | None = Field(
        None, description="CPU hours: stop before a stage that would exceed it"
    )
    overrides: Overrides = Field(default_factory=dict, description=OVERRIDES_HELP)


class PresetFile(Dials):
    """A recipe that starts from a preset."""

    kascade: Literal[1] = Field(1, description="version of this format")
    preset: str


class FullDials(Part):
    """What a file that spells everything out may hold beside `Recipe`'s fields."""

    data: str | dict[str, str] | None = Field(None, description=DATA_HELP)
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
            "guard": {"$ref": "#/$defs/GuardChanges"},
            "judge": {"$ref": "#/$defs/JudgeModelChanges"},
            "storage": {"$ref": "#/$defs/StorageChanges"},
            "tracking": {"$ref": "#/$defs/TrackingChanges"},
            "cluster": {"$ref": "#/$defs/ClusterChanges"},
            "benchmarks": {"type": "object", "additionalProperties": benchmark},
        },
        "additionalProperties": {"anyOf": [*stages, {"type": "null"}]},
    }


def file_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe file at any level: `preset` decides which form is meant."""
    full, dials, preset = (copy.deepcopy(model_schema(m)) for m in (Recipe, FullDials, PresetFile))
    definitions: dict[str, Any] = full.pop("$defs")
    changes = {f"{name}Changes": _refs_to_partial(part) for name, part in definitions.items()}
    overrides = _overrides_schema(definitions)
    preset.pop("$defs")
    preset["properties"]["overrides"] = {"$ref": "#/$defs/Overrides"}
    scales = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Overrides"}}
    dials["properties"]["scales"] = scales
    full["properties"] |= dials["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Kascade recipe",
        "type": "object",
        "if": {"required": ["preset"]},
        "then": {"$ref": "#/$defs/PresetFile"},
        "else": {"$ref": "#/$defs/FullFile"},
        "$defs": {**definitions, **changes, "Overrides": overrides, "PresetFile": preset, "FullFile": full},
    }
