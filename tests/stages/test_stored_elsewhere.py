"""A run whose checkpoints lie outside its folder: the same steps, the same lineage; then making room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_steps import BOTH, FORGET, guarded, start
from toy_cascade import make_run
from typer.testing import CliRunner

from kascade.cli import app
from kascade.guard.lineage import read_outcomes
from kascade.storage.checkpoint import ACCEPTED, LOCATION, MANIFEST, is_there, verify


def test_steps_publish_elsewhere_and_gc_removes_what_was_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("KASCADE_CHECKPOINTS", store.as_uri())
    weak = {"rounds": 1, "steps": 1, "optimizer": {"learning_rate": 1e-6}}
    layout = make_run(tmp_path, BOTH, FORGET, unrecovered="rollback", recovery=weak)
    base = start(layout)
    first = guarded(layout, "sft", base)
    assert guarded(layout, "forget", first) == first
    rolled_back = read_outcomes(layout)[-1].candidate
    assert first.startswith(store.as_uri())
    assert is_there(rolled_back)
    assert not list(layout.root.rglob("*.safetensors"))
    pointers = list((layout.root / "checkpoints").rglob(LOCATION))
    attempts = [path.parent for path in pointers if path.parent.parent.name == "forget"]
    assert len(pointers) == len(attempts) + 2
    assert all((path.parent / MANIFEST).exists() for path in pointers)
    assert first in {str(ref) for ref, _ in layout.checkpoints()}
    assert guarded(layout, "sft", base) == first  # found, not made again

    listed = CliRunner().invoke(app, ["gc", str(layout.root), "--older-than", "0", "--json"])
    assert listed.exit_code == 0, listed.output
    found = json.loads(listed.stdout)["stores"]
    assert set(found[store.as_uri()]["checkpoints"]) == {f"forget/{path.name}" for path in attempts}
    assert is_there(rolled_back)  # only listed
    removed = CliRunner().invoke(app, ["gc", str(layout.root), "--older-than", "0", "--delete"])
    assert removed.exit_code == 0, removed.output
    assert not is_there(rolled_back)
    marked = [path.parent.parent.name for path in store.rglob(ACCEPTED)]
    assert marked == ["sft"]  # which is what stays, whichever run is asked about next
    assert is_there(base)
    verify(first)
