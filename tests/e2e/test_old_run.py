"""A run that was made before the code was moved (commit 4821346) is continued, reported and explained.

`old_run/` holds it as it was when its third stage was killed: `model/`, and `run/` without MLflow's
database, logs and the local runner's cache. {HERE} stands for the folder that both lay in.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kascade.cli import app
from kascade.guard.lineage import open_reference, read_outcomes
from kascade.learning.metrics import read_metrics
from kascade.recipe.run_recipe import read_run_recipe
from kascade.storage.run_folder import RunFolder
from kascade.version import __version__

OLD = Path(__file__).parent / "old_run"
HERE = "{HERE}"


@pytest.fixture
def old(tmp_path: Path) -> RunFolder:
    """A copy of the old run that believes it was made here."""
    for path in sorted(OLD.rglob("*")):
        copy = tmp_path / path.relative_to(OLD)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.suffix == ".safetensors":
            shutil.copy(path, copy)
        else:
            copy.write_text(path.read_text(encoding="utf-8").replace(HERE, str(tmp_path)), encoding="utf-8")
    return RunFolder(tmp_path / "run")


def checkpoints(folder: RunFolder) -> dict[str, tuple[str, int]]:
    """Digest and time of the weights of each checkpoint, by id."""
    return {
        manifest.id: (ref.digest, (ref.path / "model.safetensors").stat().st_mtime_ns)
        for ref, manifest in folder.checkpoints()
    }


def verb(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def test_an_old_run_is_read_without_a_problem(old: RunFolder) -> None:
    folder = RunFolder.tolerant(old.root)
    assert [part.name for part in read_run_recipe(old.root).stages] == ["sft", "rl", "distil"]
    assert [(one.stage, one.decision) for one in read_outcomes(folder)] == [
        ("sft", "accepted"),
        ("rl", "accepted"),
    ]
    assert {one.id for _, one in folder.checkpoints()} == {
        "base/train-69f5f5399a9f",
        "sft/train-6002dbdc9b21",
        "rl/train-5bcc382af14b",
    }
    assert folder.costs().keys() >= {"preflight", "sft.train", "rl.settle"}
    assert folder.problems == []


def test_an_old_run_is_reported_and_explained(old: RunFolder) -> None:
    page = verb("report", str(old.root)).strip()
    assert "2 of 3 stages" in Path(page).read_text(encoding="utf-8")
    told = verb("explain", str(old.root), "sft")
    assert "sft/train-6002dbdc9b21" in told and "accepted" in told
    assert "arithmetic" in verb("explain", str(old.root), "arithmetic")


@pytest.mark.slow
@pytest.mark.skipif(__version__ != "0.1.0", reason="a new version trains again, by design: make another run")
def test_an_old_run_is_continued_where_it_was_killed(old: RunFolder) -> None:
    before, (begun,) = checkpoints(old), old.root.glob("training/distil/*")
    verb("resume", str(old.root), "--quiet")
    after = checkpoints(old)
    assert {name: after[name] for name in before} == before, "finished checkpoints are not trained again"
    (made,) = after.keys() - before.keys()
    assert made == f"distil/{begun.name}", "the key of the interrupted stage is the old one"
    rows = read_metrics(old.training(made).curves)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["loss"] == -0.0023271851241588593, "what was learnt before the kill was kept"
    accepted = {(one.stage, one.accepted) for one in read_outcomes(old)}
    assert sorted(stage for stage, _ in accepted) == ["distil", "rl", "sft"], "settled as before"
    final = old.final_checkpoint()
    assert final is not None and open_reference(final).manifest.id in after
