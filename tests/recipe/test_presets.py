"""Every preset loads, fits the published schema, and says what its source says."""

from __future__ import annotations

import jsonschema
import pytest
from recipes_for_tests import SMALL

from kascade.recipe.document import parse_yaml
from kascade.recipe.file import file_schema
from kascade.recipe.load import PRESETS, load_recipe, preset_names
from kascade.recipe.order import parent_of
from kascade.recipe.schema import MOPDStage, RLStage

VALIDATOR = jsonschema.Draft202012Validator(file_schema())


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(file_schema())


@pytest.mark.parametrize("name", preset_names())
def test_preset_fits_the_schema_and_loads(name: str) -> None:
    text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    VALIDATOR.validate(parse_yaml(text, name).plain())
    assert load_recipe(name).name == name


@pytest.mark.parametrize(
    "text",
    [
        SMALL.replace("steps: 5", "stpes: 5"),
        SMALL.replace("kind: sft", "kind: stf"),
        "preset: quickstart\nseeds: 3\n",
        "preset: quickstart\noverrides: {if_rl: {steps: 0}}\n",
        "preset: quickstart\noverrides: {guard: {min_dorp: 0.1}}\n",
        "preset: quickstart\noverrides: {benchmarks: {math: {task: 3}}}\n",
        "name: x\n",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text: str) -> None:
    assert not VALIDATOR.is_valid(parse_yaml(text, "recipe.yaml").plain())


@pytest.mark.parametrize(
    "text",
    [
        "preset: quickstart\noverrides: {if_rl: {steps: 2}, swe_rl: null, benchmarks: {math: {tasks: 3}}}\n",
        "preset: quickstart\nmodel: ./here\ndata: rows\nseed: 3\nscale: smoke\nbudget: 2\n",
    ],
)
def test_the_schema_accepts_dials_and_partial_overrides(text: str) -> None:
    VALIDATOR.validate(parse_yaml(text, "recipe.yaml").plain())


@pytest.mark.parametrize("name", ["quickstart", "quickstart-short"])
def test_quickstart_has_all_eight_stages_in_order(name: str) -> None:
    recipe = load_recipe(name)
    kinds = ["sft", "if_rl", "multi_domain_rl", "mopd", "rlhf", "long_context_rl", "code_rl", "swe_rl"]
    assert [stage.kind for stage in recipe.stages] == kinds
    assert len({benchmark.source.environment for benchmark in recipe.benchmarks}) == 9


def test_cascade_2_has_the_numbers_of_its_paper() -> None:
    stages = {stage.name: stage for stage in load_recipe("nemotron-cascade-2").stages}
    assert stages["rlhf_teacher"].side_branch
    assert stages["rlhf_teacher"].parent == "sft"
    multi_domain, mopd = stages["multi_domain_rl"], stages["mopd"]
    assert isinstance(multi_domain, RLStage)
    assert [mix.weight for mix in multi_domain.data] == [0.55, 0.30, 0.15]
    assert isinstance(mopd, MOPDStage)
    assert (mopd.prompts_per_step, mopd.rollouts_per_prompt, mopd.steps) == (128, 4, 52)
    assert (mopd.optimizer.learning_rate, mopd.optimizer.warmup_start) == (2e-6, 2e-7)
    assert (mopd.importance.low, mopd.importance.high) == (0.5, 2.0)
    assert mopd.teachers["math"] == "sft"
    assert mopd.teachers["chat"] == "rlhf_teacher"
    agentic = stages["swe_agentic_rl"]
    assert isinstance(agentic, RLStage)
    assert (agentic.prompts_per_step, agentic.rollouts_per_prompt, agentic.sampling.temperature) == (
        16,
        64,
        0.8,
    )
    limits = agentic.sampling.conversation
    assert (limits.max_turns, limits.max_tokens, agentic.optimizer.warmup_steps) == (200, 262_144, 10)


def test_specialists_are_trained_beside_each_other_and_teach_twice() -> None:
    recipe = load_recipe("specialists")
    kinds = [stage.kind for stage in recipe.stages]
    specialists = ["if_rl", "multi_domain_rl", "rlhf", "long_context_rl", "code_rl", "swe_rl"]
    assert kinds == ["sft", *specialists, "mopd", *specialists, "mopd"]
    for stage in recipe.stages:
        starts = "sft" if stage.name.endswith("_1") else "mopd_1"
        if stage.side_branch or stage.kind == "mopd":
            assert parent_of(recipe, stage.name) == starts
        if isinstance(stage, MOPDStage):
            taught = {name for name in stage.teachers.values() if name != "sft"}
            own = {one.name for one in recipe.stages if one.side_branch and one.name[-2:] == stage.name[-2:]}
            assert taught == own and len(own) == 6


@pytest.mark.parametrize("name", preset_names())
def test_every_scale_of_a_preset_applies(name: str) -> None:
    declared = parse_yaml((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"), name).mapping.get("scales")
    for scale in declared.mapping if declared else []:
        assert load_recipe(name, scale=scale) != load_recipe(name)
