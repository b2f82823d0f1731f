"""The alias moves when every verdict passed, and stays when one did not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from support.example_run import BASE, SFT, ExampleRun, recipe
from typer.testing import CliRunner

from kascade.cli import app
from kascade.guard.comparison import Standing
from kascade.guard.end_check import EndVerdict, Held, write_end_verdict
from kascade.recipe.schema import Recipe, Tracking
from kascade.steps import steps
from kascade.tracking.mlflow_server import TrackingError, connect, tracking_uri
from kascade.tracking.mlflow_sync import sync
from kascade.tracking.promote import final_checkpoint, promote, registered


def promoting(*stages: str) -> Recipe:
    return recipe(stages).model_copy(update={"tracking": Tracking(promote_as="champion")})


def end_check(reference: str, standing: Standing) -> EndVerdict:
    held = Held(benchmark="mcqa", domain="knowledge", standing=standing, against=())
    return EndVerdict(checkpoint=reference, round=0, margin=0.03, level=0.05, benchmarks={"mcqa": held})


@pytest.mark.slow
def test_the_alias_moves_by_verdict_only(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path / "run", promoting("sft", "if_rl"), tasks=60)
    run.base(BASE)
    run.stage("sft", SFT)
    assert promote(run.root, run.recipe).reasons == ("if_rl has not ended",)
    run.stage("if_rl", {"ifeval": 0.95, "mcqa": 0.1}, recoveries=({"mcqa": 0.5},))
    accepted = run.parent
    sync(run.root, run.recipe)
    assert promote(run.root, run.recipe).reasons == ("the end check has not been made",)
    write_end_verdict(run.layout, end_check(accepted, "not_shown"))
    assert promote(run.root, run.recipe).reasons == ("mcqa is not shown to be kept.",)
    write_end_verdict(run.layout, end_check(accepted, "kept"))
    first = promote(run.root, run.recipe)
    assert (first.decision, first.challenger, first.version) == ("promoted", accepted, "1")
    assert promote(run.root, run.recipe) == first
    longer = promoting("sft", "if_rl", "rlhf")
    run.recipe = longer
    run.stage("rlhf", {"preference": 0.8, "needle": 0.1}, recoveries=({},), decision="continued")
    assert promote(run.root, longer).reasons == ("rlhf: continued",)
    with connect(tracking_uri(run.root, run.recipe)) as client:
        version = client.get_model_version_by_alias("example", "champion")
        assert version.tags["reference"] == accepted
        aliases = client.get_registered_model("example").aliases
        assert {name: int(version) for name, version in aliases.items()} == {"champion": 1}


@pytest.mark.parametrize("decision", ["continued", "rolled_back", "stopped"])
def test_what_did_not_pass_is_never_final(tmp_path: Path, decision: str) -> None:
    run = ExampleRun(tmp_path / "run", promoting("sft"), tasks=20)
    run.base(BASE)
    run.stage("sft", {"mcqa": 0.01}, decision=decision)  # type: ignore[arg-type]
    found = final_checkpoint(run.layout, run.recipe)
    assert found.reference is None
    assert found.reasons == (f"sft: {decision.replace('_', ' ')}",)


class Damaged(NamedTuple):
    """A registered model of three versions; the second is champion, and its tags are damaged."""

    run: Path
    recipe: Recipe


@pytest.fixture
def damaged(tmp_path: Path, request: pytest.FixtureRequest) -> Damaged:
    run = ExampleRun(tmp_path / "run", promoting("sft"), tasks=20)
    run.base(BASE)
    run.stage("sft", SFT)
    sync(run.root, run.recipe)
    write_end_verdict(run.layout, end_check(run.parent, "kept"))
    assert promote(run.root, run.recipe).decision == "promoted"
    with registered(run.root, run.recipe) as model:
        tags = {"digest": "sha256:1", "reference": "file:///elsewhere@sha256:" + "1" * 64, **request.param}
        other = model.client.create_model_version("example", source="file:///elsewhere", tags=tags)
        model.client.set_registered_model_alias("example", "champion", other.version)
    return Damaged(run.root, run.recipe)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damaged",
    [
        {"reference": "no reference"},
        {"reference": "s3://bucket/x@sha256:short"},
        {"kascade.given_up": "{"},
        {"kascade.benchmarks": "3"},
        {"kascade.measured": '{"mcqa": {"mean": "high"}}'},
        {"kascade.fell": "[]"},
    ],
    indirect=True,
)
def test_a_champion_whose_tags_are_damaged_stays_and_a_person_can_go_back(damaged: Damaged) -> None:
    with pytest.raises(TrackingError, match="version 2, whose tags do not name its checkpoint") as caught:
        promote(damaged.run, damaged.recipe)
    assert "kascade rollback example --to VERSION" in str(caught.value)
    page = Path(steps.report(str(damaged.run)))
    assert "whose tags do not name" in page.read_text(), "the run ends with its report all the same"
    done = CliRunner().invoke(app, ["rollback", str(damaged.run), "--to", "1", "--json"])
    assert done.exit_code == 0, done.output
    assert (json.loads(done.stdout)["version"]["number"], json.loads(done.stdout)["before"]) == ("1", "2")
    again = CliRunner().invoke(app, ["rollback", str(damaged.run), "--to", "1", "--json"])
    assert json.loads(again.stdout)["before"] is None
    assert promote(damaged.run, damaged.recipe).decision == "promoted", "it is champion again"


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [{}], indirect=True)
def test_notes_of_moves_fit_into_a_tag_and_none_is_written_over(damaged: Damaged) -> None:
    """Postgres takes 5,000 characters, and twenty benchmarks say more."""
    with registered(damaged.run, damaged.recipe) as model:
        first = model.find("1")
        assert first is not None
        model.client.set_registered_model_tag("example", "kascade.history.champion.00007", "{")
        model.move(first, "promoted", 'difference \u2212.010, "kept". ' * 400)
        tags = model.client.get_registered_model("example").tags
        note = tags["kascade.history.champion.00008"]
        assert len(note) <= 5000 and json.loads(note)["why"].endswith("...")
        assert tags["kascade.history.champion.00007"] == "{"
        assert [one.version for one in model.history()] == ["1", "1"]
