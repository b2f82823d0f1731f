"""Checks of a recipe's adapters against its stages: they read plain JSON values, as `recipe.checks` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kascade.recipe.adapter import SAME, Adapter
from kascade.recipe.checks import Problem
from kascade.recipe.methods import METHODS

LOW_PRECISIONS = ("fp8", "nvfp4")


def adapter_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """What of the recipe does not go with its adapters."""
    whole = recipe.get("adapter")
    listed = recipe.get("stages")
    known: dict[str, Any] = {}
    previous: str | None = None
    for index, stage in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(stage, dict):
            continue
        path = ("stages", index)
        own = stage.get("adapter")
        adapter = own if isinstance(own, dict) else whole if isinstance(whole, dict) else None
        parent = stage.get("parent") or previous
        if adapter is not None:
            where = (*path, "adapter") if isinstance(own, dict) else ("adapter",)
            yield from _stage_problems(path, stage)
            yield from _continued(where, stage, adapter, parent, known.get(str(parent)))
            yield from _precision_problems(where, recipe.get("model"))
            if isinstance(own, dict) and own.get("dropout") and not _drops(stage):
                yield _dropout_problem(where, f"{stage.get('name')!r} is")
        shape = known.get(str(parent)) or adapter  # one fault for a change, not one for each later stage
        known[str(stage.get("name"))] = shape if _kept(adapter) else None
        if stage.get("side_branch") is not True:
            previous = stage.get("name")
    yield from _nowhere_dropped(recipe)


def _nowhere_dropped(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """A rate for all stages, of which at least one must be able to drop."""
    whole, listed = recipe.get("adapter"), recipe.get("stages")
    if not isinstance(whole, dict) or not whole.get("dropout") or not isinstance(listed, list):
        return
    stages = [one for one in listed if isinstance(one, dict) and not isinstance(one.get("adapter"), dict)]
    if not any(map(_drops, stages)):
        yield _dropout_problem(("adapter",), "no stage with this adapter is")


def _drops(stage: Mapping[str, Any]) -> bool:
    method = METHODS.get(str(stage.get("kind")))
    return method is not None and method.drops


def _dropout_problem(where: tuple[str | int, ...], who: str) -> Problem:
    kinds = ", ".join(kind for kind, method in METHODS.items() if method.drops)
    what = f"{who} of a kind whose updates drop inputs ({kinds}), so it would do nothing"
    return Problem((*where, "dropout"), what, allowed="0", remedy="leave it out")


def _kept(adapter: Mapping[str, Any] | None) -> bool:
    return adapter is not None and adapter.get("at_end", "keep") == "keep"


def _stage_problems(path: tuple[str | int, ...], stage: Mapping[str, Any]) -> Iterator[Problem]:
    """An adapter holds matrices of linear layers: nothing else that a stage trains would be in it."""
    if stage.get("mtp") is not None:
        what = "the multi-token-prediction head is no part of an adapter, so its training would be lost"
        yield Problem((*path, "mtp"), what, remedy="leave out `mtp`, or train this stage without an adapter")
    moe = stage.get("moe")
    if isinstance(moe, dict):
        if moe.get("freeze_router", True) is not True:
            what = "routers are no part of an adapter"
            yield Problem((*path, "moe", "freeze_router"), what, allowed="true")
        if moe.get("expert_bias_rate", 1e-3) != 0:
            what = "the routers' biases are no part of an adapter, so their balance would be lost"
            yield Problem((*path, "moe", "expert_bias_rate"), what, allowed="0")


def _continued(
    where: tuple[str | int, ...],
    stage: Mapping[str, Any],
    adapter: Mapping[str, Any],
    parent: Any,
    before: Mapping[str, Any] | None,
) -> Iterator[Problem]:
    """A stage that starts from an adapter trains that one on, so both must have one shape."""
    if before is None:
        return
    plain = Adapter().model_dump(mode="json")
    for name in SAME:
        old, new = (one.get(name, plain[name]) for one in (before, adapter))
        if _ordered(old) != _ordered(new):
            said = "all that can" if old is None else old
            what = f"{stage.get('name')!r} continues the adapter of {parent!r}, whose {name} is {said}"
            remedy = f"give both the same {name}, or set adapter.at_end of {parent!r} to merge"
            yield Problem((*where, name), what, allowed=str(said), remedy=remedy)


def _ordered(value: Any) -> Any:
    """Targets are a set: their order, and one named twice, change nothing."""
    return sorted({str(one) for one in value}) if isinstance(value, list) else value


def _precision_problems(where: tuple[str | int, ...], model: Any) -> Iterator[Problem]:
    if isinstance(model, dict) and model.get("precision") in LOW_PRECISIONS:
        what = f"layers that compute in {model['precision']} take no adapter here"
        yield Problem(where, what, remedy="set model.precision to bf16, or leave out `adapter`")
