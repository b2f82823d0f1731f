"""The alias moves when every verdict passed, and stays when one did not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.example_run import BASE, SFT, ExampleRun, recipe

from kascade.guard.comparison import Standing
from kascade.guard.end_check import EndVerdict, Held, write_end_verdict
from kascade.recipe.schema import Recipe, Tracking
from kascade.tracking.mlflow_server import connect, tracking_uri
from kascade.tracking.mlflow_sync import sync
from kascade.tracking.promote import final_checkpoint, promote


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
