"""The toy environments are registered as a user's would be."""

from __future__ import annotations

import pytest
from toy_cascade import ENVIRONMENTS

from kascade.environments import BUILTIN


@pytest.fixture(autouse=True)
def toy_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in ENVIRONMENTS.items():
        monkeypatch.setitem(BUILTIN, name, place)
