"""Text that Kubernetes, Argo or Kubeflow would fill in reaches a step as it was written, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_recipe import toy_recipe

from kascade.recipe.run_form import pack, unpack
from kascade.recipe.schema import Recipe
from pipelines.compile import compile_recipe
from pipelines.literal import FILLED_IN, FROM_PEOPLE, for_people, in_json

TEXTS = (
    "$$",
    "$$$",
    "$(HOME)",
    "$$(HOME)",
    "$$$(HOME)",
    "a$(b)c$(d)",
    "{{name}}",
    "{{{name}}}",
    "{{{{",
    "{{workflow.parameters.x}}",
    "{{=1+1}}",
    "{{$.inputs.parameters['run']}}",
    "{{$}}",
    "$(a{{b}}$$)",
    "100$$ or $(more)",
    "\\$(x)",
)
UNTOUCHED = ("$HOME", "${HOME}", "100$", "{name}", "{ {x} }", "}}", "$ (x)", "{% raw %}", "\\u0024(x)")


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_is_filled_in_where_people_read_and_in_json(text: str) -> None:
    assert FROM_PEOPLE.search(text)
    shown = for_people(text)
    assert not FROM_PEOPLE.search(shown) and shown.replace(" ", "") == text.replace(" ", "")
    for value in ({"a": text}, {text: 1}, {"a": {"b": [text, {text: text}]}}):
        sent = in_json(json.dumps(value))
        assert not FROM_PEOPLE.search(sent) and json.loads(sent) == value


@pytest.mark.parametrize("text", UNTOUCHED)
def test_what_nobody_fills_in_stays(text: str) -> None:
    assert for_people(text) == text and not FROM_PEOPLE.search(text)
    assert json.loads(in_json(json.dumps({"a": text}))) == {"a": text}


def free_texts(text: str) -> Recipe:
    """A recipe with this text in every field that may hold any."""
    recipe = toy_recipe({"name": "a", "title": text}, rounds=0).model_dump(mode="json")
    source = {"system": text, "prompt": text, "columns": {"prompt": text}, "options": {"note": text}}
    recipe["stages"][0]["data"][0]["source"] |= {**source, "split": text, "subset": text, "path": f"/{text}"}
    recipe["benchmarks"][0]["sampling"]["stop"] = [text]
    recipe["model"] |= {
        "source": f"./{text}",
        "thinking_switch": "slash",
        "thinking_words": [text, f"{text}!"],
    }
    recipe["tracking"]["experiment"] = text
    recipe["description"] = text
    recipe["judge"] = {"model": text}
    return Recipe.model_validate(recipe)


def test_every_free_text_of_a_recipe_arrives_as_it_was_written(tmp_path: Path) -> None:
    recipe = free_texts(" ".join(TEXTS))
    path = compile_recipe(recipe, tmp_path / "p.yaml")
    assert unpack(pack(recipe)) == recipe
    found: list[str] = []
    for document in yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader):
        found += [text for text in texts_of(document) if FILLED_IN.search(text)]
    assert found == []


def texts_of(value: Any) -> list[str]:
    """Every text but the code of components."""
    if isinstance(value, dict):
        return [
            text for key, one in value.items() if key not in ("command", "args") for text in texts_of(one)
        ]
    if isinstance(value, list):
        return [text for one in value for text in texts_of(one)]
    return [value] if isinstance(value, str) else []
