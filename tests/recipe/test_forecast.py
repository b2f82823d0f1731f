"""What a recipe costs before it starts: by formula, by measurement, at a price; and against what it took."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from recipes_for_tests import write_recipe

from kascade.recipe.fits import model_shape
from kascade.recipe.forecast import Forecast, PlannedWork, Span, forecast
from kascade.recipe.hardware import DEVICES
from kascade.recipe.load import load_recipe, preset_names
from kascade.recipe.measured import Measurement, measure, runs_beside, shipped, unit_key
from kascade.recipe.plan import make_plan
from kascade.recipe.plan_actual import plan_against_actual
from kascade.recipe.plan_short import in_short
from kascade.recipe.plan_words import amount, forecast_table, hours, price, span_text
from kascade.recipe.run_recipe import keep_recipe, read_run_recipe
from kascade.recipe.schema import Recipe
from kascade.recipe.speeds import Speed, active_parameters, forward_flops, weights_read
from kascade.run.machine import accelerators_held
from kascade.run.outlook import still_needed
from kascade.storage.files import write_json
from kascade.storage.run_folder import RunFolder

OLD_RUN = Path(__file__).parents[1] / "e2e" / "old_run" / "run"
PRICED = ["prices.accelerator_hour=2.5", "prices.cpu_hour=0.04"]
COSTS = {"base.train.evaluate": 4, "sft.train": 10, "sft.train.evaluate": 2, "chat_teacher.train": 3}
COSTS |= {"if_rl.train": 20, "if_rl.recover-1": 6, "if_rl.recover-1.evaluate": 1, "if_rl.recover-2": 9}
COSTS |= {"mopd.train": 4, "retain": 5, "preflight": 1, "sft.settle": 1}


def rows_of(found: Forecast) -> Mapping[str, PlannedWork]:
    return {f"{row.stage}.{row.part}": row for row in found.rows}


def cpu(row: PlannedWork) -> Span:
    assert row.figures.cpu_hours is not None
    return row.figures.cpu_hours


def measured_run(tmp_path: Path, name: str = "run", **changed: float) -> tuple[Recipe, RunFolder]:
    """A run whose steps are said to have taken so many CPU seconds."""
    recipe, folder = load_recipe(write_recipe(tmp_path)), RunFolder(tmp_path / "runs" / name)
    keep_recipe(folder, recipe)
    for step, seconds in {**COSTS, **changed}.items():
        write_json(folder.cost(step), {"cpu_s": seconds, "wall_s": 2 * seconds})
    return recipe, folder


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_answers_on_the_first_day(preset: str) -> None:
    """Hours and money for each stage, its benchmarks, its recoveries and the end check, with their basis."""
    found = forecast(load_recipe(preset, PRICED))
    total = found.total
    for span in (total.wall_hours, total.cpu_hours, total.money):
        assert span is not None and 0 < span.low <= span.expected <= span.high
    for row in found.rows:
        assert row.date and row.basis.partition(" ")[0] in ("measured", "other", "formula:"), row
        assert cpu(row).low <= cpu(row).expected <= cpu(row).high
    assert found.storage is not None and found.storage.kept_gb <= found.storage.worst_gb
    worst = found.worst["money"]
    assert worst is not None and worst > (total.money.high if total.money else 0)
    assert len(forecast_table(found).rows) == len(found.rows) + 2


@pytest.mark.parametrize("preset", ["quickstart", "quickstart-short", "sft-dpo"])
def test_a_preset_that_was_measured_is_planned_by_its_own_run(preset: str) -> None:
    """A rehearsal of a few steps recovers nothing, and says nothing about whole runs of the same model."""
    found = forecast(load_recipe(preset))
    (own,) = [one for one in shipped() if one.recipe == preset]
    trained = [row for row in found.rows if row.part in ("train", "benchmarks", "end check")]
    assert all(row.basis.startswith(f"measured in {own.name} (") for row in trained)
    for row in found.rows:
        if row.part == "recovery":
            took = own.units.get(f"{row.stage}.recovery")
            assert row.rounds == (took.times if took else 0)
    total = found.total.cpu_hours
    assert total is not None
    assert total.expected * 3600 == pytest.approx(sum(one.cpu_s for one in own.units.values()), rel=0.02)


def test_work_that_was_not_measured_is_planned_by_work_of_its_size() -> None:
    """Of work of a second or two, most is the start: a hundred times of it would be hours."""
    total = forecast(load_recipe("specialists")).total.cpu_hours
    assert total is not None and total.high < 1


def test_what_costs_nothing_is_said_to_cost_nothing() -> None:
    made = make_plan(load_recipe("quickstart-short", ["prices.cpu_hour=0", "prices.currency=EUR"]))
    table = forecast_table(made.forecast)
    column = table.head.index("EUR")
    assert {row[column] for row in table.rows} == {"0.00"}
    assert "Money: 0.00 EUR." in in_short(made)


def test_a_device_that_nobody_knows_is_said_to_be_unknown() -> None:
    recipe = load_recipe("nemotron-cascade-2", ["hardware.device=mine", "hardware.memory_gib=80"])
    found = forecast(recipe)
    assert found.total.wall_hours is None and found.worst["money"] is None
    assert "nothing says" in found.rows[0].basis
    assert found.total.tokens_generated.expected > 1e9  # tokens are known all the same
    assert forecast_table(found).rows[0][2] == "?"


def test_operations_of_a_token_are_twice_the_parameters_that_it_meets() -> None:
    """The makers' own numbers: Qwen3-14B 13.2 G beside the embedding; Nano 3.2 G of 31.6 G active."""
    dense = model_shape(load_recipe("nemotron-cascade-1-14b"))
    mixed = model_shape(load_recipe("nemotron-cascade-2"))
    assert dense is not None and mixed is not None
    head = dense.vocabulary * dense.hidden
    assert active_parameters(dense) - head == pytest.approx(13.2e9, rel=0.01)
    assert active_parameters(mixed) == pytest.approx(3.2e9, rel=0.03)
    assert mixed.size == pytest.approx(31.6e9, rel=0.01)
    assert forward_flops(dense, 0) == 2 * active_parameters(dense)
    width = 40 * 128  # of all query heads: scores and their sum over half of 8,192 tokens, 40 layers
    assert forward_flops(dense, 8192) - forward_flops(dense, 0) == 40 * 4 * width * 4096


