"""A run that is started again and again trains when model, rows or recipe changed since the last one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.example_run import BASE, SFT, ExampleRun, recipe

from kascade.guard.approval import Waiting, wait
from kascade.guard.end_check import EndVerdict, Held, write_end_verdict
from kascade.recipe.retrain import Retrain
from kascade.recipe.schema import Recipe, Tracking
from kascade.steps import steps
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.tracking.promote import registered
from kascade.tracking.retrain import changes, consider, inputs_of, remember, why

pytestmark = pytest.mark.slow


@pytest.fixture
def own(tmp_path: Path) -> Recipe:
    """A recipe of one stage on own rows, with an MLflow that its runs share."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": []}\n')
    plain = recipe(("sft",))
    stage = plain.stages[0]
    source = stage.data[0].source.model_copy(update={"path": str(rows)})
    first = stage.data[0].model_copy(update={"source": source})
    tracking = Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", promote_as="champion")
    changed = stage.model_copy(update={"data": (first, *stage.data[1:])})
    return plain.model_copy(update={"stages": (changed,), "tracking": tracking, "retrain": Retrain()})


def end(root: Path, recipe: Recipe) -> None:
    """A run that came to its end."""
    run = ExampleRun(root, recipe, tasks=20)
    run.base(BASE)
    run.stage("sft", SFT)
    held = Held(benchmark="mcqa", domain="knowledge", standing="kept", against=())
    check = EndVerdict(checkpoint=run.parent, round=0, margin=0.03, level=0.05, benchmarks={"mcqa": held})
    write_end_verdict(run.layout, check)


def test_the_second_run_has_no_reason_until_something_changes(own: Recipe, tmp_path: Path) -> None:
    first = consider(tmp_path / "1", own)
    assert first.train and first.reasons[0].startswith(
        "No earlier run of this name has ended, as far as MLflow"
    )
    end(tmp_path / "1", own)
    remember(tmp_path / "1", own)
    second = consider(tmp_path / "2", own)
    assert not second.train and why(second).startswith(
        "Nothing was trained. Nothing changed since the last run"
    )

    (tmp_path / "rows.jsonl").write_text('{"messages": [1]}\n')
    rows = consider(tmp_path / "3", own)
    assert rows.train and rows.reasons == ("Rows changed: sft 0: rows.jsonl.",)
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    assert not consider(tmp_path / "3", own).train

    stage = own.stages[0].model_copy(update={"steps": 41})
    changed = own.model_copy(update={"stages": (stage,), "seed": 4})
    assert consider(tmp_path / "4", changed).reasons == ("The recipe changed: seed, stages.sft.",)
    model = own.model_copy(update={"model": own.model.model_copy(update={"source": "builtin://other"})})
    assert consider(tmp_path / "5", model).reasons == ("The model changed.",)
    asked = own.model_copy(update={"retrain": Retrain(when="always")})
    assert consider(tmp_path / "6", asked).train


def test_what_another_version_of_kascade_remembered_is_a_reason_to_train(own: Recipe, tmp_path: Path) -> None:
    """After an upgrade, too, a schedule goes on."""
    consider(tmp_path / "1", own)
    end(tmp_path / "1", own)
    for text in ('{"since": "2027-01-01", "inputs": {"code": "9.0", "new": 1}}', "{", "[]", '{"since": 3}'):
        with registered(tmp_path / "1", own) as model:
            model.remember_run(text)
        found = consider(tmp_path / "2", own)
        assert found.train and "cannot be read" in found.reasons[0]
    remember(tmp_path / "1", own)
    assert not consider(tmp_path / "3", own).train


def test_many_rows_fit_into_the_tag_and_a_changed_one_is_seen(own: Recipe, tmp_path: Path) -> None:
    stage = own.stages[0]
    paths = [tmp_path / f"{'long' * 20}-{n}.jsonl" for n in range(60)]
    for path in paths:
        path.write_text("{}\n")
    mix = stage.data[0]
    data = [mix.model_copy(update={"source": mix.source.model_copy(update={"path": str(p)})}) for p in paths]
    many = own.model_copy(update={"stages": (stage.model_copy(update={"data": tuple(data)}),)})
    before = inputs_of(many)
    assert before.rows.keys() == {"sft"} and len(before.model_dump_json()) < 4000
    paths[31].write_text("{} \n")
    assert list(changes(before, inputs_of(many))) == ["Rows changed: sft."]


def test_what_does_not_change_the_weights_is_no_reason(own: Recipe) -> None:
    other = own.model_copy(update={"description": "another", "threads": 3, "budget_cpu_hours": 2.0})
    assert inputs_of(other) == inputs_of(own)


def test_a_run_that_did_not_end_is_not_remembered(own: Recipe, tmp_path: Path) -> None:
    consider(tmp_path / "1", own)
    run = ExampleRun(tmp_path / "1", own, tasks=20)
    run.base(BASE)
    remember(tmp_path / "1", own)
    assert consider(tmp_path / "1", own).train, "it failed or was interrupted: the next one goes on"
    end(tmp_path / "2", own)
    consider(tmp_path / "2", own)
    held_up = Waiting(
        word="waiting for approval", before="promotion", sentence="It waits.", since="2026-01-01"
    )
    wait(RunFolder(tmp_path / "2"), held_up)
    remember(tmp_path / "2", own)
    assert consider(tmp_path / "3", own).train, "it still waits for a person"


def test_a_run_that_the_guard_stopped_is_not_tried_again(own: Recipe, tmp_path: Path) -> None:
    consider(tmp_path / "1", own)
    run = ExampleRun(tmp_path / "1", own, tasks=20)
    run.base(BASE)
    run.stage("sft", {"mcqa": 0.01}, decision="stopped")
    remember(tmp_path / "1", own)
    assert not consider(tmp_path / "2", own).train


def test_the_page_of_a_quiet_run_says_why_and_mlflow_gets_no_empty_run(own: Recipe, tmp_path: Path) -> None:
    consider(tmp_path / "1", own)
    end(tmp_path / "1", own)
    remember(tmp_path / "1", own)
    quiet = RunFolder(tmp_path / "2")
    write_text(quiet.resolved_recipe, own.model_dump_json())
    consider(quiet.root, own)
    page = Path(steps.report(str(quiet.root)))
    assert "Nothing was trained. Nothing changed since the last run that ended" in page.read_text()
    assert not quiet.tracking_id.exists()
