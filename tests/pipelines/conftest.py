"""What the tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_run import HERE, ToyRun


@pytest.fixture
def toy_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRun:
    """An empty run; its tasks, which are processes of their own, find `toy_library`."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    return ToyRun(tmp_path / "run")
