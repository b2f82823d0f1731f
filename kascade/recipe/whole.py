"""All checks that need the whole recipe, from every file that has some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kascade.recipe.adapter_checks import adapter_problems
from kascade.recipe.addresses import secret_problems
from kascade.recipe.approval import approval_problems
from kascade.recipe.bounds import bound_problems
from kascade.recipe.budget import budget_problems
from kascade.recipe.checks import CrossCheckError, Problem, cross_problems
from kascade.recipe.parallel import resting_problems
from kascade.recipe.placements import placement_problems
from kascade.recipe.thinking import thinking_problems
from kascade.recipe.vllm import served_problems


def whole_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """What parts of a recipe, given as JSON value, do not go together."""
    yield from cross_problems(recipe)
    yield from placement_problems(recipe)
    yield from adapter_problems(recipe)
    yield from secret_problems(recipe)
    yield from bound_problems(recipe)
    yield from thinking_problems(recipe)
    yield from budget_problems(recipe)
    yield from approval_problems(recipe)
    yield from served_problems(recipe)
    yield from resting_problems(recipe)


def check_whole(recipe: Mapping[str, Any]) -> None:
    """Raise CrossCheckError when parts of a recipe do not go together."""
    problems = list(whole_problems(recipe))
    if problems:
        raise CrossCheckError(problems)
