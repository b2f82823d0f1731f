"""What a recipe says about adapters: inherited, part of keys, and refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_for_tests import SMALL, write_recipe

from kascade.errors import UserError
from kascade.recipe.adapter import Adapter
from kascade.recipe.identity import adapter_of, find_stage, fingerprint, stage_key
from kascade.recipe.load import load_recipe, read_recipe
from kascade.recipe.recovering import recovery_row, recovery_sampling
from kascade.recipe.redone import changed_stages
from kascade.recipe.schema import ConversationLimits, Recipe

ALL = SMALL.replace("stages:", "adapter: {rank: 8}\nstages:", 1)
KEYS_BEFORE_ADAPTERS = {  # of the recipe above without one, from the commit before they came
    "sft": "65ff0e3a09e6",
    "mopd": "217af3ba52e9",
}


def made(tmp_path: Path, text: str = SMALL, *settings: str) -> Recipe:
    return load_recipe(write_recipe(tmp_path, text), settings)


def refusals(tmp_path: Path, text: str, *settings: str) -> list[tuple[str, str]]:
    with pytest.raises(UserError) as caught:
        made(tmp_path, text, *settings)
    return [(fault.where, fault.what) for fault in caught.value.faults]


def key(recipe: Recipe, stage: str) -> str:
    return stage_key(recipe, stage, "train", "parent")


def test_a_stage_has_its_own_adapter_else_the_recipes(tmp_path: Path) -> None:
    recipe = made(tmp_path, ALL, "sft.adapter={rank: 4, at_end: merge}")
    assert adapter_of(recipe, find_stage(recipe, "sft")) == Adapter(rank=4, at_end="merge")
    assert adapter_of(recipe, find_stage(recipe, "if_rl")) == Adapter(rank=8)
    plain = made(tmp_path)
    assert adapter_of(plain, find_stage(plain, "sft")) is None


def test_an_adapter_is_part_of_a_stages_key_wherever_it_is_written(tmp_path: Path) -> None:
    plain, whole = made(tmp_path), made(tmp_path, ALL)
    own = made(
        tmp_path, SMALL, *(f"{name}.adapter.rank=8" for name in ("sft", "chat_teacher", "if_rl", "mopd"))
    )
    for name in ("sft", "if_rl", "mopd"):
        assert key(whole, name) != key(plain, name)
        assert key(whole, name) == key(own, name)
        assert fingerprint(whole, name) != fingerprint(plain, name)
    assert set(changed_stages(plain, whole)) == {"sft", "chat_teacher", "if_rl", "mopd"}
    assert changed_stages(own, whole) == {}


def test_keys_of_recipes_without_an_adapter_are_what_they_were(tmp_path: Path) -> None:
    recipe = made(tmp_path)
    assert {name: key(recipe, name) for name in KEYS_BEFORE_ADAPTERS} == KEYS_BEFORE_ADAPTERS


@pytest.mark.parametrize(
    ("settings", "where", "what"),
    [
        (("if_rl.adapter.rank=4",), "adapter.rank", "continues the adapter of 'sft', whose rank is 8"),
        (("if_rl.adapter={rank: 8, targets: [q_proj]}",), "targets", "whose targets is all that can"),
        (
            ("if_rl.adapter={rank: 8, dropout: 0.1}",),
            "dropout",
            "'if_rl' is of a kind whose updates drop inp",
        ),
        (("if_rl.mtp={}",), "mtp", "its training would be lost"),
        (("if_rl.moe={expert_bias_rate: 0, freeze_router: false}",), "freeze_router", "routers are no part"),
        (("if_rl.moe={}",), "expert_bias_rate", "biases are no part of an adapter"),
        (("adapter.targets=[q-proj]",), "adapter.targets", "q-proj"),
    ],
)
def test_what_does_not_go_with_an_adapter_is_refused_with_its_place(
    tmp_path: Path, settings: tuple[str, ...], where: str, what: str
) -> None:
    found = refusals(tmp_path, ALL, *settings)
    assert any(where in place and what in said for place, said in found), found


def test_low_precision_takes_no_adapter(tmp_path: Path) -> None:
    text = ALL.replace('"builtin://mini-nemotron-h"', '"builtin://mini-nemotron-h", precision: fp8')
    assert any("take no adapter" in what for _, what in refusals(tmp_path, text))


def test_after_a_merge_the_next_adapter_may_have_any_shape(tmp_path: Path) -> None:
    recipe = made(tmp_path, ALL, "sft.adapter={rank: 4, at_end: merge}", "chat_teacher.adapter.rank=2")
    assert adapter_of(recipe, find_stage(recipe, "chat_teacher")) == Adapter(rank=2)


def test_faults_of_adapters_come_with_the_line_they_were_written_in(tmp_path: Path) -> None:
    text = ALL.replace("    name: if_rl\n", "    name: if_rl\n    adapter: {rank: 2}\n")
    line = text.splitlines().index("    adapter: {rank: 2}") + 1
    with pytest.raises(UserError) as caught:
        read_recipe(write_recipe(tmp_path, text))
    (fault,) = caught.value.faults
    assert fault.where == f"{tmp_path / 'recipe.yaml'}:{line} stages.2.adapter.rank"
    assert fault.allowed == "8"


def test_targets_are_a_set(tmp_path: Path) -> None:
    """Their order, and one named twice, are no other adapter."""
    same = ("sft.adapter={rank: 8, targets: [q_proj, v_proj]}", "adapter.targets=[v_proj, q_proj, q_proj]")
    assert made(tmp_path, ALL, *same).adapter is not None
    other = ("sft.adapter={rank: 8, targets: [q_proj, v_proj]}", "adapter.targets=[q_proj]")
    assert any("whose targets is" in what for _, what in refusals(tmp_path, ALL, *other))


def test_a_rate_of_dropping_needs_a_stage_that_drops(tmp_path: Path) -> None:
    """SFT does; a rate for all stages is right where one of those that take it is of that kind."""
    assert made(tmp_path, ALL, "adapter.dropout=0.1").adapter == Adapter(rank=8, dropout=0.1)
    alone = ALL.replace("- kind: sft", "- kind: if_rl", 1)
    for settings in (("adapter.dropout=0.1",), ("adapter.dropout=0.1", "sft.adapter.rank=8")):
        text = alone if len(settings) == 1 else ALL
        (found,) = refusals(tmp_path, text, *settings)
        assert "adapter.dropout" in found[0] and "no stage with this adapter" in found[1]
    with pytest.raises(UserError, match="'pairs' is of a kind"):
        made(tmp_path, DPO)


DPO = """\
kascade: 1
name: pairs
model: {source: "builtin://mini-nemotron-h"}
stages:
  - kind: dpo
    name: pairs
    steps: 1
    adapter: {rank: 2, dropout: 0.2}
    data: [{source: {environment: genrm_compare}}]
