"""The recipe's limits: training stops, before the weights change, when one is passed."""

from __future__ import annotations

from collections.abc import Mapping

from kascade.errors import TrainingStopped
from kascade.recipe.schema import TrainingLimits

REMEDIES = {
    "logprob_gap": "sampler and trainer disagree: check precision and the sampling engine",
    "dropped": "tokens leave the importance range: lower optimizer.learning_rate, or widen `importance`",
    "entropy too low": "the policy has become too certain: lower optimizer.learning_rate, or fewer steps",
    "entropy": "the policy falls apart: lower optimizer.learning_rate, or set grpo.kl_coefficient",
    "response_tokens too low": "answers shrink: look at what the grader rewards",
    "response_tokens": "answers grow without end: set grpo.overlong to penalty",
    "truncated": "answers are cut off: raise sampling.max_new_tokens, or set grpo.overlong to penalty",
    "grader_errors": "graders fail: look at the errors in the step's log, and at the sandbox",
}


def check_limits(
    step: int, metrics: Mapping[str, float], limits: TrainingLimits, *, truncation_slack: float = 0.0
) -> None:
    """Raise TrainingStopped naming every limit passed, its value and what to try.

    Metrics that a stage does not have are not checked. truncation_slack: nats by which a truncated sampling
    distribution may differ from the whole one (-log top_p), added to the limit of the gap.
    """
    ceilings = {
        "logprob_gap": None if limits.max_logprob_gap is None else limits.max_logprob_gap + truncation_slack,
        "dropped": limits.max_dropped_tokens,
        "entropy": limits.max_entropy,
        "response_tokens": limits.max_response_tokens,
        "truncated": limits.max_truncated,
        "grader_errors": limits.max_grader_errors,
    }
    floors = {"entropy": limits.min_entropy, "response_tokens": limits.min_response_tokens}
    passed = [
        (name, f"{name} {metrics[name]:.4g} is above {limit:.4g}")
        for name, limit in ceilings.items()
        if limit is not None and name in metrics and metrics[name] > limit
    ]
    passed += [
        (f"{name} too low", f"{name} {metrics[name]:.4g} is below {limit:.4g}")
        for name, limit in floors.items()
        if limit is not None and name in metrics and metrics[name] < limit
    ]
    if passed:
        reasons = "\n".join(f"  {what}. {REMEDIES[name]}" for name, what in passed)
        raise TrainingStopped(f"step {step}: the recipe's limits stop the stage\n{reasons}")
