"""The parameters of a compiled pipeline, as Kubeflow's run form shows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kascade.recipe.methods import stage_title
from kascade.recipe.run_form import FIELDS
from kascade.recipe.schema import Recipe
from kascade.steps.begin import RUN_ID
from pipelines.literal import for_people


@dataclass(frozen=True, slots=True)
class FormField:
    """One parameter: text, or a switch."""

    name: str
    default: str | bool
    description: str


def switch_name(number: int, stage: str) -> str:
    """The parameter that says whether to train the stage; `number` counts from 1."""
    return f"stage_{number}_{stage.replace('-', '_')}"


def form_fields(recipe: Recipe) -> list[FormField]:
    """The form of a recipe's pipeline: the same nine fields for every recipe, then a switch a stage."""
    run = f"{recipe.cluster.storage.path}/runs/{recipe.name}/{RUN_ID}"
    fields = [FormField(name, run if name == "run" else "", text) for name, text in FIELDS.items()]
    for number, stage in enumerate(recipe.stages, 1):
        text = for_people(f"Train stage {number}, {stage_title(stage)}; false: go on without it.")
        fields.append(FormField(switch_name(number, stage.name), True, text))
    return fields


def offer_scales(pipeline: Any, scales: Iterable[str]) -> None:
    """Let the form offer the recipe's scales to choose from, in place of a field to type in.

    pipeline: a PipelineSpec. The SDK has no way to say so (`Literal` parameters fail in kfp 2.17), but its
    format has, and Kubeflow's page and server go by that.
    """
    parameter = pipeline.root.input_definitions.parameters["scale"]
    for scale in ("", *scales):
        parameter.literals.add(string_value=scale)


def with_form(body: Callable[..., Any], recipe: Recipe) -> Callable[..., Any]:
    """`body`, which takes the form's values by name, with the signature and docstring that kfp reads."""
    fields = form_fields(recipe)

    def cascade(*values: Any) -> None:
        body(**{field.name: value for field, value in zip(fields, values, strict=True)})

    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            annotation=type(field.default),
            default=field.default,
        )
        for field in fields
    ]
    cascade.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    cascade.__annotations__ = {field.name: type(field.default) for field in fields}
    arguments = "\n".join(f"    {field.name}: {field.description}" for field in fields)
    cascade.__doc__ = f"{for_people(recipe.description or recipe.name)}\n\nArgs:\n{arguments}\n"
    return cascade
