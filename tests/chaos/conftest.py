"""The chaos tests run the toy cascade of the stages' tests, in processes that are forks of this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from commotion import World


@pytest.fixture(scope="module")
def toy_environments() -> Iterator[None]:
    from toy_cascade import ENVIRONMENTS

    from kascade.environments import BUILTIN

    before = dict(BUILTIN)
    BUILTIN.update(ENVIRONMENTS)
    yield
    BUILTIN.clear()
    BUILTIN.update(before)


@pytest.fixture(scope="module")
def world(toy_environments: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    from commotion import World

    return World.make(tmp_path_factory.mktemp("chaos"))
