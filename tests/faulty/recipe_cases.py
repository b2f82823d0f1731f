"""Faulty recipes of every kind, and what the message about each must name.

Most are one sound recipe with one value changed, added or taken out, by its dotted path: the message must
name that path and the line of the file.
"""

# ruff: noqa: E501 (a case is one line)

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ABSENT = object()
REMEDY = ("to do:", "allowed:")  # every message holds one of them
SOUND: dict[str, Any] = {
    "kascade": 1,
    "name": "small",
    "model": {"source": "builtin://mini-nemotron-h"},
    "stages": [
        {"kind": "sft", "name": "sft", "steps": 10, "data": [{"source": {"environment": "mcqa"}}]},
        {
            "kind": "rlhf",
            "name": "chat_teacher",
            "parent": "sft",
            "side_branch": True,
            "steps": 5,
            "data": [{"source": {"environment": "genrm_compare"}}],
        },
        {
            "kind": "if_rl",
            "name": "if_rl",
            "steps": 10,
            "data": [{"source": {"environment": "instruction_following"}}],
        },
        {
            "kind": "mopd",
            "name": "mopd",
            "steps": 10,
            "teachers": {"chat": "chat_teacher", "instruction_following": "if_rl"},
            "data": [{"source": {"environment": "genrm_compare"}}],
        },
        {
            "kind": "dpo",
            "name": "dpo",
            "steps": 3,
            "data": [{"source": {"environment": "demonstrations", "path": "pairs.jsonl"}}],
        },
    ],
    "benchmarks": [
        {"name": "knowledge", "source": {"environment": "mcqa"}, "tasks": 20},
        {"name": "chat", "source": {"environment": "genrm_compare"}, "tasks": 20},
    ],
}


