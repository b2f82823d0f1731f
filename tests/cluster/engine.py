"""The container engine and the one-node cluster that some tests want, where the tool that makes them is."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

import kascade

ROOT = Path(__file__).resolve().parents[2]
BASE_IMAGE = "local/python:3.11-bookworm"
PATIENCE_S = 1500  # of the longest verb, the first `up` of a machine, which builds the cluster
# The network is named last.
CONFINED = (
    *("--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--network", "none"),
)
CLIENT = "/usr/bin/docker"  # the engine's own; another on the PATH may speak another dialect


def tool() -> Path:
    """The cluster tool. Skips, and says what was not run, without it."""
    path = os.environ.get("KASCADE_CLUSTER_TOOL", "")
    if not os.access(path, os.X_OK):
        named = f"{path!r} cannot be run" if path else "is not set"
        pytest.skip(f"no container engine to test with (KASCADE_CLUSTER_TOOL {named}): this was NOT run")
    return Path(path)


@cache
def ask(verb: str) -> dict[str, str]:
    """What a verb of the tool prints (DOCKER_HOST, KUBECONFIG)."""
    command = [str(tool()), verb]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"`cluster {verb}` took more than {PATIENCE_S} s, so this was NOT run")
    if done.returncode != 0:
        pytest.skip(f"`cluster {verb}` failed, so this was NOT run: {done.stderr.strip()[-300:]}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


@cache
def docker_environment() -> dict[str, str]:
    """The environment of commands that talk to the engine; the base image is there."""
    found = ask("docker")
    ask("image")
    return {**os.environ, **found, "DOCKER_BUILDKIT": "1"}


def docker(*arguments: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLIENT, *arguments],
        env=docker_environment(),
        capture_output=True,
        text=True,
        check=check,
        **options,  # type: ignore[call-overload,no-any-return]
    )


def build(name: str, tag: str) -> None:
    """Build the image `name` of `images/` on the base that is here, without network."""
    arguments = ("BASE=" + BASE_IMAGE, f"VERSION={kascade.__version__}", "REVISION=test")
    options = [part for argument in arguments for part in ("--build-arg", argument)]
    file = f"images/{name}/Dockerfile"
    docker("build", "--network", "none", *options, "-t", tag, "-f", file, ".", cwd=ROOT)
