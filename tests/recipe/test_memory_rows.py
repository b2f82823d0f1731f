"""What the memory's rows hold: the draft head, vLLM's share of a device, and an adapter as the model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from recipes_for_tests import SMALL, write_recipe
from rich.console import Console

from kascade.commands.memory import show_memory
from kascade.recipe.fits import MemoryPlan, fits, memory_problems, parts_of, plan_memory
from kascade.recipe.groups import BENCHMARKS, planned_groups
from kascade.recipe.load import load_recipe, read_recipe
from kascade.recipe.memory import total_of
from kascade.recipe.model_config import config_of, model_shape_of
from kascade.recipe.plan import make_plan
from kascade.recipe.plan_short import fits_how
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import Manifest, publish

LARGE = ("nemotron-cascade-2", "nemotron-3-multi-env", "nemotron-cascade-1-14b")
SMALLER = ("specialists", "quickstart", "quickstart-short", "sft-dpo")
EVERY = [(preset, scale) for preset in (*LARGE, *SMALLER) for scale in (None, *read_recipe(preset).scales)]
CARD = "hardware={device: h100-80gb}"
QWEN = SMALL.replace('"builtin://mini-nemotron-h"', "Qwen/Qwen3-14B-Base")


def recipe_of(tmp_path: Path, *settings: str, text: str = QWEN) -> Recipe:
    return load_recipe(write_recipe(tmp_path, text), settings)


def planned(recipe: Recipe) -> MemoryPlan:
    memory = plan_memory(recipe)
    assert memory is not None
    return memory


def printed(memory: MemoryPlan) -> list[list[str]]:
    """The cells of the table that people see, a list for each row."""
    out = Console(width=400, file=io.StringIO())
    show_memory(out, memory)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]


@pytest.mark.parametrize(("preset", "scale"), EVERY)
def test_the_table_shows_the_numbers_of_json_and_parts_make_the_total(preset: str, scale: str | None) -> None:
    recipe = load_recipe(preset, [] if preset in LARGE else [CARD], scale=scale)
    memory = planned(recipe)
    again = json.loads(json.dumps(make_plan(recipe).model_dump(mode="json")))["memory"]
    assert MemoryPlan.model_validate(again) == memory
    rows = printed(memory)
    assert len(rows) <= len(memory.groups)
    for group in memory.groups:
        for level in ("low", "expected", "high"):
            total = getattr(group.total, level)
            parts = sum(getattr(part, level) for part in group.parts.values())
            assert parts == pytest.approx(total, abs=1e-3 * len(group.parts)), (
                group.stage,
                group.role,
                level,
            )
        amounts = [f"{amount:.1f}" for amount in (group.total.low, group.total.expected, group.total.high)]
        said = [str(group.processes), *amounts, fits_how(group, memory)]
        assert any(row[2:7] == said for row in rows), (group.stage, group.role, said)


HEAD = {"num_nextn_predict_layers": 1, "mtp_layers_block_type": ["full_attention", "moe"]}


def with_head(tmp_path: Path) -> str:
    folder = tmp_path / "drafting"
    folder.mkdir(exist_ok=True)
    config = dict(config_of("builtin://mini-nemotron-h") or {}) | HEAD
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def test_a_draft_head_is_counted_wherever_the_model_is_held(tmp_path: Path) -> None:
    drafting, plain = (
        recipe_of(tmp_path, CARD, "if_rl.mtp={depth: 2}", "guard.recovery.rounds=0", f"model.source={source}")
        for source in (with_head(tmp_path), "builtin://mini-nemotron-h")
    )
    shapes = [model_shape_of(one.model.source) for one in (drafting, plain)]
    assert shapes[0] is not None and shapes[1] is not None
    more = {}
    for with_it, without in zip(planned_groups(drafting), planned_groups(plain), strict=True):
        most, least = total_of(parts_of(shapes[0], with_it)), total_of(parts_of(shapes[1], without))
        more[with_it.name, with_it.role] = (most.expected - least.expected) / shapes[0].draft_size
    layouts = {(one.name, one.role): one.layout for one in planned_groups(drafting)}
    assert (layouts["if_rl", "train"].drafts, layouts["sft", "train"].drafts) == (2, 0)
    assert more["sft", "train"] == pytest.approx(2, rel=0.05), "frozen, in bfloat16"
    assert more["if_rl", "train"] > 18, "with masters, moments, gradients and what its tokens keep"
    assert more["mopd", "train"] == pytest.approx(2 * 3, rel=0.05), "two teachers have one, too"
    assert more[BENCHMARKS, "examine"] == pytest.approx(2, rel=0.05)


def test_a_share_that_vllm_cannot_start_with_is_refused_with_the_least_that_it_needs(tmp_path: Path) -> None:
    short = [f"benchmarks.{name}.sampling.max_new_tokens=4096" for name in ("knowledge", "chat")]
    short += [f"{name}.sampling.max_new_tokens=4096" for name in ("if_rl", "chat_teacher", "mopd")]
    engine = ["model.rollout.engine=vllm", CARD, *short]
    share = "model.rollout.vllm.gpu_memory_utilization"
    (low,) = (
        one for one in memory_problems(recipe_of(tmp_path, *engine, f"{share}=0.2")) if one.path[0] == "model"
    )
    assert low.path[-1] == "gpu_memory_utilization"
    assert "0.2 of a device are 16 GiB, and vLLM's weights with one row" in low.what
    least = float(str(low.allowed).removeprefix("at least "))
    weights = 2 * 14.7683072e9 / 2**30
    assert weights / 79.6 < least < weights / 79.6 + 0.05
    enough = recipe_of(tmp_path, *engine, f"{share}={least}")
    assert not [one for one in memory_problems(enough) if one.path[0] == "model"]
    cut = recipe_of(tmp_path, *engine, f"{share}=0.2", "model.rollout.vllm.tensor_parallel_size=2")
    assert not [one for one in memory_problems(cut) if one.path[0] == "model"]


def test_vllm_takes_its_share_of_a_device_whether_it_needs_it_or_not(tmp_path: Path) -> None:
    engine = ("model.rollout.engine=vllm", CARD, "benchmarks.knowledge.sampling.max_new_tokens=9")
    for share in (0.5, 0.6):
        recipe = recipe_of(tmp_path, *engine, f"model.rollout.vllm.gpu_memory_utilization={share}")
        (row,) = (one for one in planned(recipe).groups if one.role == "examine")
        taken = row.parts["sampler"].expected + row.parts["rollouts"].expected
        assert taken == pytest.approx(share * 79.6, abs=0.01)
    full = recipe_of(tmp_path, *engine, "model.rollout.vllm.gpu_memory_utilization=0.9")
    assert not fits(full, BENCHMARKS)
    named = [str(one.remedy) for one in memory_problems(full) if one.path == ("benchmarks",)]
    assert "gpu_memory_utilization: 0." in named[0]


def test_a_config_that_cannot_be_read_is_a_model_of_unknown_shape(tmp_path: Path) -> None:
    config = dict(config_of("builtin://mini-nemotron-h") or {})
    lacking = json.dumps({name: value for name, value in config.items() if name != "hidden_size"})
    for text in ("{", "[]", lacking, json.dumps({**config, "n_groups": "many"}), "\xff"):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        memory = planned(recipe_of(tmp_path, CARD, f"model.source={tmp_path}"))
        assert memory.groups == () and "is not known here" in str(memory.not_counted)


def test_an_adapter_as_the_model_is_counted_as_its_base(tmp_path: Path) -> None:
    """There, or beside its stage in a run that was moved; a base that is nowhere is not guessed."""
    run = tmp_path / "run" / "checkpoints"
    staged = {name: tmp_path / f"staged-{name}" for name in ("base", "sft")}
    for name, folder in staged.items():
        folder.mkdir()
        config = config_of("builtin://mini-nemotron-h") if name == "base" else {"r": 4}
        (folder / ("config.json" if name == "base" else "adapter_config.json")).write_text(json.dumps(config))
        (run / name).mkdir(parents=True)
    base = publish(staged["base"], run / "base" / "train-1", manifest("base", None))
    publish(staged["sft"], run / "sft" / "train-2", manifest("sft", str(base)))
    adapter = run / "sft" / "train-2"
    size = model_shape_of("builtin://mini-nemotron-h").size  # type: ignore[union-attr]
    assert planned(recipe_of(tmp_path, CARD, f"model.source={adapter}")).parameters == size
    moved = tmp_path / "moved"
    (tmp_path / "run").rename(moved)
    assert model_shape_of(str(moved / "checkpoints" / "sft" / "train-2")) is not None
    (moved / "checkpoints" / "base").rename(tmp_path / "elsewhere")
    assert model_shape_of(str(moved / "checkpoints" / "sft" / "train-2")) is None


def manifest(stage: str, base: str | None) -> Manifest:
    return Manifest(
        id=f"{stage}/train-1", stage=stage, attempt="train", key="1", parent=None, teachers={}, base=base,
        fingerprint="f", code_version="0", created="2026-01-01T00:00:00+00:00", files={},
    )  # fmt: skip