def test_a_large_batch_reads_all_experts_and_a_single_row_few() -> None:
    mixed = model_shape(load_recipe("nemotron-cascade-2"))
    assert mixed is not None
    assert weights_read(mixed, 1) < 0.25 * weights_read(mixed, 256) <= 2 * mixed.size


def test_training_takes_operations_over_peak_and_sampling_bytes_over_bandwidth() -> None:
    recipe = load_recipe("nemotron-cascade-1-14b")
    shape = model_shape(recipe)
    assert shape is not None and recipe.hardware is not None
    speed = Speed.of(shape, recipe.hardware)
    assert speed is not None and speed.kind == "dense"
    device = DEVICES["h100-80gb"]
    from kascade.recipe.layout import exactly

    learnt = speed.training_s(exactly(1e9), exactly(0), backward=2, scored=0, devices=8)
    floor = 6 * active_parameters(shape) * 1e9 / (8 * device.tflops * 1e12)
    assert learnt.low == pytest.approx(floor / 0.45) and learnt.expected == pytest.approx(floor / 0.35)
    drawn = speed.sampling_s(exactly(1e6), exactly(0), rows=1, engines=1, cut=1)
    assert drawn.expected / 1e6 == pytest.approx(weights_read(shape, 1) / (3350e9 * 0.45) + 0.005)


