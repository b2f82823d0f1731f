"""A field that is set and changes nothing is told before the run, and told only then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kascade.doctor.effects import alone, fewer_tasks
from kascade.doctor.subject import Subject
from kascade.doctor.unused import unused
from kascade.recipe.load import preset_names, read_recipe

SFT = {"kind": "sft", "name": "sft", "steps": 9, "data": [{"source": {"environment": "mcqa"}}]}
RL = {**SFT, "kind": "if_rl", "name": "rl"}
EXAM = {"name": "quiz", "source": {"environment": "mcqa"}, "tasks": 40}
RECIPE = {
    "kascade": 1,
    "name": "own",
    "model": {"source": "builtin://mini-nemotron-h"},
    "stages": [SFT, RL],
    "benchmarks": [EXAM],
}
LM_EVAL = {"name": "quiz", "source": {"environment": "lm_eval", "options": {"task": "arc_easy"}}}
JUDGE = {"model": "builtin://mini-nemotron-h"}
HIGH = {"rule": "tis", "low": 0.5, "high": 2}

Change = dict[str, Any]
# what is set, the field that does nothing, and what more makes it do something
CASES: list[tuple[Change, str, Change]] = [
    ({"stages.1.optimizer.warmup_start": 1e-7}, "", {"stages.1.optimizer.warmup_steps": 3}),
    ({"stages.0.optimizer.warmup_start": 1e-7}, "", {"stages.0.optimizer.warmup_steps": 3}),
    (
        {"guard.recovery.optimizer": {"warmup_steps": 0, "warmup_start": 1e-7}},
        "guard.recovery.optimizer.warmup_start",
        {"guard.recovery.optimizer.warmup_steps": 3},
    ),
    ({"stages.1.workers.correction": HIGH}, "", {"stages.1.workers": {"samplers": 1, "asynchronous": True}}),
    ({"stages.1.workers.gpus": 1}, "", {"stages.1.workers.samplers": 2}),
    ({"guard.recovery.workers.max_losses": 1}, "", {"guard.recovery.workers.samplers": 2}),
    ({"stages.1.data.0.source.system": "Be brief."}, "", {"stages.1.data.0.source.path": "rows.jsonl"}),
    ({"stages.1.data.0.source.hold_out": False}, "", {"stages.1.data.0.source.path": "rows.jsonl"}),
    (
        {"stages.1.data.0.source": {"environment": "mcqa", "path": "r.jsonl", "count": 9}},
        "stages.1.data.0.source.count",
        {"stages.1.data.0.source.path": None},
    ),
    (
        {"stages.1.data.0.source": {"environment": "mcqa", "path": "r.jsonl", "subset": "a"}},
        "stages.1.data.0.source.subset",
        {"stages.1.data.0.source.path": "hf://a/b"},
    ),
    (
        {"stages.1.data.0.source": {"environment": "mcqa", "path": "r.jsonl", "max_bad_rows": 1}},
        "stages.1.data.0.source.max_bad_rows",
        {"stages.1.data.0.source.on_bad_row": "skip"},
    ),
    ({"benchmarks.0.source.count": 9}, "", {"benchmarks.0.source.count": 2000}),
    ({"benchmarks.0": LM_EVAL, "benchmarks.0.samples": 4}, "benchmarks.0.samples", {}),
    (
        {"benchmarks.0": {**LM_EVAL, "sampling": {"temperature": 0.5}}},
        "benchmarks.0.sampling.temperature",
        {"benchmarks.0.source.options.sampled": True},
    ),
    ({"model.low_precision.high_precision_layers": 0.5}, "", {"model.precision": "fp8"}),
    (
        {"model.precision": "nvfp4", "model.low_precision.fp8_scaling": "mxfp8"},
        "model.low_precision.fp8_scaling",
        {"model.precision": "fp8"},
    ),
    ({"model.rollout.vllm.gpu_memory_utilization": 0.8}, "", {"model.rollout.engine": "vllm"}),
    ({"model.rollout.vllm.canary.tokens": 64}, "model.rollout.vllm.canary", {"model.rollout.engine": "vllm"}),
    (
        {"model.rollout": {"max_batch_rows": 8, "engine": "vllm"}},
        "model.rollout.max_batch_rows",
        {"model.rollout.engine": "native"},
    ),
    ({"guard.recovery.rounds": 0, "guard.recovery.keep_weight": 2.0}, "guard.recovery.keep_weight", {}),
    ({"guard.unrecovered": "stop", "guard.let_pass_budget": 0.5}, "guard.let_pass_budget", {}),
    ({"guard.side_branches": "all"}, "", {}),
    ({"guard.within_margin": 0.02, "guard.within_share": 0.0}, "guard.within_margin", {}),
    ({"judge": {**JUDGE, "attempts": 9}}, "judge.attempts", {"judge.url": "http://host/v1"}),
    ({"judge": {**JUDGE, "cache": False}}, "judge.cache", {"judge.url": "http://host/v1"}),
    ({"approval.timeout": "3d"}, "", {"approval.before": ["rl"]}),
    (
        {"approval": {"before": ["rl"], "on_timeout": "approve"}},
        "approval.on_timeout",
        {"approval.timeout": "3d"},
    ),
    ({"approval.before": ["promotion"]}, "approval.before.0", {"tracking.promote_as": "champion"}),
    ({"prices.currency": "EUR"}, "", {"prices.cpu_hour": 1.0}),
    (
        {"cluster.default.queue": "own"},
        "",
        {"cluster.stages.sft.runs_as": "trainjob", "guard.recovery.rounds": 0},
    ),
]


def written(changes: Change, folder: Path) -> Subject:
    def put(value: Any, keys: list[str], new: Any) -> Any:
        if not keys:
            return new
        if isinstance(value, list):
            place = int(keys[0])
            return [*value[:place], put(value[place], keys[1:], new), *value[place + 1 :]]
        return {**(value or {}), keys[0]: put((value or {}).get(keys[0]), keys[1:], new)}

    recipe: Any = RECIPE
    for path, new in changes.items():
        recipe = put(recipe, path.split("."), new)
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(recipe))
    loaded = read_recipe(file)
    return Subject(loaded.recipe)


def fields(subject: Subject) -> list[str]:
    return [fault.where for fault in unused(subject)]


@pytest.mark.parametrize(("changes", "field", "more"), CASES, ids=[next(iter(one[0])) for one in CASES])
def test_a_field_without_effect_is_told(changes: Change, field: str, more: Change, tmp_path: Path) -> None:
    assert fields(written({}, tmp_path)) == []
    named = field or next(iter(changes))
    assert named in fields(written(changes, tmp_path))
    if more:
        assert named not in fields(written({**changes, **more}, tmp_path))


def test_no_recipe_that_ships_has_one_at_any_scale() -> None:
    for name in preset_names():
        for scale in (None, *read_recipe(name).scales):
            subject = Subject(read_recipe(name, None, {"scale": scale}).recipe)
            assert (fields(subject), alone(subject)) == ([], []), (name, scale)


def test_a_part_keeps_the_defaults_that_its_owner_gives_it(tmp_path: Path) -> None:
    """One field of a recovery's optimiser took its warm-up away, and one of the light pods doubled them."""
    changes = {"guard.recovery.optimizer.learning_rate": 1e-5, "cluster.light.timeout_s": 60}
    dpo = {"kind": "dpo", "name": "dpo", "steps": 9, "optimizer": {"weight_decay": 0.2}, "data": SFT["data"]}
    recipe = written({**changes, "stages.1": dpo}, tmp_path).recipe
    optimizer, light = recipe.guard.recovery.optimizer, recipe.cluster.light
    assert (optimizer.learning_rate, optimizer.warmup_steps, optimizer.warmup_start) == (1e-5, 30, 2e-7)
    assert (light.cpu, light.memory, light.timeout_s) == ("1", "4Gi", 60)
    assert (recipe.stages[1].optimizer.learning_rate, recipe.stages[1].optimizer.weight_decay) == (5e-7, 0.2)


