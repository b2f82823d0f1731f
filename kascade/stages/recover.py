"""Recovery: MOPD from a regressed checkpoint, taught what was lost and what was gained."""

from __future__ import annotations

from kascade.recipe.identity import find_stage
from kascade.recipe.recovering import recovery_parallel, recovery_sampling, recovery_workers
from kascade.recipe.schema import Mix, MOPDStage
from kascade.run.attempts import attempts_of
from kascade.run.context import Run
from kascade.stages.attempts import loss_of, recovery
from kascade.stages.tasks import recovery_mixes
from kascade.stages.train import make_checkpoint


def recover_stage(run: Run, stage: str, round_: int, checkpoint: str, parent: str) -> str:
    """Recovery `round_` of a stage's regressed `checkpoint`; a finished one is returned.

    Raises KascadeError when no verdict names a loss.
    """
    attempt = recovery(run, stage, round_, checkpoint, parent)
    loss = loss_of(run, stage, attempts_of(checkpoint))
    mixes = recovery_mixes(loss.sources, loss.lost, loss.kept, run.recipe.guard.recovery.keep_weight)
    return make_checkpoint(run, attempt, recovery_part(run, stage, mixes))


def recovery_part(run: Run, stage: str, mixes: tuple[Mix, ...]) -> MOPDStage:
    """The recipe's recovery as a MOPD stage, which treats memory and experts as the stage that it recovers.

    Answers and conversations may be as long as in the longest exam.
    """
    rule, regressed = run.recipe.guard.recovery, find_stage(run.recipe, stage)
    return MOPDStage(
        name=stage,
        kind="mopd",
        data=mixes,
        steps=rule.steps,
        optimizer=rule.optimizer,
        limits=regressed.limits,
        moe=regressed.moe,
        micro_batch_tokens=regressed.micro_batch_tokens,
        save_every=regressed.save_every,
        keep_states=regressed.keep_states,
        prompts_per_step=rule.prompts_per_step,
        rollouts_per_prompt=rule.rollouts_per_prompt,
        sampling=recovery_sampling(run.recipe),
        full_vocabulary=rule.full_vocabulary,
        importance=rule.importance,
        workers=recovery_workers(run.recipe, regressed),
        parallel=recovery_parallel(run.recipe, regressed),
        activations=regressed.activations,
        frozen_weights=regressed.frozen_weights,
    )
