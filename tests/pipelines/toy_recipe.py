"""Recipes of a few stages that need no model to be compiled."""

from __future__ import annotations

from typing import Any

from kascade.recipe.schema import Recipe


def toy_recipe(
    *stages: dict[str, Any], rounds: int = 2, name: str = "toy", cluster: dict[str, Any] | None = None
) -> Recipe:
    """A recipe of SFT stages, each given by the fields that matter (`name`, `parent`, `side_branch`, ...)."""
    source = {"environment": "math_with_judge"}
    common = {"kind": "sft", "steps": 1, "data": [{"source": source}]}
    on_one_cpu = {"samplers": 1, "cpus": 0.1, "driver_cpus": 0.1}
    recovery = {"rounds": rounds, "optimizer": {"warmup_steps": 0}, "workers": on_one_cpu}
    return Recipe.model_validate(
        {
            "kascade": 1,
            "name": name,
            "model": {"source": "builtin://mini-nemotron-h"},
            "stages": [{**common, **stage} for stage in stages],
            "benchmarks": [{"name": "math", "source": source}],
            "cluster": cluster or {},
            "guard": {"recovery": recovery},
        }
    )