def test_one_process_that_recovers_what_several_train_is_told(tmp_path: Path) -> None:
    changes = {"cluster.stages.sft.accelerators": 8}
    (warning,) = alone(written(changes, tmp_path))
    assert warning.where == "stages.0" and "8 processes train 'sft', and one recovers it" in warning.what
    assert "{trainers: 4, samplers: 4, gpus: 1}" in str(warning.remedy)
    workers = {"trainers": 4, "samplers": 4, "gpus": 1}
    assert alone(written({**changes, "guard.recovery.workers": workers}, tmp_path)) == []
    assert alone(written({**changes, "guard.recovery.rounds": 0}, tmp_path)) == []


def test_a_benchmark_says_why_it_asks_fewer_tasks_than_its_file_has_rows(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    asked_of = {"options": [{"A": "a"}, {"B": "b"}], "expected_answer": "A"}
    lines = [json.dumps({"prompt": f"Which letter is first, round {n}?", **asked_of}) for n in range(60)]
    rows.write_text("\n".join(lines))
    source = {"environment": "mcqa", "path": str(rows)}
    subject = written({"benchmarks.0.source": source}, tmp_path)
    asked = len(subject.exams["quiz"])
    (warning,) = fewer_tasks(subject)
    assert asked < 15 and f"asks {asked} tasks, not 40" in warning.what
    assert "Its 60 different rows are split by hash" in warning.what
    assert "hold_out: false" in str(warning.remedy)
    whole = written({"benchmarks.0.source": {**source, "hold_out": False}}, tmp_path)
    assert len(whole.exams["quiz"]) == 40 and fewer_tasks(whole) == []
    (warning,) = fewer_tasks(
        written({"benchmarks.0.source": {**source, "hold_out": False}, "benchmarks.0.tasks": 99}, tmp_path)
    )
    assert warning.what.endswith("has no more")
