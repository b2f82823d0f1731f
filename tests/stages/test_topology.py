"""A race of two orders of stages on the toy cascade: the same budget, other orders, one verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel
from toy_cascade import ENVIRONMENTS, save_base, stage
from typer.testing import CliRunner

from kascade.cli import app
from kascade.environments import BUILTIN
from kascade.errors import UserError
from kascade.lab.topology import check_recipes, planned_answers, race_topologies
from kascade.lab.topology_page import markdown
from kascade.lab.topology_results import TopologyRace, TopologySettings, differences, student_interval
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Recipe

SFT = stage("sft", "sft", "say_a", "say_b", steps=5)
SETTINGS = TopologySettings(seeds=(0, 1), tasks=24, samples=2)


def recipe(name: str, base: Path, *stages: dict[str, Any]) -> Recipe:
    exams = [
        {"name": one, "source": {"environment": one}, "tasks": 40, "sampling": {"max_new_tokens": 4}}
        for one in ("say_a", "say_b")
    ]
    return Recipe.model_validate(
        {
            "kascade": 1,
            "name": name,
            "model": {"source": str(base)},
            "stages": stages,
            "benchmarks": exams,
            "guard": {"weak_exams": "warn"},
        }
    )


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, place in ENVIRONMENTS.items():
            patch.setitem(BUILTIN, name, place)
        yield


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recipe]:
    """One after the other, against two specialists that teach one student; 768 answers each."""
    base = save_base(tmp_path_factory.mktemp("models") / "base")
    teachers = {"math": "a", "knowledge": "b"}
    student = stage("student", "mopd", "say_a", "say_b", steps=4, teachers=teachers, full_vocabulary=True)
    return {
        "line": recipe(
            "line", base, SFT, stage("a", "if_rl", "say_a", steps=6), stage("b", "if_rl", "say_b", steps=6)
        ),
        "branches": recipe(
            "branches",
            base,
            SFT,
            stage("a", "if_rl", "say_a", steps=4, side_branch=True),
            stage("b", "if_rl", "say_b", steps=4, side_branch=True),
            student,
        ),
    }


@pytest.fixture(scope="module")
def raced(recipes: dict[str, Recipe], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TopologyRace]:
    out = tmp_path_factory.mktemp("race") / "out"
    return out, race_topologies(recipes, out, SETTINGS)


@pytest.mark.slow
def test_the_race_trains_both_orders_on_one_budget_and_goes_on_where_it_stopped(
    recipes: dict[str, Recipe], raced: tuple[Path, TopologyRace]
) -> None:
    out, race = raced
    assert [(one.recipe, one.seed) for one in race.entries] == [
        ("line", 0),
        ("branches", 0),
        ("line", 1),
        ("branches", 1),
    ]
    assert {one.sampled.answers for one in race.entries} == {768}
    line, branches = race.entries[:2]
    assert line.checkpoint.partition("/b/")[1] and branches.checkpoint.partition("/student/")[1]
    assert line.stages == branches.stages, "the SFT of a seed is one checkpoint"
    assert all(len(drawn) == 2 for one in race.entries for drawn in one.rewards["say_b"].values())
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    again = race_topologies(recipes, out, SETTINGS)
    assert again == race
    assert made == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}


@pytest.mark.slow
def test_the_difference_over_seeds_is_a_paired_t_test(raced: tuple[Path, TopologyRace]) -> None:
    race = raced[1]
    found = differences(race, "branches")
    means = {name: [one.mean for one in race.of(name)] for name in race.recipes}
    theirs = ttest_rel(means["branches"], means["line"]).confidence_interval()
    assert found["mean"].interval == pytest.approx((theirs.low, theirs.high))
    text = markdown(race)
    assert "| line | 768 |" in text and "| mean |" in text
    low, high = found["mean"].interval
    assert ("neither is shown" in text) == (low <= 0 <= high)
    assert all(np.isnan(student_interval([0.5])))


def test_races_that_are_not_fair_are_refused_with_all_reasons(recipes: dict[str, Recipe]) -> None:
    longer = recipes["line"].model_copy(
        update={
            "stages": [
                *recipes["line"].stages[:-1],
                recipes["line"].stages[-1].model_copy(update={"steps": 9}),
            ]
        }
    )
    open_one = recipes["branches"].stages[-1].model_copy(update={"teachers": {"math": "a"}})
    unnamed = recipes["branches"].model_copy(update={"stages": [*recipes["branches"].stages[:-1], open_one]})
    with pytest.raises(UserError) as refused:
        check_recipes({"line": longer, "branches": unnamed}, SETTINGS)
    text = str(refused.value)
    assert "samples 768 answers, line 960" in text
    assert "no stage is named that teaches knowledge" in text
    with pytest.raises(UserError, match="alone is no race"):
        check_recipes({"line": recipes["line"]}, SETTINGS)


def test_the_shipped_recipes_race_on_one_budget() -> None:
    both = {name: load_recipe(name, scale="race") for name in ("quickstart", "specialists")}
    check_recipes(both, TopologySettings())
    assert {planned_answers(recipe) for recipe in both.values()} == {16128}
    whole = [planned_answers(load_recipe(name)) for name in both]
    assert abs(whole[1] / whole[0] - 1) < 0.006


def test_the_command_names_what_is_wrong_before_anything_runs(tmp_path: Path) -> None:
    wrong = CliRunner().invoke(app, ["lab", "topology", "--seeds", "a", "--out", str(tmp_path / "out")])
    assert wrong.exit_code == 2 and "is not a list of whole numbers" in wrong.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    foreign = CliRunner().invoke(app, ["lab", "topology", "--seeds", "0", "--out", str(tmp_path / "out")])
    assert foreign.exit_code == 2 and "not those of `kascade lab topology`" in " ".join(
        foreign.stderr.split()
    )
    alone = CliRunner().invoke(app, ["lab", "topology", "quickstart", "--out", str(tmp_path / "x")])
    assert alone.exit_code == 2 and not (tmp_path / "x").exists()
    assert "alone is no race" in " ".join(alone.stderr.split())
