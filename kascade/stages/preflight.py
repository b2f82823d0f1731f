"""Before anything is trained: the base model, the data and the graders are there and fit."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from kascade.data.chat import ChatFormat
from kascade.environments import get_environment
from kascade.environments.base import Task
from kascade.environments.crashes import graded
from kascade.environments.isolation import isolation_of
from kascade.errors import Fault, UserError
from kascade.models.fit import fit_faults
from kascade.models.load import check_model_folder, load_tokenizer, resolve_source
from kascade.models.long_context import with_long_context
from kascade.models.precision import precision_faults
from kascade.recipe.checks import BASE
from kascade.recipe.identity import short_hash
from kascade.recipe.schema import Recipe, SFTStage
from kascade.rollout.pools import TaskPool
from kascade.stages.context import Run, publish_checkpoint
from kascade.stages.tasks import exam_tasks, training_pool
from kascade.storage.checkpoint import file_digest
from kascade.storage.files import read_json, write_json

log = logging.getLogger(__name__)

GRADED_TASKS = 8  # reference answers graded per benchmark: graders are code, a few show that they run
RIGHT = 1 - 1e-6
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "tokenizer.model")


def check_and_import(run: Run) -> str:
    """Reference of the base checkpoint. Raises UserError with all faults found at once."""
    from kascade.cluster.ready import job_faults

    with run.clock.section("loading"):
        folder = resolve_source(run.recipe.model.source)
        faults = model_faults(run, folder)
        exams, exam_faults = load_exams(run)
        pools, pool_faults = load_pools(run)
    with run.clock.section("grading"):
        isolation, sandbox_faults = isolation_of(environments_of(run.recipe))
        faults += exam_faults + pool_faults + grader_faults(exams) + demonstration_faults(run, pools)
        faults += sandbox_faults + job_faults(run.recipe)
    if faults:
        raise UserError(list(dict.fromkeys(faults)))
    for kind, how in isolation.items():
        log.info("untrusted %s are confined by %s", kind, how)
    write_json(run.layout.preflight, {"contamination": contamination(exams, pools), "isolation": isolation})
    return import_base(run, folder)


def environments_of(recipe: Recipe) -> set[str]:
    """Every environment that trains or examines."""
    exams = {benchmark.source.environment for benchmark in recipe.benchmarks}
    return exams | {mix.source.environment for stage in recipe.stages for mix in stage.data}


def model_faults(run: Run, folder: Path) -> list[Fault]:
    """What keeps the base model, its chat format, or what the recipe asks of both from being used here."""
    part = run.recipe.model
    faults = precision_faults(part.precision, part.low_precision)
    if unusable := check_model_folder(folder):
        return faults + unusable
    faults += fit_faults(folder, run.recipe)
    try:
        ChatFormat(load_tokenizer(folder), part.chat_template)
    except UserError as error:
        faults += error.faults
    return faults


def load_exams(run: Run) -> tuple[dict[str, list[Task]], list[Fault]]:
    """The tasks of each benchmark, and why some have none."""
    exams: dict[str, list[Task]] = {}
    faults: list[Fault] = []
    for benchmark in run.recipe.benchmarks:
        try:
            exams[benchmark.name] = exam_tasks(run, benchmark)
        except UserError as error:
            faults.extend(error.faults)
    return exams, faults


def load_pools(run: Run) -> tuple[dict[str, TaskPool], list[Fault]]:
    """The training tasks of each stage, and why some have none."""
    pools: dict[str, TaskPool] = {}
    faults: list[Fault] = []
    for stage in run.recipe.stages:
        try:
            pools[stage.name] = training_pool(stage.data, run.recipe.seed, f"{stage.name}/train")
        except UserError as error:
            faults.extend(error.faults)
    return pools, faults


def grader_faults(exams: Mapping[str, Sequence[Task]]) -> list[Fault]:
    """Benchmarks whose grader does not tell a reference answer from an empty one.

    A reference must grade 1 and an empty answer 0; in chat, where a grade is a preference over a middling
    answer, a reference may tie with it and an empty answer must lose.
    """
    faults = []
    for name, tasks in exams.items():
        shown = [task for task in tasks if task.reference is not None][:GRADED_TASKS]
        for task in shown:
            faults += _grades_wrongly(name, task, str(task.reference))
    return faults


def _grades_wrongly(benchmark: str, task: Task, reference: str) -> list[Fault]:
    where = f"benchmark {benchmark}, task {task.id}"
    remedy = "check the environment and what it needs (programs, sandbox)"
    ((gold, empty),) = graded(get_environment(task.environment), [(task, [reference, ""])])
    errors = dict.fromkeys(grade.error for grade in (gold, empty) if grade.error)
    if errors:
        return [Fault(where, f"the grader failed: {error}", remedy=remedy) for error in errors]
    right, wrong = (0.5, 0.5) if task.domain == "chat" else (RIGHT, 1 - RIGHT)
    faults = []
    if gold.reward < right:
        faults.append(Fault(where, f"the reference answer grades {gold.reward:.3g}", "1 (chat: 0.5)", remedy))
    if empty.reward > wrong or (task.domain == "chat" and empty.reward == wrong):
        faults.append(
            Fault(where, f"an empty answer grades {empty.reward:.3g}", "0 (chat: below 0.5)", remedy)
        )
    return faults


def demonstration_faults(run: Run, pools: Mapping[str, TaskPool]) -> list[Fault]:
    """SFT stages with a source in which no task has an answer to imitate."""
    faults = []
    for stage in run.recipe.stages:
        if not isinstance(stage, SFTStage) or stage.name not in pools:
            continue
        for mix, tasks in zip(stage.data, pools[stage.name].sources, strict=True):
            if all(task.reference is None for task in tasks):
                what = f"{mix.source.path or mix.source.environment} has no reference answers to imitate"
                remedy = "give rows with answers, or train this environment in an RL stage"
                faults.append(Fault(f"stages.{stage.name}.data", what, remedy=remedy))
    return faults


def contamination(
    exams: Mapping[str, Sequence[Task]], pools: Mapping[str, TaskPool]
) -> dict[str, dict[str, int]]:
    """Per stage and benchmark, how many exam tasks the stage trains on (by content); empty when none."""
    found: dict[str, dict[str, int]] = {}
    for stage, pool in pools.items():
        trained = {task.id for tasks in pool.sources for task in tasks}
        for benchmark, tasks in exams.items():
            if shared := sum(task.id in trained for task in tasks):
                found.setdefault(stage, {})[benchmark] = shared
                log.warning("%s trains on %d tasks of the exam %s", stage, shared, benchmark)
    return found


def import_base(run: Run, folder: Path) -> str:
    """The base model as a checkpoint of the run: a copy, so that what is done to the original stays there.

    A longer context that the recipe asks for goes into the copy's config.
    """
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    longer = run.recipe.model.long_context
    parts = [[path.name, file_digest(path)] for path in files]
    key = short_hash([*parts, longer.model_dump(mode="json")] if longer is not None else parts)
    if found := run.existing(f"{BASE}/train-{key}"):
        return found

    def write(target: Path) -> None:
        for path in files:
            shutil.copyfile(path, target / path.name)
        if longer is not None:
            write_json(target / "config.json", with_long_context(read_json(folder / "config.json"), longer))

    return publish_checkpoint(
        run, stage=BASE, attempt="train", key=key, parent=None, teachers={}, write=write
    )
