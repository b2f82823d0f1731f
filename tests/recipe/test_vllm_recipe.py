"""What a recipe says about vLLM: how weights travel is no result, and a server takes no other samplers."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_for_tests import SMALL, write_recipe

from kascade.errors import UserError
from kascade.recipe.groups import planned_groups
from kascade.recipe.identity import fingerprint, stage_key
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Recipe

SERVER = "model.rollout={engine: vllm, vllm: {served: {url: 'http://vllm:8000'}}}"


def made(tmp_path: Path, *settings: str) -> Recipe:
    return load_recipe(write_recipe(tmp_path, SMALL), settings)


def refusals(tmp_path: Path, *settings: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        made(tmp_path, *settings)
    return sorted(fault.what for fault in caught.value.faults)


def keys(recipe: Recipe) -> list[str]:
    return [stage_key(recipe, "if_rl", "train", "parent"), fingerprint(recipe, "if_rl"), fingerprint(recipe)]


def test_how_weights_travel_and_are_watched_enters_no_key(tmp_path: Path) -> None:
    plain = made(tmp_path, "model.rollout.engine=vllm")
    assert keys(made(tmp_path, SERVER)) == keys(plain)
    assert keys(made(tmp_path, SERVER, "model.rollout.vllm.canary.max_gap=0.2")) == keys(plain)
    assert keys(made(tmp_path, SERVER, "model.rollout.vllm.dtype=float32")) != keys(plain)


def test_a_server_is_named_once(tmp_path: Path) -> None:
    both = "model.rollout={engine: vllm, vllm: {served: {url: 'http://a:1', python: /b/python}}}"
    for settings, what in (
        ([both], "names two servers"),
        (["model.rollout={engine: vllm, vllm: {served: {transfer: nccl}}}"], "names no server"),
    ):
        assert refusals(tmp_path, *settings) == [what]


def test_what_does_not_go_with_a_server_is_refused_together(tmp_path: Path) -> None:
    wrong = ["model.rollout.engine=native", "model.precision=fp8", "if_rl.workers.samplers=2"]
    assert refusals(tmp_path, SERVER, *wrong) == [
        "fp8 layers are not handed over to a server",
        "the recipe names a vLLM server",
        "the vLLM server samples for all stages",
    ]


def test_a_server_takes_no_memory_of_the_trainers(tmp_path: Path) -> None:
    with_server, alone = (
        next(one.layout for one in planned_groups(recipe) if one.name == "if_rl")
        for recipe in (made(tmp_path, SERVER), made(tmp_path))
    )
    assert with_server.samples is None and alone.samples is not None
