"""A recipe that cannot fit its hardware is refused, with the cheapest changes that would make it fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recipes_for_tests import SMALL, write_recipe

from kascade.environment_names import CONVERSATIONS
from kascade.environments import get_environment
from kascade.errors import UserError
from kascade.recipe.fits import memory_problems, model_shape, plan_memory
from kascade.recipe.groups import Planned, planned_groups
from kascade.recipe.hardware import DEVICES, GIB
from kascade.recipe.identity import find_stage, fingerprint, stage_key
from kascade.recipe.layout import Layout
from kascade.recipe.load import load_recipe
from kascade.recipe.memory import memory_of, total_of
from kascade.recipe.model_config import config_of
from kascade.recipe.plan import make_plan
from kascade.recipe.recovering import recovery_shape, recovery_workers
from kascade.recipe.schema import Recipe
from kascade.recipe.shapes import ModelShape, shape_of

NANO, QWEN = "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-Base-BF16", "Qwen/Qwen3-14B-Base"


def recipe_of(tmp_path: Path, *settings: str, model: str = QWEN) -> Recipe:
    text = SMALL.replace('"builtin://mini-nemotron-h"', model)
    return load_recipe(write_recipe(tmp_path, text), settings)


def shape(hub: str) -> ModelShape:
    found = shape_of(config_of(hub) or {})
    assert found is not None
    return found


def expected(hub: str, **layout: Any) -> float:
    return total_of(memory_of(shape(hub), Layout(**layout))).expected


def test_a_recipe_without_hardware_counts_no_memory(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    assert make_plan(recipe).memory is None
    assert list(memory_problems(recipe)) == []


def test_every_group_of_processes_has_a_row_with_its_parts(tmp_path: Path) -> None:
    workers = "if_rl.workers={trainers: 4, samplers: 2}"
    memory = plan_memory(recipe_of(tmp_path, "hardware={device: h100-80gb, nodes: 2}", workers))
    assert memory is not None
    assert memory.devices == 16
    assert memory.parameters == 14_768_307_200
    rows = {(group.stage, group.role): group for group in memory.groups}
    assert rows["if_rl", "train"].processes == 4
    assert rows["if_rl", "sample"].processes == 2
    assert rows["sft", "train"].processes == 1
    training = rows["if_rl", "train"]
    assert training.parts["masters"].expected == pytest.approx(14.7683072e9 * 4 / 4 / GIB, rel=1e-3)
    assert training.parts["optimizer"].expected == pytest.approx(14.7683072e9 * 8 / 4 / GIB, rel=1e-3)
    parts = sum(part.expected for part in training.parts.values())
    assert training.total.expected == pytest.approx(parts, abs=0.01)
    assert training.total.low <= training.total.expected <= training.total.high
    assert rows["mopd", "train"].parts["teachers"].expected > 0


def test_what_does_not_fit_is_refused_with_its_place_and_changes_that_make_it_fit(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "hardware={device: a100-80gb, nodes: 2}", "sft.max_tokens=4096")
    found = list(memory_problems(recipe))
    first = found[0]
    assert first.path == ("stages", 0)
    assert "GiB on each of 1 device" in first.what
    assert "a100-80gb has 80" in first.what
    assert "cheapest first: " in str(first.remedy)
    assert str(first.remedy).count("; or ") == 2
    named = [one.path for one in found]
    assert len(named) == len(set(named)), "a stage that cannot train is not refused for its recovery, too"


def test_more_devices_than_there_are_cannot_be_asked_for(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "hardware={device: h200-141gb, per_node: 4}", "if_rl.workers={trainers: 8}")
    found = [problem.what for problem in memory_problems(recipe)]
    assert any("needs 9 devices, and the hardware has 4" in what for what in found)


def test_an_unknown_device_is_named_with_the_nearest_and_an_own_one_brings_its_memory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'h100-80gb'") as caught:
        recipe_of(tmp_path, "hardware.device=h100-80g")
    assert "h200-141gb" in str(caught.value.faults[0].allowed)
    own = recipe_of(tmp_path, "hardware={device: my-card, memory_gib: 96}")
    assert own.hardware is not None
    assert own.hardware.memory_bytes == 96 * GIB


def test_hardware_is_no_part_of_what_determines_a_result(tmp_path: Path) -> None:
    plain, named = recipe_of(tmp_path), recipe_of(tmp_path, "hardware.device=h100-80gb")
    for stage in (None, "sft", "mopd"):
        assert fingerprint(plain, stage) == fingerprint(named, stage)


def test_a_model_of_unknown_shape_is_said_to_be_so(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "hardware.device=h100-80gb", model="somebody/something")
    memory = plan_memory(recipe)
    assert memory is not None
    assert memory.groups == ()
    assert "somebody/something is not known" in str(memory.not_counted)
    assert model_shape(recipe) is None


def test_the_formula_orders_layouts_as_it_must() -> None:
    for hub in (NANO, QWEN):
        whole = expected(hub, tokens=16384)
        kept = expected(hub, tokens=16384, shard=8)
        again = expected(hub, tokens=16384, shard=8, activations="recompute")
        offloaded = expected(hub, tokens=16384, shard=8, activations="offload")
        assert offloaded < again < kept < whole
        few: dict[str, Any] = {"tokens": 16384, "shard": 8, "activations": "recompute"}
        adapted = expected(hub, **few, adapter=(32, None))
        assert adapted < again
        taught = expected(hub, **few, adapter=(32, None), adapter_teachers=3)
        copy = shape(hub).size * 2 / 8
        assert taught - adapted < copy, "three teachers over one base cost less than one of their own"
        own = expected(hub, **few, whole_teachers=1)
        assert own - again == pytest.approx(copy, rel=0.01)


def test_a_recovery_is_counted_with_its_teachers_and_the_longest_answers(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "hardware.device=h100-80gb")
    groups = {(one.name, one.role): one.layout for one in planned_groups(recipe)}
    recovery = groups["sft", "recover"]
    assert recovery.whole_teachers == 2
    assert recovery.tokens == max(benchmark.sampling.max_new_tokens for benchmark in recipe.benchmarks)
    adapted = recipe_of(tmp_path, "hardware.device=h100-80gb", "adapter.rank=8")  # the base is there
    groups = {(one.name, one.role): one.layout for one in planned_groups(adapted)}
    assert (groups["sft", "recover"].whole_teachers, groups["sft", "recover"].adapter_teachers) == (0, 1)
    assert (groups["mopd", "train"].whole_teachers, groups["mopd", "train"].adapter_teachers) == (0, 2)


def test_a_recovery_of_what_a_job_trains_needs_actors_and_has_those_that_are_named(tmp_path: Path) -> None:
    job = 'cluster.stages.sft={nodes: 2, accelerators: 4, cpu: "16"}'
    with pytest.raises(UserError) as caught:
        recipe_of(tmp_path, job)
    (fault,) = caught.value.faults
    assert fault.where.endswith("guard.recovery.workers")
    assert "{trainers: 4, samplers: 4, gpus: 1}" in str(fault.remedy), (
        "the default's cpu and own accelerators"
    )
    recipe_of(tmp_path, job, "guard.recovery.rounds=0")
    with pytest.raises(UserError, match="do not fit on 2 x"):
        recipe_of(tmp_path, job, "guard.recovery.workers={trainers: 8, samplers: 4, gpus: 1}")
    recipe = recipe_of(tmp_path, job, "guard.recovery.workers={trainers: 4, samplers: 4, gpus: 1}")
    sft, rl = find_stage(recipe, "sft"), find_stage(recipe, "if_rl")
    assert (recovery_workers(recipe, sft).trainers, recovery_workers(recipe, rl).trainers) == (4, 1)
    assert (recovery_shape(recipe, sft), recovery_shape(recipe, rl)) == ("rayjob", "inline")
    plain = recipe_of(tmp_path)
    more = recipe_of(tmp_path, "guard.recovery.workers={trainers: 2}")
    keys = [stage_key(one, "sft", "recover-1", "0" * 64) for one in (plain, recipe, more)]
    assert len(set(keys)) == 3, "who samples is a part of a result, as in a stage"
    cpus = recipe_of(tmp_path, "guard.recovery.workers={trainers: 2, cpus: 3}")
    assert stage_key(cpus, "sft", "recover-1", "0" * 64) == keys[2]


def test_devices_are_in_order_of_their_names_numbers() -> None:
    for name, device in DEVICES.items():
        number = float(name.rpartition("-")[2].removesuffix("gb"))
        assert 0.9 * number <= device.memory_gib <= number


def test_precision_and_trunk_change_what_is_counted() -> None:
    half, full = Layout(tokens=1024), Layout(tokens=1024, precision="fp32", device="cpu")
    parts = memory_of(shape(QWEN), half)
    assert parts["weights"].expected * 2 == parts["masters"].expected
    assert "masters" not in memory_of(shape(QWEN), full)
    plain = total_of(memory_of(shape(QWEN), replace(half, trunk=False))).expected
    assert plain != total_of(memory_of(shape(QWEN), half)).expected


@pytest.mark.parametrize("scale", [None, "node"])
@pytest.mark.parametrize("preset", ["nemotron-cascade-2", "nemotron-3-multi-env", "nemotron-cascade-1-14b"])
def test_every_large_preset_fits_the_hardware_that_it_names(preset: str, scale: str | None) -> None:
    recipe = load_recipe(preset, scale=scale)
    assert [problem.what for problem in memory_problems(recipe)] == []
    memory = plan_memory(recipe)
    assert memory is not None
    roles = {group.role for group in memory.groups}
    assert {"train", "sample", "recover", "examine"} <= roles <= {*roles, "redraw"}
    assert recipe.hardware is not None
    if scale == "node":
        assert recipe.hardware.nodes == 1
        assert recipe.adapter is not None


def test_teachers_in_the_hosts_memory_make_room(tmp_path: Path) -> None:
    there, resting = (
        expected(QWEN, whole_teachers=3, teachers_rest=rests, shard=8) for rests in (False, True)
    )
    assert there - resting == pytest.approx(3 * 2 * shape(QWEN).size / 8, rel=1e-3)
    taught = expected(QWEN, whole_teachers=3, teachers_rest=True, shard=8, full_vocabulary=True)
    head = shape(QWEN).vocabulary * shape(QWEN).hidden
    assert taught - resting >= 3 * 2 * head, "whole heads, as logits of all tokens need"
    host = "mopd.frozen_weights=host"
    layouts = {one.name: one.layout for one in planned_groups(recipe_of(tmp_path, host))}
    assert layouts["mopd"].teachers_rest and not layouts["if_rl"].teachers_rest
    with pytest.raises(UserError, match="fp8 layers keep their weights on the device"):
        recipe_of(tmp_path, host, "model.precision=fp8")


def test_a_torchrun_in_the_steps_own_pod_is_counted_as_its_processes(tmp_path: Path) -> None:
    """Eight accelerators train SFT with eight processes: a model that needs them is not refused."""
    pod = "cluster.stages.sft={accelerators: 8}"
    memory = plan_memory(recipe_of(tmp_path, "hardware={device: h100-80gb, per_node: 8}", pod))
    assert memory is not None
    rows = {(group.stage, group.role): group for group in memory.groups}
    assert rows["sft", "train"].processes == 8
    whole = 14.7683072e9 * 4 / GIB
    assert rows["sft", "train"].parts["masters"].expected == pytest.approx(whole / 8, rel=1e-3)


def test_a_recovery_is_counted_on_the_processes_that_recover(tmp_path: Path) -> None:
    """Not on those that trained: eight processes of SFT are followed by one that distils, or by actors."""
    pod = "cluster.stages.sft={accelerators: 8}"
    actors = "guard.recovery.workers={trainers: 4, samplers: 4, gpus: 1}"
    for settings, trainers in ((), 1), ((actors,), 4):
        memory = plan_memory(recipe_of(tmp_path, "hardware={device: h100-80gb}", pod, *settings))
        assert memory is not None
        (row,) = (group for group in memory.groups if (group.stage, group.role) == ("sft", "recover"))
        assert row.processes == trainers
        assert row.parts["masters"].expected == pytest.approx(14.7683072e9 * 4 / trainers / GIB, rel=1e-3)


def groups(tmp_path: Path, *settings: str) -> dict[tuple[str, str], Planned]:
    found = planned_groups(recipe_of(tmp_path, "hardware={device: h200-141gb, nodes: 4}", *settings))
    return {(one.name, one.role): one for one in found}


def test_every_model_that_a_run_holds_is_counted(tmp_path: Path) -> None:
    """What the code of the stages loads: references, judges, copies of engines; and who samples."""
    plain = groups(tmp_path)
    assert plain["benchmarks", "examine"].layout.samples is not None
    assert plain["if_rl", "train"].layout.whole_teachers == 0
    near = groups(tmp_path, "if_rl.grpo.kl_coefficient=0.1")
    assert near["if_rl", "train"].layout.whole_teachers == 1
    driven = groups(tmp_path, "if_rl.workers={trainers: 4, gpus: 1}")
    assert driven["if_rl", "sample"].processes == 1 and driven["if_rl", "train"].devices == 5
    served = "model.rollout={engine: vllm, vllm: {served: {url: 'http://v:1'}}}"
    assert ("if_rl", "sample") not in groups(tmp_path, served, "if_rl.workers={trainers: 4, gpus: 1}")
    inside = groups(tmp_path, "model.rollout.engine=vllm")["if_rl", "train"].layout
    parts = memory_of(shape(QWEN), inside)
    assert parts["sampler"].expected == shape(QWEN).size * 2, "vLLM in the process holds a copy of its own"
    judged = groups(tmp_path, "judge={model: Qwen/Qwen3-14B-Base}")
    assert judged["if_rl", "train"].layout.beside == judged["benchmarks", "examine"].layout.beside > 0
    merged = groups(tmp_path, "adapter={rank: 8, at_end: merge}")["mopd", "train"].layout
    assert (merged.whole_teachers, merged.adapter_teachers) == (1, 0), "if_rl's result is the policy's base"
    kept = groups(tmp_path, "adapter.rank=8")["mopd", "train"].layout
    assert (kept.whole_teachers, kept.adapter_teachers) == (0, 2)


def test_a_reward_model_and_dpo_hold_what_they_load() -> None:
    judge = ("rlhf.judge.kind=reward_model", "hardware.device=h200-141gb", "hardware.per_node=8")
    for adapter, whole, hung in ((None, 2, 0), ("adapter.rank=8", 0, 2)):
        recipe = load_recipe("quickstart", [*judge, *([adapter] if adapter else [])])
        found = {(one.name, one.role): one.layout for one in planned_groups(recipe)}
        rlhf = found["rlhf", "train"]
        assert (rlhf.whole_teachers, rlhf.adapter_teachers) == (whole, hung), (
            "the start, and the reward model"
        )
        assert found["rlhf", "judge"].shard == 1
    dpo = load_recipe("sft-dpo", ["hardware.device=h200-141gb"])
    layouts = {(one.name, one.role): one.layout for one in planned_groups(dpo)}
    (stage,) = (one for one in dpo.stages if one.kind == "dpo")
    assert layouts[stage.name, "train"].whole_teachers == 1


def test_a_row_of_a_conversation_is_all_of_it(tmp_path: Path) -> None:
    talk = "if_rl.data=[{source: {environment: workplace_dialogues}}]"
    short, long = (groups(tmp_path, *more)["if_rl", "train"].layout.tokens for more in ((), (talk,)))
    assert long == 262_144 > short


def test_environments_that_converse_are_those_whose_every_task_does() -> None:
    for name in CONVERSATIONS:
        assert get_environment(name).start.__qualname__ != "Environment.start", name
