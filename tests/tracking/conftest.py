"""Example runs, built once: writing and judging one takes a second or two."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.example_run import short_run, whole_run


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.mktemp("whole"), tasks=50).root


@pytest.fixture(scope="session")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("partial")).root
