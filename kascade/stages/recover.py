"""Recovery: MOPD from a regressed checkpoint, taught what was lost and what was gained."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kascade.environments.base import Domain
from kascade.errors import KascadeError
from kascade.guard.lineage import Ancestor
from kascade.guard.teachers import best_teachers, teacher_candidates
from kascade.recipe.identity import find_stage
from kascade.recipe.schema import Mix, MOPDStage, Sampling, SFTStage
from kascade.recipe.workers import Workers
from kascade.stages.attempts import attempts_of, verdicts_of
from kascade.stages.context import Run
from kascade.stages.job import Job, Policy
from kascade.stages.mopd import train_mopd
from kascade.stages.tasks import recovery_mixes, sources_by_domain, training_pool
from kascade.stages.train import load_teachers, make_checkpoint, workers_of


def recover_stage(run: Run, stage: str, round_: int, checkpoint: str, parent: str) -> str:
    """Recovery `round_` of a stage's regressed `checkpoint`; a finished one is returned.

    The best accepted checkpoint teaches every domain that the stage's attempts lost; the stage's own
    result, the trained checkpoint before any recovery, teaches all the others. Raises KascadeError when
    no verdict names a loss.
    """
    attempts = attempts_of(checkpoint)
    lost = lost_domains(run, attempts)
    sources = sources_by_domain(run.recipe, run.recipe.stages[: stage_index(run, stage) + 1])
    guarded = sources_by_domain(run.recipe, ())
    kept = [domain for domain in sources if domain in guarded and domain not in lost]
    teachers = recovery_teachers(run, attempts[-1], parent, lost, kept)
    mixes = recovery_mixes(sources, lost, kept, run.recipe.guard.recovery.keep_weight)
    part = recovery_part(run, stage, mixes)

    def learn(policy: Policy, job: Job) -> None:
        tasks = training_pool(mixes, job.seed, job.name)
        with workers_of(policy, part) as (spread, trainer):
            train_mopd(spread, tasks, part, job, load_teachers(run, teachers), trainer=trainer)

    return make_checkpoint(
        run,
        stage,
        f"recover-{round_}",
        start=checkpoint,
        teachers=teachers,
        learn=learn,
    )


def lost_domains(run: Run, attempts: list[Ancestor]) -> list[Domain]:
    """Every domain that one of the attempts lost. Raises KascadeError when there is none."""
    lost = list(dict.fromkeys(d for verdict in verdicts_of(run, attempts) for d in verdict.lost_domains))
    if not lost:
        raise KascadeError(f"{attempts[0].manifest.id} has not regressed: there is nothing to recover")
    return lost


def stage_index(run: Run, stage: str) -> int:
    return run.recipe.stages.index(find_stage(run.recipe, stage))


def recovery_teachers(
    run: Run, own: Ancestor, parent: str, lost: Collection[Domain], kept: Collection[Domain]
) -> Mapping[Domain, Ancestor]:
    """own: the stage's trained checkpoint."""
    candidates = teacher_candidates(run.layout, run.recipe, own.manifest.stage, parent)
    best = best_teachers(run.layout, candidates)
    return {**{domain: best[domain].checkpoint for domain in lost}, **dict.fromkeys(kept, own)}


def recovery_part(run: Run, stage: str, mixes: tuple[Mix, ...]) -> MOPDStage:
    """The recipe's recovery as a MOPD stage, with the workers of the stage that it recovers.

    Answers may be as long as in the longest exam.
    """
    rule, regressed = run.recipe.guard.recovery, find_stage(run.recipe, stage)
    longest = max(benchmark.sampling.max_new_tokens for benchmark in run.recipe.benchmarks)
    return MOPDStage(
        name=stage,
        kind="mopd",
        data=mixes,
        steps=rule.steps,
        optimizer=rule.optimizer,
        limits=regressed.limits,
        micro_batch_tokens=regressed.micro_batch_tokens,
        save_every=regressed.save_every,
        prompts_per_step=rule.prompts_per_step,
        rollouts_per_prompt=rule.rollouts_per_prompt,
        sampling=Sampling(max_new_tokens=longest),
        full_vocabulary=rule.full_vocabulary,
        importance=rule.importance,
        workers=regressed.workers if not isinstance(regressed, SFTStage) else Workers(),
    )