benchmarks:
  - {name: knowledge, source: {environment: mcqa}, tasks: 20}
"""


def test_recoveries_converse_as_long_as_benchmarks_do(tmp_path: Path) -> None:
    limits = "benchmarks.chat.sampling.conversation={max_tokens: 3000, max_turns: 6, max_seconds: 60}"
    plain = recovery_sampling(made(tmp_path))
    assert (plain.conversation, plain.max_new_tokens) == (ConversationLimits(), 49_152)
    talks = "benchmarks.chat.source.environment=tool_dialogues"
    recipe = made(tmp_path, SMALL, limits, talks, "benchmarks.chat.sampling.max_new_tokens=500")
    found = recovery_sampling(recipe)
    assert found.conversation == ConversationLimits(max_tokens=3000, max_turns=6, max_seconds=60)
    assert recovery_row(recipe) == 49_152, "the other benchmark's answers are longer"
    short = made(
        tmp_path, SMALL, limits, talks, *(f"benchmarks.{n}.sampling.max_new_tokens=500" for n in BOTH)
    )
    assert recovery_row(short) == 3000
    silent = made(tmp_path, SMALL, limits, *(f"benchmarks.{n}.sampling.max_new_tokens=500" for n in BOTH))
    assert recovery_row(silent) == 500, "no row is a conversation"


BOTH = ("knowledge", "chat")
