"""Which benchmarks there are: name → function, imported when it runs.

A benchmark is a function of `quick` (fewer and smaller rounds) that returns its measurements. Another one,
against another peer, is another line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from benchmarks.measure import Measurement

Benchmark = Callable[[bool], Sequence[Measurement]]

BENCHMARKS: Mapping[str, str] = {
    "rollout-qwen3": "benchmarks.rollout:qwen3",
    "rollout-qwen3-spread": "benchmarks.rollout:qwen3_spread",
    "rollout-nemotron-h": "benchmarks.rollout:nemotron_h",
    "rollout-nemotron-h-spread": "benchmarks.rollout:nemotron_h_spread",
    "rollout-draft": "benchmarks.draft:run",
    "grpo": "benchmarks.training:grpo_step",
    "grpo-uneven": "benchmarks.training:uneven_update",
    "sft": "benchmarks.training:supervised",
    "mopd-qwen3": "benchmarks.distillation:mopd_qwen3",
    "mopd-nemotron-h": "benchmarks.distillation:mopd_nemotron_h",
    "memory-logprobs": "benchmarks.memory:logprobs",
    "memory-grpo": "benchmarks.memory:grpo",
    "memory-sft": "benchmarks.memory:sft",
    "gpu-rollout": "benchmarks.gpu:rollout",
    "gpu-training": "benchmarks.gpu:training",
    "sandbox": "benchmarks.sandbox:run",
    "graders": "benchmarks.graders:run",
    "graders_further": "benchmarks.graders_further:run",
    "guard": "benchmarks.guard:run",
    "remote": "benchmarks.remote:run",
}


def load(place: str) -> Benchmark:
    """The function at "module:name"."""
    module, _, name = place.partition(":")
    benchmark: Benchmark = getattr(import_module(module), name)
    return benchmark