def test_twice_the_steps_take_twice_as_long_and_a_price_makes_money_of_it() -> None:
    short, long = (
        rows_of(forecast(load_recipe("nemotron-cascade-2", [f"code_rl.steps={steps}", *PRICED])))[
            "code_rl.train"
        ]
        for steps in (1000, 2000)
    )
    ratio = long.figures.accelerator_hours, short.figures.accelerator_hours
    assert ratio[0] is not None and ratio[1] is not None and long.figures.money is not None
    assert ratio[0].expected / ratio[1].expected == pytest.approx(2, rel=0.01)
    assert long.figures.money.expected == pytest.approx(2.5 * ratio[0].expected + 0.04 * cpu(long).expected)


def test_an_own_run_counts_before_what_ships_and_scales_with_the_work(tmp_path: Path) -> None:
    recipe, folder = measured_run(tmp_path)
    own = measure(folder, recipe, "run")
    rows = rows_of(forecast(recipe, [own]))
    assert cpu(rows["if_rl.train"]).expected == pytest.approx(20 / 3600)
    assert cpu(rows["if_rl.recovery"]).expected == pytest.approx(8 / 3600)  # each of two: 16 s in all
    assert rows["if_rl.recovery"].rounds == 2 and rows["mopd.recovery"].rounds == 0
    assert "run" in rows["sft.train"].basis and rows["sft.train"].date == own.date
    longer = load_recipe(tmp_path / "recipe.yaml", [f"if_rl.steps={2 * recipe.stages[2].steps}"])
    assert cpu(rows_of(forecast(longer, [own]))["if_rl.train"]).expected == pytest.approx(
        39 / 3600
    )  # a second of 20 was its start
    plain = rows_of(forecast(recipe))
    assert "quickstart" in plain["sft.train"].basis


def test_runs_of_the_same_model_beside_the_output_are_found(tmp_path: Path) -> None:
    recipe, folder = measured_run(tmp_path)
    assert [one.name for one in runs_beside(tmp_path / "runs" / "next", recipe)] == ["run"]
    assert runs_beside(folder.root, recipe) == []  # a run is no basis for itself
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"source": "Org/Other"})})
    assert runs_beside(tmp_path / "runs" / "next", other) == []


@pytest.mark.parametrize(
    ("step", "key"),
    [
        ("if_rl.train", "if_rl.train"),
        ("if_rl.train.evaluate", "if_rl.benchmarks"),
        ("base.train.evaluate", "base.benchmarks"),
        ("if_rl.recover-2", "if_rl.recovery"),
        ("if_rl.recover-2.evaluate", "if_rl.recovery"),
        ("if_rl.recover-2.verdict", "other"),
        ("retain", "end.end check"),
        ("preflight", "other"),
    ],
)
def test_every_step_belongs_to_one_piece_of_work(step: str, key: str) -> None:
    assert unit_key(step) == key


def test_what_ships_names_its_date_and_processor() -> None:
    for one in shipped():
        assert one.date >= "2026-11-01" and "cores" in one.processor and one.stages
        assert Measurement.model_validate(one.model_dump()) == one


def test_what_a_run_took_is_held_against_its_plan(tmp_path: Path) -> None:
    """Also of a run of an earlier version: its costs are all there, once."""
    for folder in (RunFolder(OLD_RUN), measured_run(tmp_path)[1]):
        found = plan_against_actual(folder, read_run_recipe(folder.root))
        whole = {one.figure: one for one in found if one.stage == "in all"}
        spent = sum(float(cost["cpu_s"]) for cost in folder.costs().values())
        assert whole["cpu_hours"].actual == pytest.approx(spent / 3600)
        assert "accelerator_hours" not in whole  # none were held


