"""The recovery race on a toy cascade that forgets: who wins back what, and what an interruption costs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from toy_cascade import ENVIRONMENTS, make_run, stage
from typer.testing import CliRunner

from kascade.cli import app
from kascade.environments import BUILTIN
from kascade.errors import UserError
from kascade.lab.arms import fitted
from kascade.lab.race import run_recovery_race
from kascade.lab.results import ArmPoint, ArmResult, RaceResult, summarise_arm
from kascade.lab.settings import ARMS, RaceSettings
from kascade.learning.metrics import read_metrics
from kascade.recipe.schema import Optimizer
from kascade.run.context import open_run
from kascade.stages.tasks import recovery_mixes, sources_by_domain
from kascade.steps import steps
from kascade.steps.settle import settle_stage
from kascade.storage.run_folder import RunFolder

SFT = stage("sft", "sft", "say_a", "say_b", steps=30)
RL = stage("rl", "if_rl", "say_b", steps=1, optimizer={"learning_rate": 1e-3})
HARSH = {"learning_rate": 1e-2, "weight_decay": 0.0}
FORGET = stage("forget", "sft", "say_a", steps=4, optimizer=HARSH)
SETTINGS = RaceSettings(seeds=(0, 1), steps=12, score_every=5, validation_tasks=20, prompts_per_step=8)


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """A run whose last stage lost `say_b` and was not recovered."""
    with pytest.MonkeyPatch.context() as patch:
        for name, place in ENVIRONMENTS.items():
            patch.setitem(BUILTIN, name, place)
        layout = make_run(tmp_path_factory.mktemp("lab"), SFT, RL, FORGET)
        run = str(layout.root)
        parent = steps.preflight(run)
        steps.evaluate(run, "base", parent, parent)
        for name in ("sft", "rl", "forget"):
            candidate = steps.train(run, name, parent)
            steps.evaluate(run, name, candidate, parent)
            with open_run(run, f"{name}.settle") as opened:
                parent = settle_stage(opened, name, candidate, parent)
        yield layout


@pytest.fixture(scope="module")
def raced(forgetful: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RaceResult]:
    out = tmp_path_factory.mktemp("raced")
    with pytest.MonkeyPatch.context() as patch:
        for name, place in ENVIRONMENTS.items():
            patch.setitem(BUILTIN, name, place)
        return out, run_recovery_race(forgetful.root, out, SETTINGS)


def test_every_arm_starts_level_and_is_scored_at_every_interval(raced: tuple[Path, RaceResult]):
    race = raced[1]
    assert (race.stage, race.lost, race.kept) == ("forget", ("say_b",), ("say_a",))
    assert race.start_lost < 0.3
    assert race.teacher_level > 0.8
    assert race.start_kept is not None
    assert [arm.arm for arm in race.arms] == list(ARMS)
    for arm in race.arms:
        assert arm.seeds == (0, 1)
        assert [moment.step for moment in arm.moments] == [0, 5, 10, 12]
        assert arm.moments[0].lost.mean == race.start_lost
        assert 0 == arm.moments[0].cpu_s < arm.moments[1].cpu_s < arm.end.cpu_s


def test_teachers_and_demonstrations_bring_back_what_was_lost(raced: tuple[Path, RaceResult]):
    arms = {arm.arm: arm for arm in raced[1].arms}
    for name in ("mopd_full", "sft"):
        assert arms[name].end.lost.mean > raced[1].start_lost + 0.3
        assert arms[name].end.lost.low <= arms[name].end.lost.mean <= arms[name].end.lost.high


def test_learning_rates_are_the_recipes_own_for_each_method(raced: tuple[Path, RaceResult]):
    parts = {result.arm: result.part for result in raced[1].results}
    rates = {arm: part["optimizer"]["learning_rate"] for arm, part in parts.items()}
    assert rates == {"mopd": 1e-2, "mopd_full": 1e-2, "grpo": 1e-3, "sft": 1e-2}
    assert (
        parts["grpo"]["prompts_per_step"] == parts["mopd"]["prompts_per_step"] == parts["sft"]["batch_size"]
    )
    assert len({json.dumps(part["data"]) for part in parts.values()}) == 1


def test_arms_with_one_seed_draw_the_same_answers_first(raced: tuple[Path, RaceResult]):
    """Same prompts and same draws: both MOPD arms see the same responses before their weights part."""
    first = [
        read_metrics(next((raced[0] / "training").glob(f"{arm}-0-*/metrics.jsonl")))[0]
        for arm in ("mopd", "mopd_full")
    ]
    assert first[0]["response_tokens"] == first[1]["response_tokens"]
    assert first[0]["truncated"] == first[1]["truncated"]


def test_the_page_is_one_file_with_a_well_formed_figure(raced: tuple[Path, RaceResult]):
    page = (raced[0] / "recovery.html").read_text()
    assert not re.search(r'(src|href)="https?:', page)
    drawing = ElementTree.fromstring(re.search(r"<svg.*</svg>", page, re.DOTALL)[0])  # type: ignore[index]
    curves = [one for one in drawing.iter() if str(one.get("class")).startswith("arm ")]
    assert len(curves) == len(ARMS) * (4 + 1)  # four panels and the legend
    table = (raced[0] / "recovery.md").read_text()
    assert all(words in table and words in page for words in ("MOPD, sampled token", "SFT replay"))
    assert RaceResult.model_validate_json((raced[0] / "results.json").read_text()) == raced[1]


def test_an_interrupted_race_goes_on_where_it_stopped(forgetful: RunFolder, tmp_path: Path):
    settings = replace(SETTINGS, arms=("mopd_full", "sft"), seeds=(0,), steps=3)

    class InterruptedError(Exception):
        pass

    def interrupt(line: str) -> None:
        raise InterruptedError(line)

    with pytest.raises(InterruptedError, match="mopd_full, seed 0: lost"):
        run_recovery_race(forgetful.root, tmp_path, settings, announce=interrupt)
    (finished,) = (tmp_path / "arms").iterdir()
    half = tmp_path / "training" / "sft-0-half"  # an arm in the middle leaves curves, not a result
    half.mkdir(parents=True)
    before = finished.stat().st_mtime_ns
    said: list[str] = []
    race = run_recovery_race(forgetful.root, tmp_path, settings, announce=said.append)
    assert said[0] == "mopd_full, seed 0: is there already"
    assert said[1].startswith("sft, seed 0: lost")
    assert finished.stat().st_mtime_ns == before
    again = run_recovery_race(forgetful.root, tmp_path, settings)
    assert again == race
    assert len(list((tmp_path / "arms").iterdir())) == 2


def test_kept_domains_are_in_the_prompts_when_asked_for(forgetful: RunFolder, tmp_path: Path):
    settings = replace(SETTINGS, arms=("mopd_full",), seeds=(0,), steps=1, keep_weight=1.0)
    race = run_recovery_race(forgetful.root, tmp_path, settings)
    data = race.results[0].part["data"]
    assert [(mix["source"]["environment"], mix["weight"]) for mix in data] == [("say_b", 1.0), ("say_a", 1.0)]


def test_a_limit_that_stops_an_arm_is_told_not_hidden(tmp_path: Path, forgetful: RunFolder):
    text = forgetful.resolved_recipe.read_text()
    strict = json.loads(text)
    strict["stages"][2]["limits"]["max_logprob_gap"] = 1e-12  # of answers that are sampled
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("checkpoints", "scores", "verdicts", "outcomes"):
        (copy / name).symlink_to(forgetful.root / name)
    (copy / "recipe.resolved.json").write_text(json.dumps(strict))
    settings = replace(SETTINGS, arms=("mopd", "sft"), seeds=(0,), steps=3)
    race = run_recovery_race(copy, tmp_path / "out", settings)
    stopped, ran = race.arms
    assert stopped.end.step == 0
    assert "logprob_gap" in stopped.stopped[0]
    assert (ran.end.step, ran.stopped) == (3, ())
    assert "Stopped early: seed 0" in (tmp_path / "out" / "recovery.md").read_text()


def test_the_command_prints_the_table_and_json(forgetful: RunFolder, tmp_path: Path):
    few = ["--seeds", "0", "--steps", "2", "--tasks", "5", "--arms", "sft", "--out", str(tmp_path / "lab")]
    rate = ["--rate", "sft=0.002"]
    told = CliRunner().invoke(app, ["lab", "recovery", str(forgetful.root), *few, *rate])
    assert told.exit_code == 0, told.output
    assert "| SFT replay of reference answers | 0.002 |" in told.stdout
    as_json = CliRunner().invoke(app, ["lab", "recovery", str(forgetful.root), *few, *rate, "--json"])
    assert json.loads(as_json.stdout)["arms"][0]["learning_rate"] == 0.002


def test_faults_of_the_command_are_told_together(forgetful: RunFolder):
    wrong = ["--seeds", "a", "--arms", "sft,ppo", "--rate", "grpo=-1", "--rate", "x=1"]
    told = CliRunner().invoke(app, ["lab", "recovery", str(forgetful.root), *wrong])
    assert told.exit_code == 2
    for part in ("--seeds", "no such arm: ppo", "--rate grpo=-1", "--rate x=1"):
        assert part in told.stderr


def test_a_run_without_that_regression_and_a_foreign_folder_are_refused(forgetful: RunFolder, tmp_path: Path):
    with pytest.raises(UserError, match=r"no regressed checkpoint of stage 'sft'\n.*forget"):
        run_recovery_race(forgetful.root, tmp_path / "none", SETTINGS, stage="sft")
    assert not (tmp_path / "none").exists()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds files that are not those of `kascade lab recovery`"):
        run_recovery_race(forgetful.root, tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_arm_without_a_learning_rate_is_named(tmp_path: Path, forgetful: RunFolder):
    recipe = json.loads(forgetful.resolved_recipe.read_text())
    recipe["stages"] = [part for part in recipe["stages"] if part["kind"] == "sft"]
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("checkpoints", "scores", "verdicts", "outcomes"):
        (copy / name).symlink_to(forgetful.root / name)
    (copy / "recipe.resolved.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match="arm grpo: the recipe has no stage of this kind"):
        run_recovery_race(copy, tmp_path / "out", SETTINGS)


def test_another_rate_scales_the_whole_schedule_and_the_warm_up_fits():
    linear = Optimizer(
        learning_rate=1e-3, final_learning_rate=1e-4, schedule="linear", warmup_steps=10, warmup_start=1e-5
    )
    scaled = fitted(linear, 5e-4, 4)
    assert scaled.warmup_steps == 4
    assert scaled.learning_rate == pytest.approx(5e-4)
    assert scaled.final_learning_rate == pytest.approx(5e-5)
    assert scaled.warmup_start == pytest.approx(5e-6)
    assert fitted(linear, None, 40) == linear


def test_recovered_is_the_first_moment_whose_mean_over_seeds_is_enough():
    def result(seed: int, *scores: float) -> ArmResult:
        points = tuple(
            ArmPoint(step=5 * n, cpu_s=2.0 * n + seed, scores={"x": s}) for n, s in enumerate(scores)
        )
        part = {"optimizer": {"learning_rate": 1e-3}}
        return ArmResult(arm="mopd", seed=seed, part=part, points=points, updates_skipped=seed, stopped=None)

    results = [result(0, 0.2, 0.6, 0.9), result(1, 0.2, 0.8, 0.7)]
    summary = summarise_arm(results, ("x",), (), recovered_at=0.7)
    assert summary.recovered == summary.moments[1]
    assert (summary.moments[1].lost.low, summary.moments[1].lost.high) == (0.6, 0.8)
    assert summary.moments[1].cpu_s == 2.5
    assert summary.updates_skipped == 0.5
    assert summarise_arm(results, ("x",), (), recovered_at=0.9).recovered is None


def test_a_recovery_in_which_nothing_was_kept_has_prompts_of_the_lost(forgetful: RunFolder):
    with open_run(str(forgetful.root), "look") as run:
        sources = sources_by_domain(run.recipe, run.recipe.stages)
    mixes = recovery_mixes(sources, ("math", "knowledge"), (), keep_weight=1.0)
    assert [(mix.source.environment, mix.weight) for mix in mixes] == [("say_a", 0.5), ("say_b", 0.5)]


def test_gains_compare_a_stage_with_its_parent_on_more_tasks(forgetful: RunFolder, tmp_path: Path):
    few = ["--tasks", "30", "--samples", "3", "--out", str(tmp_path)]
    told = CliRunner().invoke(app, ["lab", "gains", str(forgetful.root), *few])
    assert told.exit_code == 0, told.output
    found = json.loads((tmp_path / "gains.json").read_text())
    assert [(one["stage"], one["benchmark"]) for one in found] == [
        ("sft", "say_a"),
        ("sft", "say_b"),
        ("rl", "say_b"),
        ("forget", "say_a"),
    ]
    assert all((one["num_tasks"], one["samples"]) == (30, 3) for one in found)
    raised = found[1]
    assert 0 < raised["interval"][0] < raised["after"] - raised["before"] < raised["interval"][1]
    assert told.stdout.splitlines()[3].endswith("| raised |")
    scores = {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").rglob("*.json")}
    again = CliRunner().invoke(app, ["lab", "gains", str(forgetful.root), *few, "--json"])
    assert json.loads(again.stdout) == found
    assert scores == {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").rglob("*.json")}
    only = CliRunner().invoke(app, ["lab", "gains", str(forgetful.root), *few, "--stage", "rl", "--json"])
    assert json.loads(only.stdout) == found[2:3]
    wrong = CliRunner().invoke(app, ["lab", "gains", str(forgetful.root), *few, "--stage", "rlhf"])
    assert wrong.exit_code == 2
    assert "allowed: sft, rl, forget" in wrong.stderr


def test_gains_leave_a_foreign_folder_alone(forgetful: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    told = CliRunner().invoke(app, ["lab", "gains", str(forgetful.root), "--out", str(tmp_path)])
    assert told.exit_code == 2
    assert "not those of `kascade lab gains`" in " ".join(told.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
