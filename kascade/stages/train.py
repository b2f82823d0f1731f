"""Training a stage of a run: from its parent and recipe part to a published checkpoint."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from kascade.environments.base import Domain
from kascade.errors import CheckpointError, Fault, TrainingStopped, UserError
from kascade.guard.lineage import Ancestor, accepted_of_stages
from kascade.guard.teachers import best_teachers, teacher_candidates
from kascade.learning.distributed import join_group, rank, wait_for_all
from kascade.learning.trainer import Trainer
from kascade.models.load import load_model, save_model
from kascade.recipe.identity import find_stage, stage_key
from kascade.recipe.schema import MOPDStage, RLHFStage, RLStage, SFTStage, Stage
from kascade.stages.context import Run, digest_of, publish_checkpoint
from kascade.stages.curriculum import by_pass_rate
from kascade.stages.gaps import leading_domains
from kascade.stages.grpo import train_grpo
from kascade.stages.job import Job, Policy, TaskSource
from kascade.stages.mopd import Teachers, train_mopd
from kascade.stages.rlhf import train_rlhf
from kascade.stages.sft import train_sft
from kascade.stages.tasks import domain_of, training_pool
from kascade.storage.files import read_json

log = logging.getLogger(__name__)
Learn = Callable[[Policy, Job], None]


def train_stage(run: Run, stage: str, parent: str) -> str:
    """The checkpoint of `stage` trained from `parent`; found when finished, continued when interrupted."""
    part = find_stage(run.recipe, stage)
    teachers = stage_teachers(run, part, parent) if isinstance(part, MOPDStage) else {}
    return make_checkpoint(
        run,
        stage,
        "train",
        start=parent,
        teachers=teachers,
        learn=lambda p, job: learn(run, part, p, job, teachers),
    )


def make_checkpoint(
    run: Run, stage: str, attempt: str, *, start: str, teachers: Mapping[Domain, Ancestor], learn: Learn
) -> str:
    """Load `start`, let `learn` train it, publish it under the key of all that determines it."""
    digests = {str(domain): teacher.digest for domain, teacher in teachers.items()}
    key = stage_key(run.recipe, stage, attempt, digest_of(start), digests)
    checkpoint_id = f"{stage}/{attempt}-{key}"
    join_group()
    if found := run.existing(checkpoint_id):
        log.info("%s is finished already", checkpoint_id)
        return found
    refuse_over_budget(run)
    folder = run.open_verified(start)
    with run.clock.section("loading"):
        policy = Policy.load(folder, run.recipe.model, sampled_elsewhere=_has_samplers(run, stage))
    job = Job(
        name=f"{stage}/{attempt}",
        seed=run.recipe.seed,
        clock=run.clock,
        training=run.layout.training(checkpoint_id),
        progress=run.progress,
    )
    learn(policy, job)
    if rank() != 0:  # the first process publishes for all
        wait_for_all()
        return run.existing(checkpoint_id) or refuse_unpublished(checkpoint_id)
    published = publish_checkpoint(
        run,
        stage=stage,
        attempt=attempt,
        key=key,
        parent=start,
        teachers={str(domain): teacher for domain, teacher in teachers.items()},
        write=lambda target: save_model(policy.model, policy.tokenizer, target),
    )
    wait_for_all()
    return published


def refuse_unpublished(checkpoint_id: str) -> str:
    raise CheckpointError(f"{checkpoint_id}: the first process has not published it")


def _has_samplers(run: Run, stage: str) -> bool:
    part = find_stage(run.recipe, stage)
    return not isinstance(part, SFTStage) and part.workers.samplers > 0


def learn(run: Run, part: Stage, policy: Policy, job: Job, teachers: Mapping[Domain, Ancestor]) -> None:
    """Train the policy in place by the stage's own method, with the workers that it asks for."""
    with workers_of(policy, part) as (spread, trainer):
        if isinstance(part, MOPDStage):
            _distil(run, part, spread, job, teachers, trainer=trainer)
        else:
            _train(part, spread, job, trainer)