def test_the_gate_expects_what_the_plan_does_corrected_by_what_was_spent(tmp_path: Path) -> None:
    """A machine that is twice as slow as the shipped measurement says is expected to stay so."""
    recipe, folder = measured_run(tmp_path)
    plan = rows_of(forecast(recipe))
    wanted = sum(cpu(plan[f"mopd.{part}"]).expected for part in ("train", "benchmarks"))
    before = sum(one.actual for one in plan_against_actual(folder, recipe) if one.figure == "cpu_hours")
    assert still_needed(folder, recipe, "mopd")["cpu_hours"] > 0 and before and wanted
    empty = RunFolder(tmp_path / "empty")
    keep_recipe(empty, recipe)
    assert still_needed(empty, recipe, "mopd")["cpu_hours"] == pytest.approx(wanted)
    write_json(empty.cost("base.train.evaluate"), {"cpu_s": 2 * 3600 * cpu(plan["base.benchmarks"]).expected})
    assert still_needed(empty, recipe, "mopd")["cpu_hours"] == pytest.approx(2 * wanted)
    assert still_needed(empty, recipe, "mopd.recover-1") != still_needed(empty, recipe, "mopd")
    unknown = load_recipe("nemotron-cascade-2", ["hardware.device=mine", "hardware.memory_gib=80"])
    assert still_needed(empty, unknown, "sft") == {}


def test_numbers_are_short_and_keep_their_unit() -> None:
    assert (hours(3 / 3600), hours(0.5), hours(12_345)) == ("3.0 s", "30 min", "12.3k h")
    assert (amount(820), amount(2496), amount(1.65e9)) == ("820", "2,496", "1.65G")
    assert (price(0.0012), price(12.5), price(12_345.0)) == ("0.0012", "12.50", "12.3k")
    assert span_text(Span(low=0.5, expected=2, high=12), "wall_hours") == "2.0 h (0.5-12)"
    nothing = Span(low=0, expected=0, high=0)
    assert (span_text(nothing, "wall_hours"), span_text(nothing, "money")) == ("", "0.00")


def test_a_pod_holds_its_accelerators_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all nodes of a job; of one node while benchmarks run; none in a step without a model."""
    recipe = load_recipe("nemotron-cascade-1-14b")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    held = {
        step: accelerators_held(recipe, step) for step in ("rlhf.train", "rlhf.train.evaluate", "rlhf.settle")
    }
    assert held == {"rlhf.train": 24, "rlhf.train.evaluate": 1, "rlhf.settle": 0}
    assert accelerators_held(recipe, "retain") == 1 and accelerators_held(recipe, "preflight") == 0
    assert accelerators_held(recipe, "consider") == 0  # whether anything changed
    whole = load_recipe("nemotron-cascade-1-14b", {"cluster": {"benchmarks": None}})
    steps = ("rlhf.train.evaluate", "base.train.evaluate", "retain")
    assert [accelerators_held(whole, step) for step in steps] == [8, 8, 8]


def test_the_plan_counts_the_accelerators_of_the_benchmarks_own_pods() -> None:
    """Those of one engine, also in a recovery, whose distillation holds the stage's nodes."""
    plans = [
        rows_of(forecast(load_recipe("nemotron-cascade-1-14b", {"cluster": changed})))
        for changed in ({}, {"benchmarks": None})
    ]
    own, stages = ({name: row.figures for name, row in plan.items()} for plan in plans)

    def expected(figures: Any, key: str) -> tuple[float, float]:
        return figures[key].wall_hours.expected, figures[key].accelerator_hours.expected

    judging, held = expected(own, "rlhf.benchmarks")
    assert held == pytest.approx(judging)
    assert expected(stages, "rlhf.benchmarks") == pytest.approx((judging, 8 * judging))
    wall, held = expected(own, "rlhf.recovery")
    assert held == pytest.approx(24 * (wall - judging) + judging)
    assert expected(own, "rlhf.train") == expected(stages, "rlhf.train")


def test_the_earlier_name_of_the_budget_still_counts() -> None:
    plain = load_recipe("quickstart").model_dump(mode="json")
    old = Recipe.model_validate({**plain, "budget_cpu_hours": 2.0})
    assert old.limits.limits() == {"cpu_hours": 2.0}
    larger = Recipe.model_validate({**plain, "budget_cpu_hours": 2.0, "budget": {"cpu_hours": 5.0}})
    assert larger.limits.cpu_hours == 5.0
    dial = load_recipe("quickstart", budget=3).limits
    assert dial == load_recipe("quickstart", ["budget=3"]).limits and dial.cpu_hours == 3
