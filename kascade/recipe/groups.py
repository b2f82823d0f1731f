"""Which processes of a recipe hold which models: those that train a stage, sample for it, judge, recover it,
and those that sit the benchmarks. `recipe.memory` counts what each needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from kascade.environment_names import CONVERSATIONS
from kascade.recipe.checks import BASE
from kascade.recipe.identity import adapter_of, keeps_adapter
from kascade.recipe.layout import Layout
from kascade.recipe.methods import Stage
from kascade.recipe.model_config import model_shape_of
from kascade.recipe.order import parent_of, teachers_of
from kascade.recipe.recovering import recovery_parallel, recovery_row, recovery_workers
from kascade.recipe.sampling import Sampling
from kascade.recipe.schema import Benchmark, Recipe
from kascade.recipe.workers import Workers

Role = Literal["train", "sample", "judge", "recover", "redraw", "examine"]
SAMPLES: tuple[Role, ...] = ("sample", "redraw", "examine")  # roles that train nothing
BENCHMARKS = "benchmarks"  # where the processes that sit them stand among the stages


@dataclass(frozen=True, slots=True)
class Planned:
    """A group before it is counted. stage: None: the benchmarks of all. devices: that its processes hold."""

    stage: Stage | None
    role: Role
    processes: int
    layout: Layout
    devices: int

    @property
    def name(self) -> str:
        return BENCHMARKS if self.stage is None else self.stage.name


def planned_groups(recipe: Recipe) -> Iterator[Planned]:
    """Every group of processes, in the order of the stages."""
    for stage in recipe.stages:
        yield from groups_of(recipe, stage)
    yield examining(recipe)


def examining(recipe: Recipe) -> Planned:
    """The processes that sit the benchmarks, on one device (one engine's devices) together."""
    layout = _sampling_layout(recipe, _exam_rows(recipe))
    return Planned(None, "examine", recipe.exam_processes, layout, _cut(recipe))


def groups_of(recipe: Recipe, stage: Stage) -> Iterator[Planned]:
    """Those of one stage: training first."""
    workers, answers = stage.actors(), stage.answers_by()
    layout, processes = layout_of(recipe, stage), trainers_of(recipe, stage)
    samplers = 0 if answers is None else _samplers(recipe, workers)
    yield Planned(stage, "train", processes, layout, processes + samplers * _cut(recipe))
    rows = _rows(recipe, stage.samples_per_step, longest_row(stage, answers)) if answers else (0, 0)
    if samplers:
        yield Planned(stage, "sample", samplers, _sampling_layout(recipe, rows, layout), 0)
    if stage.copies_that_score()[1]:
        yield Planned(stage, "judge", 1, _judge_layout(recipe, stage, layout), 1)
    if recipe.guard.recovery.rounds:
        yield from _recovery(recipe, stage, layout, rows)


def trainers_of(recipe: Recipe, stage: Stage) -> int:
    """Processes that train a stage together: Ray's actors, or one for each accelerator of its pods."""
    if stage.answers_by() is not None:
        return stage.actors().trainers
    placement = recipe.cluster.placement(stage.name)
    nodes = placement.nodes if recipe.cluster.shape_of(stage) == "trainjob" else 1
    return nodes * max(1, placement.accelerators)


def layout_of(recipe: Recipe, stage: Stage) -> Layout:
    """What a stage's training keeps on one of its processes."""
    sampling, workers = stage.answers_by(), stage.actors()
    longest = longest_row(stage, sampling) if sampling else stage.longest_given() or 0
    rows = _rows(recipe, stage.samples_per_step, longest) if sampling else (0, 0)
    processes = trainers_of(recipe, stage)
    layout = _layout(recipe, stage, processes, workers, rows)
    base = trained_over(recipe, stage)
    whole, adapters = _scorers(recipe, base, teachers_of(recipe, stage.name))
    references, judges = stage.copies_that_score()
    if processes > 1 and sampling is not None:
        judges = 0  # it lies in the process that grades
    copies = references + judges
    return replace(
        layout,
        tokens=max(stage.micro_batch_tokens, longest),
        whole_teachers=whole + (copies if base is None else 0),
        adapter_teachers=adapters + (0 if base is None else copies),
        full_vocabulary=stage.whole_distributions(),
        drafts=stage.mtp.depth if stage.mtp is not None else 0,
    )


def longest_row(stage: Stage, sampling: Sampling) -> int:
    """Tokens of the longest row that a stage samples; of environments that converse, a whole conversation."""
    talks = any(mix.source.environment in CONVERSATIONS for mix in stage.data)
    return (
        max(sampling.max_new_tokens, sampling.conversation.max_tokens) if talks else sampling.max_new_tokens
    )


def trained_over(recipe: Recipe, stage: Stage) -> str | None:
    """The checkpoint whose weights a stage's adapter is trained over; None: it trains all weights."""
    if adapter_of(recipe, stage) is None:
        return None
    return base_of(recipe, parent_of(recipe, stage.name) or BASE)


def base_of(recipe: Recipe, name: str) -> str:
    """Where the whole weights of a stage's result are: there, or at the base of its adapter."""
    if name == BASE or not keeps_adapter(recipe, name):
        return name
    return base_of(recipe, parent_of(recipe, name) or BASE)


def _scorers(recipe: Recipe, base: str | None, teachers: Iterable[str]) -> tuple[int, int]:
    """Frozen models: whole ones, each base once; and adapters. base: the policy's own, there already."""
    names = dict.fromkeys(teachers)
    whole = {base_of(recipe, name) for name in names} - {base}
    return len(whole), sum(name != BASE and keeps_adapter(recipe, name) for name in names)


def _layout(recipe: Recipe, stage: Stage, processes: int, workers: Workers, rows: tuple[int, int]) -> Layout:
    """What a stage and its recovery have in common. rows: that are sampled, and the longest of them."""
    adapter, rollout = adapter_of(recipe, stage), recipe.model.rollout
    here = processes == 1 and not workers.samplers and rows[0] > 0 and rollout.vllm.served is None
    return Layout(
        precision=recipe.model.precision or "bf16",
        shard=stage.parallel.shard_of(processes),
        experts=stage.parallel.experts,
        activations=stage.activations,
        adapter=(adapter.rank, adapter.targets) if adapter is not None else None,
        teachers_rest=stage.frozen_weights == "host",
        samples=rows if here else None,
        engine_devices=_cut(recipe) if here and rollout.engine == "vllm" else 0,
        engine_bytes=_vllm_share(recipe) if here else 0.0,
        beside=judge_bytes(recipe) if processes == 1 and rows[0] else 0,
    )


def _sampling_layout(recipe: Recipe, rows: tuple[int, int], trained: Layout | None = None) -> Layout:
    """A process that only samples: a model of its own, and the engine. trained: what is handed over to it."""
    rollout = recipe.model.rollout
    served = rollout.vllm.served is not None
    adapter = trained.adapter if trained is not None and rollout.engine == "native" else None
    return Layout(
        precision=recipe.model.precision or "bf16",
        adapter=adapter,
        samples=None if served else rows,
        engine_devices=_cut(recipe) if rollout.engine == "vllm" and not served else 0,
        engine_bytes=_vllm_share(recipe) if not served else 0.0,
        beside=judge_bytes(recipe) if trained is None else 0,
    )


def _judge_layout(recipe: Recipe, stage: Stage, trained: Layout) -> Layout:
    """A reward model, which learns in one process from pairs of answers, both in one micro-batch."""
    tokens = max(stage.micro_batch_tokens, 2 * trained.tokens)
    alone = replace(trained, shard=1, experts=1, tokens=tokens, samples=None, engine_devices=0)
    policy = 0 if trained.shard > 1 or trained.adapter is not None else 1  # it lies there meanwhile
    return replace(alone, whole_teachers=policy, adapter_teachers=0, teachers_rest=False, trunk=False)


def _recovery(recipe: Recipe, stage: Stage, trained: Layout, rows: tuple[int, int]) -> Iterator[Planned]:
    """Distillation with answers as long as the longest benchmark's: those that train, and that sample."""
    rule, workers = recipe.guard.recovery, recovery_workers(recipe, stage)
    longest = recovery_row(recipe)
    own = _rows(recipe, rule.prompts_per_step * rule.rollouts_per_prompt, longest)
    parallel = recovery_parallel(recipe, stage)
    layout = _layout(recipe, stage, workers.trainers, workers, own)
    over = base_of(recipe, stage.name) if layout.adapter is not None else None
    whole, adapters = _scorers(recipe, over, (stage.name, parent_of(recipe, stage.name) or BASE))
    layout = replace(
        layout,
        shard=parallel.shard_of(workers.trainers),
        experts=parallel.experts,
        tokens=max(stage.micro_batch_tokens, longest),
        whole_teachers=whole,
        adapter_teachers=adapters,
        full_vocabulary=rule.full_vocabulary,
    )
    samplers = _samplers(recipe, workers)
    devices = workers.trainers + samplers * _cut(recipe)
    if layout != trained or workers.trainers != trainers_of(recipe, stage):
        yield Planned(stage, "recover", workers.trainers, layout, devices)
    if samplers and (own != rows or samplers != _samplers(recipe, stage.actors())):
        yield Planned(stage, "redraw", samplers, _sampling_layout(recipe, own, layout), 0)


def _samplers(recipe: Recipe, workers: Workers) -> int:
    """Processes that only sample: actors; beside several trainers without any, the one that drives them."""
    if workers.samplers or workers.trainers == 1:
        return workers.samplers
    return 0 if recipe.model.rollout.vllm.served is not None else 1


def _rows(recipe: Recipe, samples: int, longest: int) -> tuple[int, int]:
    """Rows that are sampled at once and the longest of them.

    vLLM fills the memory it is given and lets rows wait: there must be room for one.
    """
    rollout = recipe.model.rollout
    return min(samples, rollout.max_batch_rows if rollout.engine == "native" else 1), longest


def _exam_rows(recipe: Recipe) -> tuple[int, int]:
    """Of the benchmark with the most, and the longest row of all."""
    screen = recipe.guard.screen_samples
    asked = max(min(one.tasks, one.keep_every) * (one.samples or screen) for one in recipe.benchmarks)
    return _rows(recipe, asked, max(map(_exam_row, recipe.benchmarks)))


def _exam_row(one: Benchmark) -> int:
    """Tokens of a benchmark's longest row; another tool's are not counted."""
    talks = one.source.environment in CONVERSATIONS
    most = max(one.sampling.max_new_tokens, one.sampling.conversation.max_tokens if talks else 0)
    return 0 if one.source.of_another_tool else most


def _cut(recipe: Recipe) -> int:
    """Devices of one sampling engine."""
    rollout = recipe.model.rollout
    return rollout.vllm.tensor_parallel_size if rollout.engine == "vllm" else 1


def _vllm_share(recipe: Recipe) -> float:
    """Bytes of a device that vLLM takes when it starts, full or not; 0: another engine, or no hardware."""
    rollout, hardware = recipe.model.rollout, recipe.hardware
    if rollout.engine != "vllm" or hardware is None:
        return 0.0
    return rollout.vllm.gpu_memory_utilization * hardware.memory_bytes


def judge_bytes(recipe: Recipe) -> int:
    """Weights of a judge that is a checkpoint, in the process that grades; 0: behind an endpoint, or none."""
    judge = recipe.judge
    shape = model_shape_of(judge.model) if judge is not None and judge.url is None else None
    return 2 * shape.size if shape is not None else 0
