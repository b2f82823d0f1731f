"""Every field of a recipe in words: docs/recipe-reference.md, made from the recipe's own schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kascade.recipe.faults import describe
from kascade.recipe.file import FullDials, PresetFile, model_schema
from kascade.recipe.schema import Recipe

HEAD = """# Recipe reference

Every field that a recipe file may have. `kascade schema --reference` writes this page, so do not edit it.

A file is short or full. A short one names a `preset` and changes it ([PresetFile](#presetfile)). A full one
spells everything out ([Recipe](#recipe)). Models, data and sources may be written in short ways in both:

| short | means |
|---|---|
| `model: ./my-model` | `model: {source: ./my-model}` |
| `data: {mcqa: rows.jsonl}` | `data: [{source: {environment: mcqa, path: rows.jsonl}}]` |
| `data: [{environment: mcqa, path: rows.csv, weight: 2}]` | a source with its weight beside its fields |
| `source: {mcqa: rows.jsonl}` | `source: {environment: mcqa, path: rows.jsonl}` |

On the command line every field is changed by its path: `--set sft.steps=20`, `--set model.precision=bf16`.

Letters in brackets name the source of a value or a rule: [C1] Nemotron-Cascade (arXiv 2512.13607), [C2]
Nemotron-Cascade 2 (arXiv 2603.19220), [N3] Nemotron 3 Nano (arXiv 2512.20848), [S3] Nemotron 3 Super (arXiv
2604.12374), [WP] Nemotron 3 white paper (arXiv 2512.20856), [LN] Llama-Nemotron (arXiv 2505.00949), [DAPO]
arXiv 2503.14476, [YaRN] arXiv 2309.00071, [LoRA] arXiv 2106.09685, [TM] LoRA Without Regret (Thinking
Machines, 2025), [RL] NeMo-RL, [NeMo-Gym] its servers, [Kubernetes] its API.
"""
CLAUSE_END = re.compile(r"; (?![^\[(]*[\])])")  # outside brackets; each clause gets its line in a cell
LONGEST_DEFAULT = 40  # characters of a default shown in a table
NEEDED = "needed"

Schema = Mapping[str, Any]


def reference_text() -> str:
    """The page. Parts follow in the order in which a reader meets them."""
    sections = [HEAD]
    for name, schema, part in _parts():
        about = " ".join(str(part.get("description", "")).partition("\n\n")[0].split())
        rows = "\n".join(_row(field, one, part, schema) for field, one in part.get("properties", {}).items())
        table = f"| field | value | default | what it is |\n|---|---|---|---|\n{rows}"
        sections.append(f"## {name}\n\n{about}\n\n{table}\n" if about else f"## {name}\n\n{table}\n")
    return "\n".join(sections)


def undescribed() -> list[str]:
    """Fields that say nothing about themselves ("Optimizer.betas")."""
    return [
        f"{name}.{field}"
        for name, _, part in _parts()
        for field, one in part.get("properties", {}).items()
        if not one.get("description")
    ]


def _parts() -> Iterator[tuple[str, Schema, Schema]]:
    """(name, schema that its references are resolved in, part) of both file forms and all that they hold."""
    seen: set[str] = set()
    for model in (PresetFile, Recipe, FullDials):
        schema = model_schema(model)
        if model is not FullDials:  # its fields are dials of PresetFile, too
            yield model.__name__, schema, schema
        waiting = [name for one in schema["properties"].values() for name in _references(one)]
        while waiting:
            name = waiting.pop(0)
            if name in seen:
                continue
            seen.add(name)
            part = schema["$defs"][name]
            if "properties" in part:
                yield name, schema, part
            waiting += [inner for one in part.get("properties", {}).values() for inner in _references(one)]


def _references(value: Any) -> Iterator[str]:
    """Names of the parts that a schema refers to."""
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for key, inner in value.items():
            if key not in ("default", "discriminator"):
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _row(field: str, one: Schema, part: Schema, schema: Schema) -> str:
    default = NEEDED if field in part.get("required", ()) else _default(one)
    about = " ".join(str(one.get("description", "")).split())
    clauses = CLAUSE_END.sub("<br>", _cell(about))
    return f"| `{field}` | {_cell(_value(one, schema))} | {default} | {clauses} |"


def _value(one: Schema, schema: Schema) -> str:
    """What may stand there, with links to other parts."""
    if "$ref" in one:
        return _linked(one["$ref"].rpartition("/")[2], schema)
    if "anyOf" in one or "oneOf" in one:
        branches = one.get("anyOf") or one["oneOf"]
        return " or ".join(dict.fromkeys(_value(branch, schema) for branch in branches))
    if one.get("type") == "array" and "items" in one:
        return f"list of {_value(one['items'], schema)}"
    if isinstance(one.get("additionalProperties"), Mapping) and one["additionalProperties"]:
        return f"mapping to {_value(one['additionalProperties'], schema)}"
    return describe(one, schema) if one else "any value"


def _linked(name: str, schema: Schema) -> str:
    part = schema["$defs"][name]
    return f"[{name}](#{name.lower()})" if "properties" in part else _value(part, schema)


def _default(one: Schema) -> str:
    if "default" not in one:
        return ""
    if isinstance(one["default"], dict) and one["default"]:
        return "its own"
    text = json.dumps(one["default"], ensure_ascii=False)
    return f"`{_cell(text)}`" if len(text) <= LONGEST_DEFAULT else "its own"


def _cell(text: str) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|")
