"""Fields of `cluster` that a recipe sets and no pod of it ever has. See `doctor.unused`."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kascade.recipe.checks import Problem
from kascade.recipe.cluster import Placement
from kascade.recipe.recovering import shapes_of
from kascade.recipe.schema import Recipe

OF_JOBS = ("queue", "deadline_s", "silence_s")
OF_RAY = ("ttl_s",)
OF_STAGES = ("nodes", "runs_as")
OF_SOME_JOBS = {
    "service_account": {"trainjob", "rayjob"},
    "restricted": {"trainjob", "rayjob"},
    "trainer_runtime": {"trainjob"},
    "ray_version": {"rayjob"},
}
Path = tuple[str | int, ...]


def unused_by_pods(recipe: Recipe) -> Iterator[Problem]:
    """What is said of jobs where there is none, and of retries and accelerators where there are none."""
    cluster = recipe.cluster
    shapes = {stage.name: shapes_of(recipe, stage) for stage in recipe.stages}
    jobs = set().union(*shapes.values()) - {"inline"}
    plain = Placement()
    path: Path = ("cluster", "light")
    yield from _of_placement(cluster.light, plain, path, {"inline"}, "steps without a model are no jobs")
    yield from _differing(cluster.light, plain, OF_STAGES, path, "steps without a model are one pod each")
    why = "no stage on these pods is trained by a job of several nodes"
    heirs = [*cluster.stages.values(), *([cluster.benchmarks] if cluster.benchmarks else [])]
    default = cluster.default  # the others take over what it says
    held = max(one.accelerators for one in (default, *heirs))
    default = default.model_copy(update={"accelerators": held})
    yield from _of_placement(default, plain, ("cluster", "default"), jobs, why)
    for name, placement in cluster.stages.items():
        path = ("cluster", "stages", name)
        yield from _of_placement(placement, cluster.default, path, shapes.get(name, set()), why)
    if cluster.benchmarks is not None:
        path = ("cluster", "benchmarks")
        yield from _of_placement(cluster.benchmarks, cluster.default, path, {"inline"}, "they are no jobs")
    for name, wanted in OF_SOME_JOBS.items():
        if not jobs & wanted and getattr(cluster, name) != type(cluster).model_fields[name].default:
            why = f"it is of a {' or '.join(sorted(wanted))}, and no stage is one"
            yield _unused(("cluster", name), why)


def _of_placement(
    part: Placement, plain: Placement, path: Path, shapes: Collection[str], why: str
) -> Iterator[Problem]:
    """plain: what it would say without a word. shapes: of the stages that have these pods."""
    if not {"trainjob", "rayjob"} & set(shapes):
        yield from _differing(part, plain, OF_JOBS, path, why)
    if "rayjob" not in shapes:
        yield from _differing(part, plain, OF_RAY, path, "no stage on these pods is a rayjob")
    yield from _differing(part, plain, ("caching",), path, "every step finds finished work by its key")
    if not part.accelerators:
        yield from _differing(part, plain, ("accelerator",), path, "accelerators is 0")
    retries = (*path, "retries")
    if not part.retries.count:
        names = ("backoff_s", "factor")
        yield from _differing(part.retries, plain.retries, names, retries, "retries.count is 0")
    why = "the time for all tries follows from timeout_s and retries.count"
    yield from _differing(part.retries, plain.retries, ("max_backoff_s",), retries, why)


def _differing(
    part: object, plain: object, names: Collection[str], path: Path, why: str
) -> Iterator[Problem]:
    for name in names:
        if getattr(part, name) != getattr(plain, name):
            yield _unused((*path, name), why)


def _unused(path: Path, why: str) -> Problem:
    return Problem(path, f"changes nothing: {why}", remedy="leave it out")
