"""A plan in short answers whether it fits, what it takes, and what is not known."""

from __future__ import annotations

import io

from rich.console import Console

from kascade.commands.memory import show_memory
from kascade.recipe.load import load_recipe
from kascade.recipe.plan import make_plan
from kascade.recipe.plan_short import in_short
from kascade.recipe.plan_words import size


def sentences(preset: str, *settings: str) -> str:
    return "\n".join(in_short(make_plan(load_recipe(preset, settings))))


def test_the_large_preset_is_expected_to_fit_and_may_not() -> None:
    said = sentences("nemotron-cascade-2", "prices.accelerator_hour=2.5")
    assert "Memory: it is expected to fit 32 x h200-141gb, and may not." in said
    assert "The fullest device needs 130.5 GiB of 140.4" in said and "sft samples a recovery on 8" in said
    assert "of accelerators. By formula" in said and " USD, at worst " in said and "Storage: " in said


def test_what_does_not_fit_says_so() -> None:
    small = "hardware={device: rtx-4090-24gb, nodes: 4}"
    said = sentences("nemotron-cascade-2", small)
    assert "it does not fit 32 x rtx-4090-24gb: `kascade check` names the cheapest changes." in said
    huge = "hardware={device: our-card, memory_gib: 640, nodes: 4}"
    assert "Memory: it fits 32 x our-card." in sentences("nemotron-cascade-2", huge)


def test_what_is_not_known_is_named() -> None:
    said = sentences("quickstart")
    assert "Memory: not counted, because the recipe names no hardware." in said
    assert "of CPUs." in said and "By formula" not in said
    assert "Money: not counted." in said
    unknown = sentences("quickstart", "model.source=some/model", "hardware={device: h100-80gb}")
    assert "Memory: not counted, because the shape of some/model is not known here" in unknown
    assert "Time: not known. Name the hardware" in unknown


def test_a_plan_with_figures_for_some_work_names_the_rest() -> None:
    made = make_plan(load_recipe("quickstart"))
    rows = [
        row.model_copy(update={"basis": "nothing says: name a device"}) if row.part == "recovery" else row
        for row in made.forecast.rows
    ]
    total = made.forecast.total.model_copy(update={"wall_hours": None})
    forecast = made.forecast.model_copy(update={"rows": tuple(rows), "total": total})
    said = "\n".join(in_short(made.model_copy(update={"forecast": forecast})))
    assert "Time: not known in all, because nothing says what sft recovery, if_rl recovery," in said
    assert " MB in the end, at most " in said and size(1234.567) == "1,234.57 GB" and size(0.0004) == "0.4 MB"


def test_groups_that_need_the_same_have_one_row() -> None:
    memory = make_plan(load_recipe("nemotron-cascade-2")).memory
    assert memory is not None
    out = io.StringIO()
    show_memory(Console(file=out, width=200), memory)
    rows = [line for line in out.getvalue().splitlines() if " recovers " in line]
    assert len(memory.groups) == 39 and len(rows) == 1
    assert "sft, rlhf_teacher, if_rl and 7 more" in rows[0]
