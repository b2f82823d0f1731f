"""What the steps of a real run tell a real receiver, from the loss to the promotion, and not twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.http_receiver import receiver
from test_steps import BOTH, FORGET, guarded, start
from toy_cascade import make_run

from kascade.errors import KascadeError
from kascade.recipe.notify import Notify
from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import Tracking
from kascade.steps import steps
from kascade.storage.files import write_text

pytestmark = pytest.mark.slow


def test_a_run_tells_of_its_loss_its_recovery_its_promotion_and_its_failure(tmp_path: Path) -> None:
    with receiver() as server:
        layout = make_run(tmp_path, BOTH, FORGET, retention={"samples": 16, "margin": 0.2})
        recipe = read_run_recipe(layout.root)
        told = {
            "notify": (Notify(url=server.url),),
            "tracking": Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", promote_as="champion"),
        }
        write_text(layout.resolved_recipe, recipe.model_copy(update=told).model_dump_json())
        run = str(layout.root)
        first = guarded(layout, "sft", start(layout), steps.settle)
        second = guarded(layout, "forget", first, steps.settle)
        steps.finish(run, steps.retain(run, second))
        steps.report(run)
        steps.settle(run, "forget", first)
        steps.report(run)
    events = [json.loads(one.body)["event"] for one in server.received]
    assert events == [*["regressed"] * events.count("regressed"), "recovered", "promoted"]
    assert 1 <= events.count("regressed") <= 2
    lost = json.loads(server.received[0].body)
    assert lost["details"]["stage"] == "forget" and "say_b" in lost["text"]


def test_a_receiver_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    layout = make_run(tmp_path, BOTH)
    recipe = read_run_recipe(layout.root)
    gone = Notify(url="http://127.0.0.1:9/hook", attempts=1, timeout_s=0.5)
    write_text(layout.resolved_recipe, recipe.model_copy(update={"notify": (gone,)}).model_dump_json())
    with pytest.raises(KascadeError, match="no checkpoint that this recipe trained"):
        steps.settle(str(layout.root), "sft", start(layout))
    assert guarded(layout, "sft", steps.preflight(str(layout.root)), steps.settle)
