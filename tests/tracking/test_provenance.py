"""Where a model comes from, and what is not known about it: in the report's head and in the model card."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.example_run import ExampleRun, short_run

from kascade.doctor.preflight import license_of
from kascade.models.load import BUILTIN_ROOT
from kascade.recipe.load import load_recipe
from kascade.run.machine import machine
from kascade.storage.files import write_json, write_text
from kascade.storage.run_folder import RunFolder, StepError, StepState
from kascade.tracking.card import write_model_card
from kascade.tracking.report import write_report

NOTED = {
    "license": "apache-2.0",
    "machine": {
        "cpu": "Fast CPU",
        "cores": 2,
        "memory_gib": 15.6,
        "gpus": ["H200"],
        "system": "Linux x86_64",
    },
    "data": {"/home/me/rows.jsonl": "sha256:abc"},
    "contamination": {"sft": {"mcqa": 3}},
}


@pytest.fixture
def run(tmp_path: Path) -> ExampleRun:
    made = short_run(tmp_path / "run")
    folder = RunFolder(made.root)
    write_json(folder.preflight, NOTED)
    folder.write_state(StepState(step="preflight", state="succeeded", started=1764380000.0, seconds=60.0))
    return made


def test_the_card_begins_with_what_the_hub_reads(run: ExampleRun) -> None:
    card = write_model_card(run.root).read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "text-generation"
    assert {"kascade", "sft", "if_rl"} <= set(front["tags"])


def test_the_card_names_base_licence_data_and_limits(run: ExampleRun) -> None:
    card = write_model_card(run.root).read_text(encoding="utf-8")
    assert "- Base model: `" in card
    assert "apache-2.0, as the base model's README says" in card
    assert "| `rows.jsonl` | `sha256:abc` |" in card
    assert "## Intended use and limits" in card
    assert "mcqa: 3 tasks of this benchmark also occur in the data of stage sft" in card.replace("\\", "")
    assert "with 95%" in card


def test_the_head_of_the_report_says_when_on_what_and_with_which_code(run: ExampleRun) -> None:
    page = write_report(run.root).read_text(encoding="utf-8")
    head = page[page.index("<header>") : page.index("</header>")]
    assert "2025-11-29 01:33 to 2025-11-29 01:34 UTC" in head
    assert "H200; Fast CPU, 2 cores, 15.6 GiB" in head
    assert "Kascade " in head
    assert "What these benchmarks can show" in page


def test_a_run_that_noted_nothing_says_that_the_licence_is_not_known(tmp_path: Path) -> None:
    made = short_run(tmp_path / "run")
    assert "Licence: not known" in write_model_card(made.root).read_text(encoding="utf-8")


def test_the_page_of_a_run_that_never_began_is_its_errors_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_text(folder.resolved_recipe, load_recipe("quickstart").model_dump_json())
    error = StepError(type="UserError", message="rows.jsonl does not exist", exit_code=2, faults=[])
    folder.write_error("preflight", error)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("rows.jsonl does not exist") == 1
    assert 'id="verdicts"' not in page
    assert 'id="recipe"' in page
    assert "<nav" not in page


def test_the_licence_comes_from_the_head_of_the_models_page(tmp_path: Path) -> None:
    assert license_of(BUILTIN_ROOT / "mini-nemotron-h") == "apache-2.0"
    assert license_of(tmp_path) is None


def test_a_machine_says_what_it_is() -> None:
    found = machine()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0


def test_own_runs_do_not_carry_the_description_of_their_preset(tmp_path: Path) -> None:
    own = load_recipe("quickstart", model="Org/Own")
    assert own.description == "as the recipe quickstart, with another model"
    path = tmp_path / "own.yaml"
    path.write_text("preset: quickstart\nmodel: Org/Own\ndescription: Mine\n")
    assert load_recipe(path).description == "Mine"
    assert load_recipe("quickstart").description == load_recipe("quickstart", ["sft.steps=20"]).description
