"""Every change that a refusal proposes is tried, word by word: with it the recipe is accepted."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from recipes_for_tests import SMALL, write_recipe

from kascade.errors import UserError
from kascade.recipe.fits import ALONE, FIRST, fits, memory_problems
from kascade.recipe.groups import Role
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Recipe

NANO, QWEN = "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-Base-BF16", "Qwen/Qwen3-14B-Base"


def recipe_of(tmp_path: Path, model: str, *settings: str) -> Recipe:
    text = SMALL.replace('"builtin://mini-nemotron-h"', model)
    return load_recipe(write_recipe(tmp_path, text), settings)


def settings_of(change: str) -> list[str]:
    """A change's fields as `--set` takes them."""
    return [part.replace(": ", "=", 1) for part in change.split(" and ")]


def places(recipe: Recipe) -> dict[tuple[str | int, ...], str]:
    return {problem.path: str(problem.remedy) for problem in memory_problems(recipe)}


ROLES: dict[str, Role] = {
    "training": "train", "sampling for": "sample", "a recovery of": "recover",
    "sampling for a recovery of": "redraw", "the reward model of": "judge",
}  # fmt: skip
HARDWARE = (
    "{device: h100-80gb, per_node: 8, nodes: 2}",
    "{device: rtx-4090-24gb, per_node: 3, nodes: 4}",
    "{device: own, memory_gib: 60, per_node: 8, nodes: 8}",
    "{device: b200-180gb, per_node: 1}",
)
VARIANTS: tuple[tuple[str, ...], ...] = (
    (),
    ("if_rl.workers={trainers: 4, samplers: 2, gpus: 1}",),
    ("if_rl.workers={trainers: 4, gpus: 1}", "if_rl.parallel={shard: 2, replicate: 2}"),
    ("cluster.default={accelerators: 8, cpu: \"32\", memory: 64Gi}", "sft.parallel={shard: 8}"),
    ("sft.max_tokens=65536", "sft.activations=recompute", "guard.recovery.workers={trainers: 2, gpus: 1}"),
    ("model.rollout.engine=vllm", "mopd.frozen_weights=host"),
    ("model.precision=fp8",),
    ("sft.moe={freeze_router: false, expert_bias_rate: 0}",),
    ("exam_processes=2", "adapter.rank=16"),
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(VARIANTS)))
def test_every_change_that_is_proposed_is_enough(number: int, tmp_path: Path) -> None:
    tried, model = 0, (NANO, QWEN)[number % 2]
    for hardware in (HARDWARE[number % 2], HARDWARE[2 + number // 2 % 2]):
        given = (f"hardware={hardware}", *VARIANTS[number])
        recipe = recipe_of(tmp_path, model, *given)
        refused = places(recipe)
        said = {one.path: one.what for one in reversed(list(memory_problems(recipe)))}
        for path, remedy in refused.items():
            if not remedy.startswith((FIRST, ALONE)):
                continue
            role = ROLES[said[path].split("'")[0].strip()] if remedy.startswith(ALONE) else None
            changes = remedy.removeprefix(FIRST).removeprefix(ALONE).split("; or ")
            assert len(changes) <= 3
            for change in changes:
                changed = recipe_of(tmp_path, model, *given, *settings_of(change))
                name = "benchmarks" if path == ("benchmarks",) else changed.stages[int(path[1])].name
                assert fits(changed, name, role), (hardware, change)
                tried += 1
    assert tried, "nothing was refused, so nothing was tried"


def test_a_change_that_the_recipe_itself_refuses_is_not_proposed(tmp_path: Path) -> None:
    given = ("hardware={device: h100-80gb}", "sft.moe={freeze_router: false, expert_bias_rate: 0}")
    for model, remedy in product([NANO], places(recipe_of(tmp_path, NANO, *given)).values()):
        for change in remedy.removeprefix(FIRST).split("; or "):
            if "adapter" in change:
                with pytest.raises(UserError, match="routers are no part"):
                    recipe_of(tmp_path, model, *given, *settings_of(change))
                raise AssertionError(change)


def test_a_device_of_ones_own_is_replaced_with_its_memory(tmp_path: Path) -> None:
    small = ("hardware={device: own, memory_gib: 100, per_node: 8}", "adapter.rank=8", "sft.max_tokens=98304")
    texts = " ".join(places(recipe_of(tmp_path, NANO, *small)).values())
    if "hardware.device" in texts:
        assert "hardware.memory_gib: null" in texts
