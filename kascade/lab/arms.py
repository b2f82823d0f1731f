"""The contenders of a recovery race: what each one learns from, as a stage of the recipe would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kascade.environments import domain_of
from kascade.errors import Fault, UserError
from kascade.lab.case import Regression
from kascade.lab.settings import Arm, RaceSettings
from kascade.recipe.identity import find_stage
from kascade.recipe.methods import METHODS
from kascade.recipe.schema import GRPO, MOPDStage, Optimizer, RLStage, SFTStage, StagePart
from kascade.run.context import Run
from kascade.stages.recover import recovery_part
from kascade.stages.tasks import recovery_mixes
from kascade.task import Domain

ArmPart = MOPDStage | RLStage | SFTStage


def arm_parts(run: Run, case: Regression, settings: RaceSettings) -> dict[Arm, ArmPart]:
    """Every arm as a stage, on the same prompts. Raises UserError for all that have no learning rate."""
    kept = case.kept if settings.keep_weight > 0 else ()
    mixes = recovery_mixes(case.sources, case.lost, kept, settings.keep_weight)
    recovery = recovery_part(run, case.stage, mixes)
    regressed = find_stage(run.recipe, case.stage)
    common = {
        "name": case.stage,
        "data": mixes,
        "steps": settings.steps,
        "limits": regressed.limits,
        "micro_batch_tokens": regressed.micro_batch_tokens,
        "save_every": settings.steps,
    }
    prompts = settings.prompts_per_step or recovery.prompts_per_step
    rollouts = {
        "prompts_per_step": prompts,
        "rollouts_per_prompt": settings.rollouts_per_prompt or recovery.rollouts_per_prompt,
        "sampling": recovery.sampling,
    }
    optimizers = arm_optimizers(run, case, settings)
    made: dict[Arm, ArmPart] = {}
    for arm, optimizer in optimizers.items():
        shared: dict[str, Any] = {**common, "optimizer": optimizer}
        match arm:
            case "mopd" | "mopd_full":
                full = arm == "mopd_full"
                importance = recovery.importance
                made[arm] = MOPDStage(
                    kind="mopd", full_vocabulary=full, importance=importance, **shared, **rollouts
                )
            case "grpo":
                rule = GRPO(min_usable_groups=min(GRPO().min_usable_groups, prompts))
                made[arm] = RLStage(kind="multi_domain_rl", grpo=rule, **shared, **rollouts)
            case "sft":
                made[arm] = SFTStage(kind="sft", batch_size=prompts, **shared)
    return made


def arm_optimizers(run: Run, case: Regression, settings: RaceSettings) -> dict[Arm, Optimizer]:
    """As the recipe trains by that method, with the learning rates that the settings name in their place.

    MOPD learns as the recipe's recovery does; GRPO and SFT as its first stage of that kind that trains a
    lost domain, else as its first of that kind. Raises UserError for arms of which the recipe has none.
    """
    stages = run.recipe.stages
    rl = _optimizer_of([part for part in stages if METHODS["multi_domain_rl"].trains(part)], case.lost)
    sft = _optimizer_of([part for part in stages if METHODS["sft"].trains(part)], case.lost)
    recovery = run.recipe.guard.recovery.optimizer
    own: Mapping[Arm, Optimizer | None] = {"mopd": recovery, "mopd_full": recovery, "grpo": rl, "sft": sft}
    found: dict[Arm, Optimizer] = {}
    faults = []
    for arm in settings.arms:
        optimizer, rate = own[arm], settings.learning_rates.get(arm)
        if optimizer is None and rate is None:
            what = "the recipe has no stage of this kind whose learning rate it could have"
            faults.append(Fault(f"arm {arm}", what, remedy=f"name one (--rate {arm}=RATE) or leave it out"))
            continue
        found[arm] = fitted(optimizer or Optimizer(), rate, settings.steps)
    if faults:
        raise UserError(faults)
    return found


def _optimizer_of(parts: list[StagePart], lost: tuple[Domain, ...]) -> Optimizer | None:
    fitting = [part for part in parts if any(domain_of(mix.source) in lost for mix in part.data)]
    return next((part.optimizer for part in (*fitting, *parts)), None)


def fitted(optimizer: Optimizer, rate: float | None, steps: int) -> Optimizer:
    """The optimiser with another peak, its schedule scaled with it, and a warm-up of at most `steps`."""
    factor = 1.0 if rate is None else rate / optimizer.learning_rate
    final = optimizer.final_learning_rate
    return optimizer.model_copy(
        update={
            "learning_rate": optimizer.learning_rate * factor,
            "final_learning_rate": None if final is None else final * factor,
            "warmup_start": optimizer.warmup_start * factor,
            "warmup_steps": min(optimizer.warmup_steps, steps),
        }
    )