@contextmanager
def workers_of(policy: Policy, part: Stage) -> Iterator[tuple[Policy, Trainer | None]]:
    """The policy and its trainer as the stage's `workers` say; None: the trainer of this process."""
    if isinstance(part, SFTStage) or not part.workers.distributed:
        yield policy, None
        return
    from kascade.cluster.ray_workers import stage_workers

    with stage_workers(policy, part) as (spread, trainer):
        yield spread, trainer


def _distil(
    run: Run,
    part: MOPDStage,
    policy: Policy,
    job: Job,
    teachers: Mapping[Domain, Ancestor],
    *,
    trainer: Trainer | None,
) -> None:
    models = load_teachers(run, teachers)
    data = leading_domains(policy, models, part, job)
    if not data:
        job.skip(f"no update: no teacher leads by min_teacher_gap {part.min_teacher_gap}")
        return
    train_mopd(policy, training_pool(data, job.seed, job.name), part, job, models, trainer=trainer)


def _train(part: SFTStage | RLStage | RLHFStage, policy: Policy, job: Job, trainer: Trainer | None) -> None:
    pool = training_pool(part.data, job.seed, job.name)
    if isinstance(part, SFTStage):
        train_sft(policy, pool, part, job)
        return
    if isinstance(part, RLHFStage):
        train_rlhf(policy, pool, part, job, reference=copy.deepcopy(policy.model), trainer=trainer)
        return
    by_rate = part.curriculum and by_pass_rate(policy, pool, part, part.curriculum, job)
    tasks: TaskSource = by_rate or pool
    train_grpo(policy, tasks, part, job, trainer=trainer)


def stage_teachers(run: Run, part: MOPDStage, parent: str) -> dict[Domain, Ancestor]:
    """The teacher of each domain the stage trains on: as the recipe names it, else the best accepted one.

    Raises UserError naming all domains that have none.
    """
    best = best_teachers(run.layout, teacher_candidates(run.layout, run.recipe, part.name, parent))
    found: dict[Domain, Ancestor] = {}
    faults: list[Fault] = []
    for domain in dict.fromkeys(domain_of(mix.source) for mix in part.data):
        name = part.teachers.get(domain, "best")
        named = accepted_of_stages(run.layout, (name,)) if name != "best" else []
        if named:
            found[domain] = named[0]
        elif name == "best" and domain in best:
            found[domain] = best[domain].checkpoint
        else:
            what = f"there is no accepted checkpoint of {name!r} to teach it"
            remedy = "add a benchmark of that domain, or name a stage under `teachers`"
            faults.append(Fault(f"stages.{part.name}.teachers.{domain}", what, remedy=remedy))
    if faults:
        raise UserError(faults)
    return found


def load_teachers(run: Run, teachers: Mapping[Domain, Ancestor]) -> Teachers:
    """Each distinct teacher's model once, frozen, by domain."""
    with run.clock.section("loading"):
        models = {}
        for teacher in teachers.values():
            if teacher.digest not in models:
                folder = run.open_verified(teacher.reference)
                part = run.recipe.model
                model = load_model(folder, precision=part.precision, low_precision=part.low_precision)
                models[teacher.digest] = model.requires_grad_(False)
        return {domain: models[teacher.digest] for domain, teacher in teachers.items()}


def refuse_over_budget(run: Run) -> None:
    """Raise TrainingStopped when the run has used up `budget_cpu_hours`."""
    budget = run.recipe.budget_cpu_hours
    if budget is None:
        return
    costs = (run.layout.root / "costs").glob("*.json")
    spent = sum(float(read_json(path)["cpu_s"]) for path in costs) / 3600
    if spent >= budget:
        raise TrainingStopped(
            f"{spent:.2f} CPU hours are used, budget_cpu_hours is {budget}. To do: raise it and resume"
        )
