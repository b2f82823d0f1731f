"""Hours of a unit of work by formula: the model's shape on the recipe's hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kascade.recipe.checks import BASE
from kascade.recipe.cluster import Placement
from kascade.recipe.fits import model_shape
from kascade.recipe.groups import layout_of, trainers_of
from kascade.recipe.identity import adapter_of, find_stage
from kascade.recipe.layout import Range, exactly
from kascade.recipe.recovering import recovery_workers
from kascade.recipe.schema import Recipe, StagePart
from kascade.recipe.speeds import Speed
from kascade.recipe.work import ANSWER, END, ROW, Unit, steps_of
from kascade.recipe.workers import Workers

BACKWARD, FROZEN = 2.0, 1.0  # forwards that a backward costs: of trained weights, of frozen ones
CPU_SHARE = (0.1, 0.4, 1.0)  # of the cores that a pod asks for, how many work on average: ours
START_S = (60.0, 180.0, 600.0)  # of a step on a cluster: image, loading, compiling kernels: ours
RECOVERY = "recovery"
LEARNS = ("train", RECOVERY)  # parts that run on a stage's own pods
NOTHING = exactly(0)


@dataclass(frozen=True, slots=True)
class Hours:
    """Of one unit, in seconds: on the wall, of CPU cores, of accelerators. date: of what it rests on."""

    wall: Range
    cpu: Range
    accelerator: Range
    basis: str
    date: str


def by_formula(recipe: Recipe, unit: Unit, date: str) -> Hours | None:
    """None without hardware, for a model of unknown shape, and for a device of unknown speed."""
    shape = model_shape(recipe)
    speed = Speed.of(shape, recipe.hardware) if shape is not None and recipe.hardware is not None else None
    if speed is None or recipe.hardware is None:
        return None
    basis = f"formula: {shape.family if shape else ''} on {recipe.hardware.device}"
    total = Hours(NOTHING, NOTHING, NOTHING, basis, date)
    for step in steps_of(recipe, unit):
        wall = sum(_seconds(recipe, step, speed), Range(*START_S))
        cpu = wall.scaled(CPU_SHARE).scaled((_cores_held(recipe, step),) * 3)
        accelerator = wall.scaled((held(recipe, step),) * 3)
        total = replace(
            total, wall=total.wall + wall, cpu=total.cpu + cpu, accelerator=total.accelerator + accelerator
        )
    return total


def _triple(one: Range) -> tuple[float, float, float]:
    return one.low, one.expected, one.high


def _pods_of(recipe: Recipe, unit: Unit) -> Placement:
    if unit.part in LEARNS:
        return recipe.cluster.placement(unit.stage)
    return recipe.cluster.benchmark_pods(BASE if unit.stage == END else unit.stage)


def _cores_held(recipe: Recipe, unit: Unit) -> float:
    placement = _pods_of(recipe, unit)
    return _cores(placement.cpu) * (placement.nodes if _spreads(recipe, unit) else 1)


def _cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _spreads(recipe: Recipe, unit: Unit) -> bool:
    """Whether the unit is a job of several nodes: training and recoveries are, benchmarks are not."""
    if unit.part not in LEARNS:
        return False
    return recipe.cluster.shape_of(find_stage(recipe, unit.stage)) != "inline"


def held(recipe: Recipe, unit: Unit) -> float:
    """Accelerators that a unit holds: those of its pods; where these ask for none, those it uses."""
    placement = _pods_of(recipe, unit)
    if placement.accelerators:
        return float(placement.accelerators * (placement.nodes if _spreads(recipe, unit) else 1))
    if unit.part in LEARNS:
        stage = find_stage(recipe, unit.stage)
        processes, workers = _learners(recipe, stage, unit)
        return float(processes + workers.samplers * _cut(recipe))
    return float(_cut(recipe))


def _learners(recipe: Recipe, stage: StagePart, unit: Unit) -> tuple[int, Workers]:
    """Processes that learn in a stage's training or recovery, and its actors."""
    if unit.part == RECOVERY:
        workers = recovery_workers(recipe, stage)
        return workers.trainers, workers
    return trainers_of(recipe, stage), stage.actors()


def _cut(recipe: Recipe) -> int:
    """Devices of one sampling engine."""
    rollout = recipe.model.rollout
    return rollout.vllm.tensor_parallel_size if rollout.engine == "vllm" else 1


def _seconds(recipe: Recipe, unit: Unit, speed: Speed) -> Iterator[Range]:
    """Drawing, then learning. A stage that does both at once takes the longer of the two."""
    samplers, asynchronous, processes = 0, False, 1
    if unit.part in LEARNS:
        stage = find_stage(recipe, unit.stage)
        processes, workers = _learners(recipe, stage, unit)
        samplers, asynchronous = workers.samplers, workers.asynchronous
    lengths = exactly(unit.longest).scaled(ANSWER if unit.generated.high else ROW)
    drawing = speed.sampling_s(
        unit.generated, lengths, rows=max(1, unit.rows), engines=max(1, samplers), cut=_cut(recipe)
    )
    if not unit.trained.high:
        yield drawing
        return
    learning = speed.training_s(
        unit.trained, lengths, backward=_backward(recipe, unit), scored=unit.scored, devices=processes
    )
    if asynchronous:
        pairs = zip(_triple(drawing), _triple(learning), strict=True)
        yield Range(*(max(one, other) for one, other in pairs))
    else:
        yield drawing
        yield learning


def _backward(recipe: Recipe, unit: Unit) -> float:
    """Forwards that a backward costs: less for frozen weights, one more where layers are computed again."""
    stage = find_stage(recipe, unit.stage)
    own = FROZEN if adapter_of(recipe, stage) is not None else BACKWARD
    return own + (1.0 if layout_of(recipe, stage).activations != "keep" else 0.0)
