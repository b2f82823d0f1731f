from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.s3_servers import Server, moto


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Server]:
    with moto() as server:
        yield server


@pytest.fixture
def s3(moto_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """moto as the store that the environment names, parts as small as S3 allows, a cache of one's own."""
    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KASCADE_S3_PART_MIB", "5")
    monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return moto_server