@dataclass(frozen=True)
class Case:
    """source: what is read, in an empty folder in which `write` makes the file. said: in the message."""

    name: str
    write: Callable[[Path], None]
    said: tuple[str, ...]
    file: str = "recipe.yaml"
    source: str = "recipe.yaml"
    overrides: tuple[str, ...] = ()


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The sound recipe with the values at these paths."""
    recipe: dict[str, Any] = deepcopy(SOUND)
    for path, value in changes:
        *above, last = path.split(".")
        part: Any = recipe
        for step in above:
            part = part[int(step)] if isinstance(part, list) else part.setdefault(step, {})
        if isinstance(part, list):
            part[int(last)] = value
        elif value is ABSENT:
            del part[last]
        else:
            part[last] = value
    return recipe


def _dumped(recipe: Any) -> Callable[[Path], None]:
    text = json.dumps(recipe, indent=1)  # which is YAML, too, with a line for each value
    return lambda path: _keep(path, text.encode("utf-8", "surrogatepass"))


def _keep(path: Path, data: bytes) -> None:
    path.write_bytes(data)


SFT, RLHF, RL, MOPD, DPO = (f"stages.{number}" for number in range(5))
EXAM = "benchmarks.0"
URL = "http://host:8000/v1"
TEACHER = {"url": URL, "model": "m"}

# A key that nobody knows, at each level.
UNKNOWN = [
    "",
    "model",
    "model.low_precision",
    "model.long_context",
    "model.rollout",
    "model.rollout.vllm",
    "model.rollout.vllm.canary",
    SFT,
    RLHF,
    RL,
    MOPD,
    DPO,
    f"{SFT}.optimizer",
    f"{SFT}.limits",
    f"{SFT}.moe",
    f"{SFT}.mtp",
    f"{SFT}.adapter",
    f"{SFT}.parallel",
    f"{SFT}.data.0",
    f"{SFT}.data.0.source",
    f"{RL}.sampling",
    f"{RL}.sampling.conversation",
    f"{RL}.workers",
    f"{RL}.workers.correction",
    f"{RL}.grpo",
    f"{RL}.grpo.clip",
    f"{RL}.curriculum",
    f"{MOPD}.importance",
    f"{RLHF}.judge",
    f"{RLHF}.pairwise",
    f"{RLHF}.grpo",
    EXAM,
    f"{EXAM}.source",
    f"{EXAM}.sampling",
    "guard",
    "guard.recovery",
    "guard.recovery.optimizer",
    "guard.retention",
    "storage",
    "tracking",
    "cluster",
    "cluster.storage",
    "cluster.light",
    "cluster.default",
    "cluster.default.retries",
    "cluster.stages.sft",
    "budget",
    "prices",
    "approval",
    "retrain",
    "hardware",
    "attest",
]

# (path, value): a value of another type, out of range, in a wrong unit, or contradicting its neighbour.
VALUES: list[tuple[str, Any]] = [
    # types
    ("kascade", 2),
    ("kascade", "1"),
    ("name", 5),
    ("name", "Small Recipe"),
    ("name", "x" * 60),
    ("name", "9lives"),
    ("name", ""),
    ("description", ["x"]),
    ("model", 5),
    ("model", []),
    ("model.source", None),
    ("model.source", {"path": "x"}),
    ("model.precision", "fp4"),
    ("model.precision", 16),
    ("model.chat_template", "chatml"),
    ("model.thinking_switch", "on"),
    ("model.thinking_words", ["think"]),
    ("model.thinking_words", ["a", "b"]),
    ("model.draft_tokens", 0),
    ("model.long_context", {"factor": 1}),
    ("model.long_context", {"factor": 2, "beta_fast": 1, "beta_slow": 2}),
    ("model.rollout.engine", "sglang"),
    ("model.rollout.max_batch_rows", "many"),
    ("model.rollout.vllm", {"gpu_memory_utilization": 45}),
    ("seed", -1),
    ("seed", 2**32),
    ("seed", 1.5),
    ("seed", "one"),
    ("seed", True),
    ("threads", 0),
    ("threads", 10**9),
    ("threads", "all"),
    ("exam_processes", 0),
    ("exam_processes", 5000),
    ("save_on_signal", -1),
    ("save_on_signal", "20s"),
    ("stages", {}),
    ("stages", []),
    ("stages", "sft"),
    ("stages.0", "sft"),
    ("stages.0", None),
    ("benchmarks", []),
    ("benchmarks", {"knowledge": {}}),
    ("benchmarks.0", 5),
    # each kind of stage
    (f"{SFT}.kind", "stf"),
    (f"{SFT}.kind", ["sft"]),
    (f"{SFT}.steps", 0),
    (f"{SFT}.steps", -10),
    (f"{SFT}.steps", 1.5),
    (f"{SFT}.steps", "10"),
    (f"{SFT}.steps", 10**30),
    (f"{SFT}.steps", None),
    (f"{SFT}.batch_size", 0),
    (f"{SFT}.max_tokens", "4k"),
    (f"{SFT}.loss", "mean"),
    (f"{SFT}.noise", 2),
    (f"{SFT}.noise", -0.1),
    (f"{SFT}.micro_batch_tokens", 0),
    (f"{SFT}.save_every", 0),
    (f"{SFT}.keep_states", 0),
    (f"{SFT}.activations", "drop"),
    (f"{SFT}.frozen_weights", "disk"),
    (f"{SFT}.side_branch", "no"),
    (f"{SFT}.data", []),
    (f"{SFT}.data.0", {"weight": 1}),
    (f"{SFT}.data.0.weight", 0),
    (f"{SFT}.data.0.weight", "half"),
    (f"{SFT}.data.0.source.count", 0),
    (f"{SFT}.data.0.source.levels", [0.9, 0.1]),
    (f"{SFT}.data.0.source.levels", [0, 2]),
    (f"{SFT}.data.0.source.levels", [0.5]),
    (f"{SFT}.data.0.source.environment", "mmlu"),
    (f"{SFT}.data.0.source.environment", 5),
    (f"{SFT}.data.0.source.format", "xlsx"),
    (f"{SFT}.data.0.source.columns", ["prompt"]),
    (f"{SFT}.data.0.source.columns", {"prompt": 5}),
    (f"{SFT}.data.0.source.options", "judge"),
    (f"{SFT}.data.0.source.mode", "thinking"),
    (f"{SFT}.data.0.source.turns", "first"),
    (f"{SFT}.data.0.source.on_bad_row", "ignore"),
    (f"{SFT}.data.0.source.max_bad_rows", -1),
    (f"{SFT}.data.0.source.join", {"on": "id"}),
    (f"{SFT}.data.0.source.join", "answers.jsonl"),
    (f"{SFT}.optimizer.learning_rate", 0),
    (f"{SFT}.optimizer.learning_rate", "3%"),
    (f"{SFT}.optimizer.learning_rate", "1e-5 "),
    (f"{SFT}.optimizer.betas", [0.9]),
    (f"{SFT}.optimizer.betas", [0.9, 1]),
    (f"{SFT}.optimizer.betas", 0.9),
    (f"{SFT}.optimizer.weight_decay", -1),
    (f"{SFT}.optimizer.max_grad_norm", 0),
    (f"{SFT}.optimizer.schedule", "step"),
    (f"{SFT}.optimizer.warmup_steps", 11),
    (f"{SFT}.optimizer.warmup_steps", -1),
    (f"{SFT}.limits.max_truncated", 50),
    (f"{SFT}.limits.max_logprob_gap", 0),
    (f"{SFT}.adapter.rank", 0),
    (f"{SFT}.adapter.dropout", 1),
    (f"{SFT}.adapter.targets", ["q proj"]),
    (f"{SFT}.adapter.at_end", "drop"),
    (f"{SFT}.parallel.shard", 0),
    (f"{SFT}.parallel", {"shard": 4, "experts": 3}),
    (f"{SFT}.mtp.depth", 0),
    (f"{SFT}.moe.expert_bias_rate", -1),
    (f"{RL}.prompts_per_step", 0),
    (f"{RL}.rollouts_per_prompt", 1),
    (f"{RL}.sampling.temperature", 0),
    (f"{RL}.sampling.top_p", 1.5),
    (f"{RL}.sampling.top_k", 0),
    (f"{RL}.sampling.max_new_tokens", "32k"),
    (f"{RL}.sampling.stop", "END"),
    (f"{RL}.sampling.stop", [""]),
    (f"{RL}.sampling.conversation", {"max_seconds": "1h"}),
    (f"{RL}.grpo.baseline", "median"),
    (f"{RL}.grpo.updates_per_batch", 0),
    (f"{RL}.grpo.clip", {"low": 1}),
    (f"{RL}.grpo.overlong", "cut"),
    (f"{RL}.grpo.kl_coefficient", -0.1),
    (f"{RL}.grpo.min_usable_groups", 0),
    (f"{RL}.grpo.correction", {"rule": "ppo"}),
    (f"{RL}.curriculum", {"samples": 0}),
    (f"{RL}.curriculum", {"drop_from": 0}),
    (f"{RL}.curriculum", {"width": 0}),
    (f"{RL}.workers.trainers", 0),
    (f"{RL}.workers.samplers", -1),
    (f"{RL}.workers.gpus", "one"),
    (f"{RL}.workers.max_losses", 0),
    (f"{MOPD}.min_teacher_gap", -1),
    (f"{MOPD}.validation_tasks", 0),
    (f"{MOPD}.full_vocabulary", "yes"),
    (f"{MOPD}.teachers", ["if_rl"]),
    (f"{MOPD}.teachers", {"chat": 5}),
    (f"{MOPD}.importance", {"low": 3}),
    (f"{MOPD}.importance", {"high": 0.5}),
    (f"{RLHF}.judge.kind", "human"),
    (f"{RLHF}.judge.kind", "genrm"),
    (f"{RLHF}.judge.votes", 0),
    (f"{RLHF}.judge.holdout", 1),
    (f"{RLHF}.judge.min_agreement", 85),
    (f"{RLHF}.pairwise.pairs", "some"),
    (f"{RLHF}.grpo.obey_switch", True),
    (f"{DPO}.beta", 0),
    (f"{DPO}.pairs_per_step", 0),
    (f"{DPO}.max_tokens", -1),
    # benchmarks, guard, judge
    (f"{EXAM}.name", "Knowledge"),
    (f"{EXAM}.tasks", 0),
    (f"{EXAM}.tasks", float("inf")),
    (f"{EXAM}.samples", 0),
    (f"{EXAM}.greedy", 1),
    (f"{EXAM}.reward_range", [1, 0]),
    (f"{EXAM}.reward_range", [1, 1]),
    (f"{EXAM}.reward_range", [0]),
    (f"{EXAM}.preset", "mmlu-ultra"),
    (f"{EXAM}.keep_every", 0),
    ("guard.family_level", 1),
    ("guard.family_level", "1%"),
    ("guard.min_drop", -0.1),
    ("guard.min_drop", 1.5),
    ("guard.min_drop", float("nan")),
    ("guard.within_margin", 2),
    ("guard.futile_fall", float("inf")),
    ("guard.screen_samples", 0),
    ("guard.screen_level", 0),
    ("guard.max_missing", 2),
    ("guard.unequal_missing", 0.6),
    ("guard.weak_exams", "ignore"),
    ("guard.unrecovered", "contine"),
    ("guard.recovery.rounds", 3),
    ("guard.recovery.optimizer", {"warmup_steps": 50}),
    ("guard.retention.margin", 0),
    ("guard.retention.margin", 1.5),
    ("guard.retention.on_loss", "nothing"),
    ("judge", {"url": URL}),
    ("judge", {"model": "m", "top_p": 0}),
    ("judge", {"model": "m", "timeout_s": "10m"}),
    ("judge", {"model": "m", "api_key_env": "my key"}),
    ("judge", {"model": "m", "attempts": 0}),
    # addresses and secrets
    ("judge", {**TEACHER, "url": "host:8000"}),
    ("judge", {**TEACHER, "url": "ftp://host/v1"}),
    ("judge", {**TEACHER, "url": "http://host:99999/v1"}),
    ("judge", {**TEACHER, "url": "http://me:word@host/v1"}),
    ("storage.checkpoints", "gs://bucket/runs"),
    ("storage.checkpoints", "s3://"),
    ("storage.checkpoints", "s3://key:word@bucket/runs"),
    ("tracking.uri", "mlflow://host"),
    ("tracking.uri", "http://me:word@host"),
    ("tracking.uri", "postgresql://me:word@host/db"),
    ("tracking.promote_as", "the best"),
    ("model.source", "s3://key:word@bucket/model"),
    ("notify", [{"url": "host"}]),
    ("notify", [{"url": "https://host/hook?token=abc"}]),
    ("notify", [{"url": "https://host/hook", "format": "slack"}]),
    ("notify", [{"url": "https://host", "events": ["finished"]}]),
    ("notify", [{"url": "https://host", "attempts": 99}]),
    ("notify", {"url": "https://host"}),
    ("attest", {"key": "key.pem"}),
    # the cluster, and units
    ("cluster.default.cpu", "two"),
    ("cluster.default.cpu", 2),
    ("cluster.default.memory", "8 GB"),
    ("cluster.default.memory", "8gb"),
    ("cluster.default.shared_memory", "half"),
    ("cluster.default.timeout_s", "1h"),
    ("cluster.default.accelerators", -1),
    ("cluster.default.nodes", 0),
    ("cluster.default.queue", "My Queue"),
    ("cluster.default.node_selector", {"a b": "c"}),
    ("cluster.default.tolerations", [{"operator": "Equal"}]),
    ("cluster.default.tolerations", [{"key": "gpu", "operator": "Exists", "value": "x"}]),
    ("cluster.default.affinity", [{"key": "zone", "operator": "Is"}]),
    ("cluster.default.affinity", [{"key": "zone", "values": ["a"], "weight": 500}]),
    ("cluster.default.affinity", [{"key": "zone", "operator": "In"}]),
    ("cluster.default.tolerations", [{"key": "gpu", "value": "Ä"}]),
    ("cluster.image", "Registry/Kascade:1 2"),
    ("cluster.default.timeout_s", 10**11),
    ("cluster.default.secrets", [{"secret": "s", "key": "k"}]),
    ("cluster.default.runs_as", "job"),
    ("cluster.image_pull_policy", "Sometimes"),
    ("cluster.storage", {"claim": "runs", "path": "kascade"}),
    ("cluster.storage", {"claim": "Runs", "path": "/kascade"}),
    ("cluster.stages", {"nobody": {"cpu": "2"}}),
    ("cluster.stages", {"sft": {"runs_as": "rayjob", "nodes": 2}}),
    ("cluster.stages", {"if_rl": {"runs_as": "trainjob", "nodes": 2}}),
    ("cluster.stages", {"if_rl": {"nodes": 2}}),
    ("cluster.stages", {"sft": {"runs_as": "inline", "nodes": 2}}),
    ("hardware", {"device": "gtx"}),
    ("hardware", {"device": "h100-80gb", "nodes": 0}),
    ("hardware", {"device": "own", "memory_gib": "80GB"}),
    ("budget.cpu_hours", 0),
    ("budget.cpu_hours", "2h"),
    ("budget.money", 5),
    ("prices.currency", "euro"),
    ("prices.cpu_hour", -1),
    ("approval.timeout", "2 days"),
    ("approval.timeout", 48),
    ("approval.before", ["stf"]),
    ("approval.before", "promotion"),
    ("retrain", {"when": "weekly"}),
    # references
    (f"{SFT}.parent", "sft"),
    (f"{SFT}.parent", "if_rl"),
    (f"{RL}.parent", "nobody"),
    (f"{RL}.goals", ["chatt"]),
    (f"{RL}.goals", "chat"),
    (f"{RL}.name", "sft"),
    (f"{RL}.name", "base"),
    (f"{RL}.name", "best"),
    ("benchmarks.1.name", "knowledge"),
    (f"{MOPD}.teachers.chat", "mopd"),
    (f"{MOPD}.teachers.chat", "dpo"),
    (f"{MOPD}.teachers.maths", "sft"),
    ("scales", {"tiny": {"nobody": {"steps": 1}}}),
    ("scales", {"tiny": {"sft": {"stpes": 1}}}),
    ("scales", {"tiny": {"sft": {"steps": 0}}}),
    ("scales", {"tiny": {"sft": {"optimizer": {"learning_rte": 1}}}}),
    ("scales", {"tiny": {"benchmarks": {"knowledge": {"taks": 1}}}}),
    ("scales", {"tiny": {"guard": {"min_dorp": 0.1}}}),
    ("scales", {"tiny": {"benchmarks": {"nobody": {"tasks": 1}}}}),
    ("scales", {"Tiny": {"sft": {"steps": 1}}}),
    ("scales", ["tiny"]),
    ("scale", "tny"),
    ("overrides", {"nobody": {"steps": 1}}),
    ("overrides", {"sft": 5}),
    ("overrides", {"benchmarks": {"nobody": None}}),
    ("overrides", {"sft": {"name": "other"}}),
    ("data", {"mmlu": "rows.jsonl"}),
    ("data", {"mcqa": 5}),
    ("data", 5),
    ("data", {"mcqa": {"pth": "rows.jsonl"}}),
    ("preset", "quikstart"),
    ("preset", 5),
]

# Fields that are sound one by one and do not go together: (changes, what the message names).
TOGETHER: list[tuple[list[tuple[str, Any]], str]] = [
    ([(f"{SFT}.optimizer", {"schedule": "cosine"})], "final_learning_rate"),
    ([(f"{SFT}.optimizer", {"final_learning_rate": 0})], "final_learning_rate"),
    ([(f"{SFT}.data.0.source.thinking", True), (f"{SFT}.data.0.source.mode", "no_think")], "mode"),
    ([(f"{SFT}.data.0.source.count", None)], "count"),
    ([(f"{RL}.prompts_per_step", 2)], "min_usable_groups"),
    ([(f"{RL}.workers", {"asynchronous": True})], "samplers"),
    ([(f"{RL}.workers", {"asynchronous": True, "samplers": 1}), (f"{RL}.grpo", {"updates_per_batch": 2})], "updates_per_batch"),
    ([(f"{RL}.parallel", {"shard": 2})], "shard"),
    ([(f"{RL}.parallel", {"experts": 3}), (f"{RL}.workers", {"trainers": 2, "samplers": 1})], "experts"),
    ([(f"{RL}.grpo", {"obey_switch": True})], "obey_switch"),
    ([(f"{SFT}.frozen_weights", "host"), ("model.precision", "fp8")], "frozen_weights"),
    ([(f"{SFT}.limits", {"max_truncated": 0.5})], "max_truncated"),
    ([(f"{DPO}.limits", {"min_response_tokens": 5})], "min_response_tokens"),
    ([(f"{SFT}.moe", {"routing_replay": True})], "routing_replay"),
    ([(f"{RL}.moe", {"routing_replay": True}), (f"{RL}.workers", {"samplers": 1})], "routing_replay"),
    ([(f"{RL}.workers", {"asynchronous": True, "samplers": 1}), (f"{RL}.grpo", {"correction": {}})], "correction"),
    ([("adapter", {"rank": 4}), ("model.precision", "nvfp4")], "adapter"),
    ([("adapter", {"rank": 4}), (f"{RL}.adapter", {"rank": 8})], "rank"),
    ([("adapter", {"rank": 4}), (f"{SFT}.mtp", {"depth": 1})], "mtp"),
    ([("adapter", {"rank": 4}), (f"{SFT}.moe", {"freeze_router": False})], "freeze_router"),
    ([("model.thinking_switch", "slash"), ("model.chat_template", "nemotron-cascade-1")], "thinking_switch"),
    ([("model.thinking_switch", "slash"), ("model.thinking_words", ["a", "a"])], "thinking_words"),
    ([(f"{RLHF}.side_branch", True), (f"{MOPD}.teachers", {})], "side_branch"),
    ([(f"{part}.side_branch", True) for part in (SFT, RLHF, RL, MOPD, DPO)], "stages"),
    ([(f"{RL}.limits", {"min_entropy": 2, "max_entropy": 1})], "min_entropy"),
    ([(f"{RL}.limits", {"min_response_tokens": 9, "max_response_tokens": 8})], "min_response_tokens"),
    ([(f"{RL}.grpo.correction", {"low": 5, "high": 2})], "low"),
    ([("hardware", {"device": "own"})], "memory_gib"),
    ([("cluster.volumes", [{"claim": "a", "path": "/kascade"}])], "volumes"),
    ([("model.rollout.vllm.served", {"url": "http://host:1", "python": "python"})], "served"),
    ([("model.rollout.vllm.served", {})], "served"),
]  # fmt: skip
MISSING = ["kascade", "name", "model", "stages", "benchmarks", "model.source", f"{SFT}.kind", f"{SFT}.name", f"{SFT}.steps", f"{SFT}.data", f"{EXAM}.name", f"{EXAM}.source", f"{EXAM}.source.environment"]  # fmt: skip

# Texts that are no recipe, or no YAML that we read.
QUICK = "preset: quickstart\n"
TEXTS: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "holds no fields"),
    "a comment": ("# later\n", "holds no fields"),
    "a list": ("- 1\n", "holds no fields"),
    "a word": ("quickstart\n", "holds no fields"),
    "Latin-1": ("name: caf\xe9\n".encode("latin-1"), "UTF-8"),
    "UTF-16": (QUICK.encode("utf-16"), "UTF-8"),
    "half a character": ('name: "\\ud800"', "half a character"),
    "a byte that prints nothing": ("name: a\0b", "YAML"),
    "a bell": ("name: a\x07b", "YAML"),
    "tabs": ("a:\n\t- 1\n", ":2"),
    "an open bracket": ("preset: [quickstart\n", "YAML"),
    "an open quote": ('preset: "quickstart\n', "YAML"),
    "two colons": ("preset: a: b\n", ":1"),
    "a lost dash": ("stages:\n  - kind: sft\n  name: x\n", ":3"),
    "a key twice": ("seed: 1\nseed: 2\n", "twice"),
    "a deep key twice": (f"{QUICK}overrides: {{sft: {{steps: 1, steps: 2}}}}\n", "steps"),
    "a key of a list": ("? [1, 2]\n: 3\n", "key"),
    "a merge": ("a: &a {b: 1}\nc: {<<: *a}\n", "unknown key"),
    "an unknown alias": ("a: *b\n", "YAML"),
    "an alias of itself": ("a: &a [*a]\n", "alias"),
    "a tag": ("a: !!python/object/apply:os.system [x]\n", "python"),
    "a scalar's tag": ("a: !!python/name:os.system x\n", "tag"),
    "a binary": ("a: !!binary x\n", "binary"),
    "a timestamp": ("a: !!timestamp 9999-99-99\n", "timestamp"),
    "a set": ("a: !!set {x, y}\n", "a"),
    "a directive": ("%YAML 9.9\n---\na: 1\n", "YAML"),
    "two documents": (f"{QUICK}---\n{QUICK}", "YAML"),
    "open brackets": ("a: " + "[" * 5000, "nested"),
    "open braces": ("a: " + "{a: " * 5000, "nested"),
    "deep lists": ("a: " + "[" * 200 + "]" * 200, "nested"),
    "deep maps": ("".join("  " * n + "a:\n" for n in range(300)), "nested"),
    "a long number": (f"{QUICK}seed: " + "9" * 5000, "seed"),
    "a huge number": (f"{QUICK}overrides: {{if_rl: {{steps: 1" + "0" * 400 + "}}", "steps"),
    "no finite number": (f"{QUICK}budget: 1e999", "budget"),
    "not a number": (f"{QUICK}budget: .nan", "budget"),
    "an octal": (f"{QUICK}seed: 0o17", "seed"),
    "a Norwegian": (f"{QUICK}overrides: {{if_rl: {{side_branch: no}}}}", "side_branch"),
    "a number with blanks": (f"{QUICK}seed: 1 000", "seed"),
    "a number with underscores": (f"{QUICK}seed: 1_000", "seed"),
    "a time": (f"{QUICK}seed: 12:30", "seed"),
    "aliases of a long text": ("a: &x " + "y" * 120_000 + "\nb: [" + "*x, " * 9000 + "1]\n", "aliases"),
    "a bomb of aliases": (
        "a: &a [x]\n"
        + "".join(f"{c}: &{c} [{', '.join(['*' + b] * 9)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "values",
    ),
    "two megabytes": ("a: " + "x" * 2_100_000, "characters"),
    "five megabytes": (b"a" * 5_000_000, "bytes"),
    "very many fields": ("".join(f"k{n}: 1\n" for n in range(101_000)), "values"),
    "very many items": ("a: [" + "1," * 300_000 + "1]", "values"),
    "a program": ("#!/bin/sh\necho hello\n", "holds no fields"),
    "a page": ("<!DOCTYPE html>\n<html></html>\n", "holds no fields"),
    "a gzip": (b"\x1f\x8b\x08\x00\x00", "UTF-8"),
    "half a JSON": ('{"preset": "quickstart"', "YAML"),
    "a preset and stages": (f"{QUICK}stages: []\n", "stages"),
    "a preset's misspelt dial": (f"{QUICK}seeds: 3\n", "seed"),
    "a preset's null": ("preset: null\n", "preset"),
    "a preset's list": ("preset: [quickstart]\n", "preset"),
    "an override of nothing": (f"{QUICK}overrides: {{sfft: {{steps: 1}}}}\n", "sft"),
    "an override that is a list": (f"{QUICK}overrides: [sft]\n", "overrides"),
    "an override of another kind": (f"{QUICK}overrides: {{sft: {{kind: rhlf}}}}\n", "kind"),
    "all stages left out": (f"{QUICK}overrides: {{sft: null, if_rl: null, multi_domain_rl: null, mopd: null, rlhf: null, long_context_rl: null, code_rl: null, swe_rl: null}}\n", "stages"),
    "a guard of text": (f"{QUICK}overrides: {{guard: strict}}\n", "guard"),
    "a budget of text": (f"{QUICK}budget: two hours\n", "budget"),
    "a model of nothing": (f"{QUICK}model: ''\n", "model"),
}  # fmt: skip
SETTINGS = ["x", "=3", "a..b=3", "sft.steps=[1", "sft.stepz=3", "nope.steps=3", "sft.steps=ten", "sft=3", "guard.min_drop=-1", "sft.optimizer.betas=[1]", "seed=x", "benchmarks.knowledge.tasks=0", "benchmarks.nobody.tasks=3"]  # fmt: skip
PLACES: list[tuple[str, str, Callable[[Path], None]]] = [
    ("x" * 5000, "x.yaml", lambda path: None),
    ("a\0b.yaml", "x.yaml", lambda path: None),
    ("~nobody-here/x.yaml", "x.yaml", lambda path: None),
    ("\udcff.yaml", "x.yaml", lambda path: None),
    ("loop.yaml", "loop.yaml", lambda path: path.symlink_to(path.name)),
    ("gone.yaml", "gone.yaml", lambda path: path.symlink_to("nowhere")),
    (".", "x.yaml", lambda path: None),
    ("", "x.yaml", lambda path: None),
    ("none.yaml", "x.yaml", lambda path: None),
    ("quickstrat", "x.yaml", lambda path: None),
    ("recipe.yaml/recipe.yaml", "recipe.yaml", _dumped(SOUND)),
]


def recipe_cases() -> list[Case]:
    return [*_unknown(), *_values(), *_together(), *_missing(), *_texts(), *_settings(), *_places()]


def _unknown() -> Iterator[Case]:
    for place in UNKNOWN:
        path = f"{place}.colour".lstrip(".")
        recipe = changed((path, "red"))
        yield Case(f"unknown key {path}", _dumped(recipe), ("recipe.yaml:", path, "unknown key 'colour'"))


def _values() -> Iterator[Case]:
    for number, (path, value) in enumerate(VALUES):
        recipe = changed((path, value))
        yield Case(f"value {number}: {path} = {str(value)[:40]}", _dumped(recipe), ("recipe.yaml:", path))


def _together() -> Iterator[Case]:
    for number, (changes, named) in enumerate(TOGETHER):
        yield Case(f"together {number}: {named}", _dumped(changed(*changes)), ("recipe.yaml:", named))


def _missing() -> Iterator[Case]:
    for path in MISSING:
        yield Case(
            f"missing {path}",
            _dumped(changed((path, ABSENT))),
            ("recipe.yaml", path.rpartition(".")[2], "missing"),
        )


def _texts() -> Iterator[Case]:
    for name, (text, named) in TEXTS.items():
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        file = "quickstart.yaml" if named == "stages" and "null" in str(text) else "recipe.yaml"
        yield Case(f"text: {name}", lambda path, data=data: _keep(path, data), (file, named))


def _settings() -> Iterator[Case]:
    for setting in SETTINGS:
        yield Case(f"setting {setting}", _dumped(SOUND), ("--set", setting), overrides=(setting,))


def _places() -> Iterator[Case]:
    for source, file, write in PLACES:
        yield Case(f"place {source[:20]!r}", write, (), file, source)
