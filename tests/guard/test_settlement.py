"""What follows from verdicts: the best attempt, the budget of what is let pass, the words."""

from __future__ import annotations

import pytest

from kascade.guard.settlement import best_attempt, settle
from kascade.guard.verdict import Baseline, BenchmarkVerdict, Decision, Verdict
from kascade.recipe.guard import Guard


def benchmark(difference: float, decision: Decision) -> BenchmarkVerdict:
    return BenchmarkVerdict(
        benchmark="math",
        domain="math",
        role="guard",
        before=Baseline(checkpoint="file:///b@sha256:" + "0" * 64, mean=0.5),
        after=0.5 + difference,
        difference=difference,
        interval=(difference - 0.01, difference + 0.01),
        phase="confirm",
        num_tasks=400,
        num_left_out=0,
        samples_before=16,
        samples_after=16,
        p=1e-6,
        level=1e-5,
        min_drop=0.03,
        rise=None,
        decision=decision,
        reason="as found",
    )


def verdict(round_: int, **benchmarks: tuple[float, Decision]) -> Verdict:
    found = {name: benchmark(*given) for name, given in benchmarks.items()}
    lost = any(one.decision in {"regressed", "not_recovered"} for one in found.values())
    attempt = f"recover-{round_}" if round_ else "train"
    return Verdict(
        id=f"s/{attempt}-k",
        checkpoint="file:///c@sha256:" + "1" * 64,
        stage="s",
        attempt=attempt,
        round=round_,
        parent="file:///b@sha256:" + "0" * 64,
        benchmarks=found,
        regressed=lost,
        lost_domains=("math",) if lost else (),
        goals_met=None,
        created="2026-01-01T00:00:00+00:00",
    )


def test_the_best_of_all_attempts_is_kept_and_not_the_last() -> None:
    attempts = [
        verdict(0, math=(-0.10, "regressed")),
        verdict(1, math=(-0.03, "not_recovered")),
        verdict(2, math=(-0.06, "regressed")),
    ]
    assert best_attempt(attempts) == 1
    end = settle(attempts, Guard(let_pass_budget=0.04), {})
    assert (end.decision, end.best) == ("continued", 1)
    assert end.let_pass == {"math": pytest.approx(0.03)}
    assert "recover-1 is the best attempt, and represents the stage" in end.reasons


def test_of_two_equal_recoveries_the_later_one_represents_the_stage() -> None:
    attempts = [verdict(0, math=(-0.10, "regressed"))]
    attempts += [verdict(round_, math=(-0.04, "not_recovered")) for round_ in (1, 2)]
    assert best_attempt(attempts) == 2
    assert settle(attempts, Guard(), {}).let_pass == {"math": pytest.approx(0.04)}


def test_a_loss_that_a_recovery_causes_counts_against_it() -> None:
    attempts = [
        verdict(0, math=(-0.05, "regressed"), chat=(0.0, "held")),
        verdict(1, math=(-0.01, "suspicious_cleared"), chat=(-0.20, "regressed")),
    ]
    assert best_attempt(attempts) == 0


def test_what_is_shown_to_be_back_is_recovered() -> None:
    attempts = [verdict(0, math=(-0.10, "regressed")), verdict(1, math=(-0.005, "suspicious_cleared"))]
    end = settle(attempts, Guard(), {})
    assert (end.decision, end.best) == ("recovered", 1)
    assert "shown to be back" in end.reasons[-1]


def test_not_shown_is_not_recovered() -> None:
    attempts = [verdict(0, math=(-0.10, "regressed")), verdict(1, math=(-0.02, "not_recovered"))]
    assert settle(attempts, Guard(), {}).decision == "continued"
    assert settle(attempts, Guard(unrecovered="rollback"), {}).decision == "rolled_back"
    assert settle(attempts, Guard(unrecovered="stop"), {}).decision == "stopped"


def test_the_budget_of_what_is_let_pass_ends_five_points_and_then_one_a_stage() -> None:
    guard, passed, ends = Guard(), {"math": 0.0}, []
    for loss in (0.05, 0.01, 0.01):
        end = settle([verdict(0, math=(-loss, "regressed"))], guard, passed)
        ends.append(end.decision)
        passed = {"math": passed["math"] + end.let_pass.get("math", 0.0)}
    assert ends == ["continued", "rolled_back", "rolled_back"]
    assert passed == {"math": pytest.approx(0.05)}


def test_nothing_lost_is_accepted_in_plain_words() -> None:
    end = settle([verdict(0, math=(0.0, "held"))], Guard(), {})
    assert (end.decision, end.reasons) == ("accepted", ("no benchmark is lost",))
