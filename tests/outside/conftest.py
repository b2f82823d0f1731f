"""Real servers of other projects, run in an environment of their own. Skipped loudly where there is none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PATIENT = {"start_timeout_s": 900.0}  # a busy machine takes minutes for what takes seconds
ENVIRONMENTS = Path(os.environ.get("KASCADE_OUTSIDE", HERE.parents[1] / "build" / "outside"))


def python_of(name: str) -> str:
    """The interpreter of an outside environment. Skips where it was not built."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        pytest.skip(
            f"{name} was not run: build its environment with `make outside` (KASCADE_OUTSIDE names it)"
        )
    return str(python)


@pytest.fixture(scope="session")
def nemo_gym() -> Callable[..., dict[str, Any]]:
    """Options of the environment `nemo_gym` for one of NeMo-Gym's own servers, started on first use."""
    python = python_of("nemo-gym")

    def options(server: str, **more: Any) -> dict[str, Any]:
        return {"package": server, "python": python, **PATIENT, **more}

    return options


@pytest.fixture(scope="session")
def gym_rows() -> Callable[[str], Path]:
    """The example rows that a server's wheel carries."""
    code = "import nemo_gym, pathlib; print(pathlib.Path(nemo_gym.__file__).parents[1] / 'resources_servers')"
    done = subprocess.run([python_of("nemo-gym"), "-c", code], capture_output=True, text=True, check=True)
    servers = Path(done.stdout.strip())
    return lambda server: servers / server / "data" / "example.jsonl"


@pytest.fixture(scope="session")
def openenv(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Options of the environment `openenv` for the server that OpenEnv's own tool makes."""
    folder = tmp_path_factory.mktemp("openenv")
    command = [python_of("outside"), str(HERE / "serve_openenv.py"), str(folder), "{port}"]
    return lambda **more: {"command": command, **PATIENT, **more}


@pytest.fixture
def own_client() -> Iterator[Callable[[str, dict[str, Any]], Any]]:
    """NeMo-Gym's own way of asking a server: one POST of a body, cookies kept."""
    import requests

    with requests.Session() as session:
        yield lambda url, body: session.post(url, json=body, timeout=30).json()


@pytest.fixture(scope="session")
def verifiers() -> Callable[..., dict[str, Any]]:
    """Options of the environment `verifiers` for one of the test's own tasksets, behind verifiers' server."""
    python = python_of("outside")

    def options(taskset: str, **more: Any) -> dict[str, Any]:
        return {"command": [python, str(HERE / "serve_verifiers.py"), taskset, "{port}"], **PATIENT, **more}

    return options
