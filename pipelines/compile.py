"""Recipe in, pipeline package out: the YAML that a cluster runs and that runs here."""

from __future__ import annotations

import warnings
from pathlib import Path

from kfp import compiler

from kascade.recipe.schema import Recipe
from pipelines.canonical import canonicalise
from pipelines.cascade import Steps, build_cascade


def compile_recipe(recipe: Recipe, path: Path, *, steps: Steps | None = None) -> Path:
    """Write the compiled pipeline of a recipe to `path` (YAML) and return it. Equal recipes, equal bytes.

    steps: other components than those of `components/`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        cascade = build_cascade(recipe, steps or Steps.shipped())
        canonicalise(cascade.pipeline_spec)
        compiler.Compiler().compile(cascade, str(path))
    return path
