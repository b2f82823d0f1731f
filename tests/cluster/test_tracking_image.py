"""The tracking server's image, run with the arguments of its manifest. Needs the cluster tool's engine.

What a container here cannot have, Postgres and a bucket, is replaced by files.
"""

from __future__ import annotations

import base64
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from engine import CONFINED, ROOT, build, docker, docker_environment

import kascade

pytestmark = [pytest.mark.containers, pytest.mark.slow]
IMAGE = f"kascade-mlflow:{kascade.__version__}"
PASSWORD = "only-for-this-test"
PATIENCE_S = 120


def manifest(kind: str, name: str) -> dict[str, Any]:
    found = yaml.safe_load_all((ROOT / "manifests" / "base" / "mlflow.yaml").read_text(encoding="utf-8"))
    return next(one for one in found if (one["kind"], one["metadata"]["name"]) == (kind, name))


def arguments(port: int) -> list[str]:
    """The manifest's command line, on this port and with files for what is not here."""
    container = manifest("Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]
    replaced = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--backend-store-uri": "sqlite:////tmp/mlflow.db",
        "--artifacts-destination": "/tmp/artifacts",
    }
    pairs = [argument.partition("=") for argument in container["args"]]
    assert replaced.keys() <= {name for name, _, _ in pairs}
    line = [f"{name}={replaced.get(name, value)}" for name, _, value in pairs]
    return [*container["command"], *(part.replace("$(NAMESPACE)", "kascade") for part in line)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    docker_environment()
    if not any((ROOT / "build" / "wheels-mlflow").glob("mlflow-*.whl")):
        pytest.skip(
            "no wheels in build/wheels-mlflow (`make wheels-mlflow`): the tracking image was NOT built"
        )
    build("mlflow", IMAGE)
    settings = tmp_path_factory.mktemp("settings") / "auth.ini"
    text = manifest("ConfigMap", "mlflow-auth")["data"]["auth.ini"]
    settings.write_text(text.replace("postgresql+psycopg2:///mlflow_auth", "sqlite:////tmp/auth.db"))
    for folder in (settings.parent, *settings.parent.parents[:2]):
        folder.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "MLFLOW_AUTH_CONFIG_PATH": "/etc/mlflow/auth.ini",
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    options = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
    options += ["--tmpfs", "/tmp", "-v", f"{settings}:/etc/mlflow/auth.ini:ro", "-d", IMAGE]
    confined = [*CONFINED[:-1], "host"]  # its network is this machine's
    name = docker("run", *confined, *options, *arguments(port)).stdout.strip()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        docker("rm", "-f", name)


def status(url: str, *, password: str | None = None, host: str = "mlflow:5000") -> int:
    """The answer's HTTP status, 0 when there is none. host: the name that the server is called by."""
    request = urllib.request.Request(url, headers={"Host": host})
    if password:
        word = base64.b64encode(f"admin:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0


def test_the_server_lets_in_who_has_the_password_under_its_own_names(server: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while status(f"{server}/health") != 200:
        assert time.monotonic() < deadline, "the server did not come up"
        time.sleep(1)
    search = f"{server}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(search) == 401
    assert status(search, password="wrong") == 401
    assert status(search, password=PASSWORD) == 200
    assert status(search, password=PASSWORD, host="mlflow.kascade.svc.cluster.local:5000") == 200
    assert status(search, password=PASSWORD, host="elsewhere.example") == 403


def test_the_image_is_no_root_and_has_its_drivers(server: str) -> None:
    program = "import boto3, os, psycopg2; print(os.getuid())"
    said = docker("run", *CONFINED, "--entrypoint", "python", IMAGE, "-c", program)
    assert said.stdout == "10001\n"
