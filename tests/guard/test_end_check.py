"""The end check: what was best is held against the end, on fresh samples, without a single noisy winner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from guard_fixture import DOMAIN_OF, FixtureRun, answered, recipe

from kascade.guard.end_check import (
    EndVerdict,
    better,
    open_end_check,
    read_end_verdict,
    sentences,
    write_end_verdict,
)
from kascade.guard.lineage import open_reference
from kascade.guard.scores import read_scores

BEST = {"mcqa": 0.8, "ifeval": 0.4, "arith": 0.5}


@pytest.fixture
def run(tmp_path: Path) -> FixtureRun:
    return FixtureRun(tmp_path, rng=np.random.default_rng(4))


def ended(run: FixtureRun, end: dict[str, float]) -> tuple[str, str, str]:
    """Base, the best accepted checkpoint, and the last one with these chances."""
    base = run.checkpoint("base", "train", None)
    sft = run.checkpoint("sft", "train", base)
    run.settle("accepted", sft, base, sft)
    last = run.checkpoint("if_rl", "train", sft)
    run.settle("accepted", last, sft, last)
    for reference, chances in ((base, dict.fromkeys(BEST, 0.1)), (sft, BEST), (last, end)):
        run.score(reference, chances)
    return base, sft, last


def checked(run: FixtureRun, last: str, chances: dict[str, dict[str, float]]) -> EndVerdict:
    """The end check, drawn for every checkpoint that it asks for."""
    opened = open_end_check(run.layout, recipe(), last)
    drawn: set[tuple[str, str]] = set()
    while needed := opened.needed():
        for name, (reference, size) in needed.items():
            assert (name, reference) not in drawn, "64 samples decide or are the most"
            assert size in {2, 4, 8}, "at first two, then half of what the comparison before has taken"
            run.score(reference, {name: chances[reference][name]}, "end")
            if not drawn & {(name, other) for other in chances}:
                run.score(last, {name: chances[last][name]}, "end")
            drawn.add((name, reference))
    return opened.conclude(DOMAIN_OF)


def test_what_is_kept_and_what_is_lost_is_named(run: FixtureRun) -> None:
    end = {"mcqa": 0.72, "ifeval": 0.4, "arith": 0.6}
    base, sft, last = ended(run, end)
    found = checked(run, last, {base: dict.fromkeys(BEST, 0.1), sft: BEST, last: end})
    assert {name: held.standing for name, held in found.benchmarks.items()} == {
        "mcqa": "lost",
        "ifeval": "kept",
        "arith": "kept",
    }
    assert [one.checkpoint for one in found.benchmarks["mcqa"].against] == [sft], "the base was never near"
    assert not found.kept
    (sentence,) = sentences(found)
    assert sentence.startswith("mcqa is lost: 0.")
    write_end_verdict(run.layout, found)
    assert read_end_verdict(run.layout, last) == found
    assert read_end_verdict(run.layout, sft) is None


def test_two_checkpoints_near_the_best_are_both_held_against(run: FixtureRun) -> None:
    base, sft, last = ended(run, BEST)
    near = run.checkpoint("math_rl", "train", last)
    run.settle("accepted", near, last, near)
    run.score(near, BEST)
    opened = open_end_check(run.layout, recipe(), near)
    assert {one.reference for one in opened.against["mcqa"]} <= {sft, last}
    assert base not in {one.reference for one in opened.against["mcqa"]}
    assert max(len(others) for others in opened.against.values()) == 2


def test_the_strongest_comes_first_and_the_first_that_is_not_kept_decides(run: FixtureRun) -> None:
    base, sft, last = ended(run, BEST)
    end = {**BEST, "mcqa": 0.7}
    final = run.checkpoint("math_rl", "train", last)
    run.settle("accepted", final, last, final)
    run.score(final, end)
    opened = open_end_check(run.layout, recipe(), final)
    means = [read_scores(run.layout, one.digest, "screen")["mcqa"].mean for one in opened.against["mcqa"]]
    assert means == sorted(means, reverse=True)
    assert len(means) == 2
    found = checked(run, final, {base: BEST, sft: BEST, last: BEST, final: end})
    held = found.benchmarks["mcqa"]
    assert (held.standing, len(held.against), held.not_compared) == ("lost", 1, 1)
    (sentence,) = sentences(found)
    assert sentence.startswith("mcqa is lost: 0.")
    assert " in sft/train-k and 0." in sentence or " in if_rl/train-k and 0." in sentence
    assert sentence.endswith("; 1 more not compared).")
    assert held.against[0].checkpoint == opened.against["mcqa"][0].reference
    assert all(one.not_compared == 0 for name, one in found.benchmarks.items() if name != "mcqa")


def test_the_next_comparison_begins_with_half_of_what_the_one_before_has_taken(run: FixtureRun) -> None:
    _, _, last = ended(run, BEST)
    near = run.checkpoint("math_rl", "train", last)
    run.settle("accepted", near, last, near)
    run.score(near, BEST)
    opened = open_end_check(run.layout, recipe(retention={"near_best": 100.0}), near)
    first, _ = opened.needed()["mcqa"]
    run.score(first, {"mcqa": BEST["mcqa"]}, "end")
    run.score(near, {"mcqa": BEST["mcqa"]}, "end")
    (compared, _) = opened.compared("mcqa")
    assert compared.looked is not None
    taken = compared.looked.size
    assert taken >= 8
    following, size = opened.needed()["mcqa"]
    assert following == opened.against["mcqa"][1].reference != first
    assert size == taken // 2


def test_another_margin_in_the_same_folder_says_another_word(run: FixtureRun) -> None:
    """The answers are there, and are judged by the recipe at hand."""
    end = {**BEST, "mcqa": 0.72}
    base, sft, last = ended(run, end)
    found = checked(run, last, {base: BEST, sft: BEST, last: end})
    assert found.benchmarks["mcqa"].standing == "lost"
    wide = open_end_check(run.layout, recipe(retention={"margin": 0.3}), last)
    assert wide.needed() == {}
    assert wide.conclude(DOMAIN_OF).benchmarks["mcqa"].standing == "kept"


def test_a_model_that_comes_again_is_held_against_once(run: FixtureRun) -> None:
    base, sft, last = ended(run, BEST)
    again = run.checkpoint("math_rl", "train", last, weights="if_rl train k")
    run.settle("accepted", again, last, again)
    run.score(again, BEST)
    opened = open_end_check(run.layout, recipe(), again)
    assert {one.reference for ones in opened.against.values() for one in ones} <= {base, sft}, "not itself"
    final = run.checkpoint("math_rl", "train", again, key="other")
    run.settle("accepted", final, again, final)
    run.score(final, BEST)
    against = open_end_check(run.layout, recipe(), final).against.values()
    assert not any({last, again} <= {one.reference for one in ones} for ones in against)


def test_a_benchmark_without_an_earlier_grade_is_not_kept(run: FixtureRun) -> None:
    base = run.checkpoint("base", "train", None)
    last = run.checkpoint("sft", "train", base)
    run.settle("accepted", last, base, last)
    run.score(base, {"mcqa": 0.5, "ifeval": 0.5})
    run.score(last, BEST)
    found = open_end_check(run.layout, recipe(), last).conclude(DOMAIN_OF)
    assert found.benchmarks["arith"].standing == "not_judged"
    assert not found.kept


def test_who_is_near_the_best_is_the_recipes_choice(run: FixtureRun) -> None:
    _, _, last = ended(run, BEST)
    final = run.checkpoint("math_rl", "train", last)
    run.settle("accepted", final, last, final)
    run.score(final, BEST)
    sizes = [
        sum(
            map(
                len, open_end_check(run.layout, recipe(retention={"near_best": near}), final).against.values()
            )
        )
        for near in (0.0, 2.0, 100.0)
    ]
    assert sizes[0] == 3, "of each benchmark the best alone"
    assert sizes[0] < sizes[1] < sizes[2] == 9


def test_everything_kept_is_one_sentence_and_the_better_of_two_counts(run: FixtureRun) -> None:
    base, sft, last = ended(run, BEST)
    found = checked(run, last, {base: dict.fromkeys(BEST, 0.1), sft: BEST, last: BEST})
    assert found.kept
    assert sentences(found) == ["Every benchmark is kept within 0.03 of its best accepted checkpoint."]
    lost = found.model_copy(
        update={
            "benchmarks": {
                name: held.model_copy(update={"standing": "lost"}) for name, held in found.benchmarks.items()
            }
        }
    )
    assert better(lost, found) is found
    assert better(found, lost) is found


def test_what_could_not_be_judged_is_never_the_better_one(run: FixtureRun) -> None:
    end = {**BEST, "mcqa": 0.72}
    base, sft, last = ended(run, end)
    lost = checked(run, last, {base: dict.fromkeys(BEST, 0.1), sft: BEST, last: end})
    assert lost.not_kept.keys() == {"mcqa"}
    unknown = lost.benchmarks["mcqa"].model_copy(update={"standing": "not_judged", "against": ()})
    blind = lost.model_copy(update={"benchmarks": {**lost.benchmarks, "mcqa": unknown}})
    assert better(lost, blind) is lost and better(blind, lost) is lost


def test_a_check_without_grades_is_not_kept(run: FixtureRun) -> None:
    _, _, last = ended(run, BEST)
    found = open_end_check(run.layout, recipe(), last).conclude(DOMAIN_OF)
    assert {held.standing for held in found.benchmarks.values()} == {"not_judged"}
    assert not found.kept


@pytest.mark.parametrize(
    ("falls", "lost"),
    [
        ({"mcqa": (4, 0)}, set()),  # p .029: one of three benchmarks says so by chance
        ({"mcqa": (5, 0)}, {"mcqa"}),  # .016 < .05 / 3
        ({"mcqa": (8, 0), "ifeval": (7, 1)}, {"mcqa", "ifeval"}),  # .003, then .0195 < .05 / 2
        ({"mcqa": (8, 0), "ifeval": (7, 1), "arith": (4, 0)}, {"mcqa", "ifeval", "arith"}),
        ({"ifeval": (7, 1), "arith": (4, 0)}, set()),
    ],
)
def test_lost_is_said_at_the_level_of_all_benchmarks(
    run: FixtureRun, falls: dict[str, tuple[int, int]], lost: set[str]
) -> None:
    _, sft, last = ended(run, BEST)
    made = recipe(retention={"samples": 2, "near_best": 0.0})
    check = open_end_check(run.layout, made, last)
    check = replace(check, against={name: [open_reference(sft)] for name in BEST})
    answered(run, sft, dict.fromkeys(BEST, (0, 0)))
    answered(run, last, dict.fromkeys(BEST, (0, 0)) | falls)
    found = check.conclude(DOMAIN_OF)
    assert check.needed() == {}
    assert {name for name, held in found.benchmarks.items() if held.standing == "lost"} == lost
    assert all(found.benchmarks[name].standing == "not_shown" for name in falls.keys() - lost)
    for held in found.benchmarks.values():
        assert held.against[-1].level == 0.05, "that all are kept needs no correction"
        assert (held.against[-1].limits[1] < 0) == (held.standing == "lost"), "the limits say the word"
        assert held.against[-1].standing == held.standing


def test_lost_is_said_at_the_level_of_all_checkpoints_near_the_best(run: FixtureRun) -> None:
    base, sft, last = ended(run, BEST)
    made = recipe(retention={"samples": 2})
    answered(run, last, {"mcqa": (5, 0)})
    for other in (base, sft):
        answered(run, other, {"mcqa": (0, 0)})
    words = [
        replace(open_end_check(run.layout, made, last), against={"mcqa": list(map(open_reference, others))})
        .conclude(DOMAIN_OF)
        .benchmarks["mcqa"]
        .standing
        for others in ([sft], [sft, base])
    ]
    assert words == ["lost", "not_shown"]
