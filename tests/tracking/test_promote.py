"""The alias moves when every verdict passed, and stays when one did not."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_run import BASE, SFT, ExampleRun, recipe

from kascade.recipe.schema import Recipe, Tracking
from kascade.tracking.mlflow_server import connect, tracking_uri
from kascade.tracking.mlflow_sync import sync
from kascade.tracking.promote import final_checkpoint, promote


def promoting(*stages: str) -> Recipe:
    return recipe(stages).model_copy(update={"tracking": Tracking(promote_as="champion")})


@pytest.mark.slow
def test_the_alias_moves_by_verdict_only(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path / "run", promoting("sft", "if_rl"), tasks=60)
    run.base(BASE)
    run.stage("sft", SFT)
    assert promote(run.root, run.recipe).reasons == ("if_rl has not ended",)
    run.stage("if_rl", {"ifeval": 0.95, "mcqa": 0.1}, recoveries=({"mcqa": 0.5},))
    accepted = run.parent
    sync(run.root, run.recipe)
    first = promote(run.root, run.recipe)
    assert (first.reference, first.version) == (accepted, "1")
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
