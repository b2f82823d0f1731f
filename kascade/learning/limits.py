"""The recipe's limits: training stops, before the weights change, when one is passed."""

from __future__ import annotations

from collections.abc import Mapping

from kascade.errors import TrainingStopped
from kascade.recipe.schema import Limits

REMEDIES = {
    "logprob_gap": "sampler and trainer disagree: check precision and the sampling engine",
    "dropped": "tokens leave the importance range: lower optimizer.learning_rate, or widen `importance`",
    "entropy": "the policy has become too certain: lower optimizer.learning_rate, or fewer steps",
    "truncated": "answers are cut off: raise sampling.max_new_tokens, or set grpo.overlong to penalty",
    "grader_errors": "graders fail: look at the errors in the step's log, and at the sandbox",
}


def check_limits(
    step: int, metrics: Mapping[str, float], limits: Limits, *, truncation_slack: float = 0.0
) -> None:
    """Raise TrainingStopped naming every limit passed, its value and what to try.

    Metrics that a stage does not have are not checked. truncation_slack: nats by which a truncated sampling
    distribution may differ from the whole one (-log top_p), added to the limit of the gap.
    """
    ceilings = {
        "logprob_gap": None if limits.max_logprob_gap is None else limits.max_logprob_gap + truncation_slack,
        "dropped": limits.max_dropped_tokens,
        "truncated": limits.max_truncated,
        "grader_errors": limits.max_grader_errors,
    }
    passed = [
        (name, f"{metrics[name]:.4g} is above {limit:.4g}")
        for name, limit in ceilings.items()
        if limit is not None and name in metrics and metrics[name] > limit
    ]
    if limits.min_entropy is not None and metrics.get("entropy", limits.min_entropy) < limits.min_entropy:
        passed.append(("entropy", f"{metrics['entropy']:.4g} is below {limits.min_entropy:.4g}"))
    if passed:
        reasons = "\n".join(f"  {name} {what}. {REMEDIES[name]}" for name, what in passed)
        raise TrainingStopped(f"step {step}: the recipe's limits stop the stage\n{reasons}")
