"""What several processes cannot train is refused with the reason, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from kascade.models.fit_spread import spread_faults
from kascade.recipe.adapter import Adapter
from kascade.recipe.identity import fingerprint, stage_key
from kascade.recipe.load import load_recipe
from kascade.recipe.parallel import Parallel
from kascade.recipe.schema import Recipe, RLStage

MOE = {"model_type": "qwen3_moe", "num_experts": 8}


def asking(trainers: int = 2, parallel: dict[str, Any] | None = None, **model: Any) -> Recipe:
    recipe = load_recipe("quickstart")
    stages = list(recipe.stages)
    place = next(n for n, stage in enumerate(stages) if stage.answers_by() is not None)
    changed = stages[place].model_dump(mode="json", exclude={"title"})
    changed["workers"]["trainers"] = trainers
    changed["parallel"] = parallel or {}
    stages[place] = type(stages[place]).model_validate(changed)
    return recipe.model_copy(update={"stages": tuple(stages), "model": recipe.model.model_copy(update=model)})


def told(config: dict[str, Any], recipe: Recipe) -> list[str]:
    return [f"{fault.where} {fault.what}" for fault in spread_faults(config, recipe)]


def test_what_fits_is_not_refused() -> None:
    assert told(MOE, asking(4, {"experts": 2})) == []
    assert told({"model_type": "llama"}, load_recipe("quickstart")) == []


@pytest.mark.parametrize(
    ("config", "recipe", "reason"),
    [
        ({"model_type": "llama"}, asking(), "not known to learn what one learns"),
        (MOE, asking(precision="fp8"), "after loading"),
        (MOE, asking(draft_tokens=2), "drafts no tokens"),
        ({"model_type": "qwen3"}, asking(2, {"experts": 2}), "no experts"),
        ({**MOE, "num_experts": 6}, asking(4, {"experts": 4}), "do not divide 6 experts"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_reason(
    config: dict[str, Any], recipe: Recipe, reason: str
) -> None:
    (found,) = told(config, recipe)
    assert reason in found


def test_several_processes_do_not_begin_with_an_adapter_that_they_would_have_to_merge() -> None:
    """It is known before the stage that makes the adapter has run for hours."""
    recipe = asking()
    place = next(n for n, stage in enumerate(recipe.stages) if stage.actors().trainers > 1)
    for at_end, faults in (("keep", 1), ("merge", 0)):
        first = recipe.stages[place - 1].model_copy(update={"adapter": Adapter(at_end=at_end)})
        stages = (*recipe.stages[: place - 1], first, *recipe.stages[place:])
        found = told(MOE, recipe.model_copy(update={"stages": stages}))
        assert len(found) == faults and all("do not merge" in fault for fault in found)


@pytest.mark.parametrize(
    ("trainers", "parallel", "reason"),
    [
        (4, {"shard": 3}, "3 x 1 processes are asked for, and 4 train"),
        (4, {"shard": 4, "experts": 3}, "do not divide 4"),
        (6, {"experts": 4}, "do not divide 6"),
        (4, {"shard": 4, "replicate": 2}, "4 x 2 processes"),
    ],
)
def test_a_layout_that_the_processes_cannot_make_is_refused(
    trainers: int, parallel: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        asking(trainers, parallel)


def test_the_layout_is_no_part_of_a_key_and_its_default_none_of_a_fingerprint() -> None:
    plain, spread = load_recipe("quickstart"), asking(1, {"shard": 1})
    stage = next(stage for stage in plain.stages if isinstance(stage, RLStage)).name
    kept = [s.model_copy(update={"activations": "recompute"}) if s.name == stage else s for s in plain.stages]
    other = plain.model_copy(update={"stages": tuple(kept)})
    assert stage_key(plain, stage, "train", "0" * 64) == stage_key(other, stage, "train", "0" * 64)
    assert stage_key(plain, stage, "train", "0" * 64) == stage_key(spread, stage, "train", "0" * 64)
    assert fingerprint(plain, stage) != fingerprint(other, stage)
    assert Parallel().model_dump() == {"shard": None, "experts": 1, "replicate": 1}  # as identity knows it
