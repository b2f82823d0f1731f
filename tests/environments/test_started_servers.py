"""Servers that Kascade starts end with it, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from kascade.environments.remote.server import Server
from kascade.environments.remote.settings import NemoGymOptions, Remote, VerifiersOptions

HTTP = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
STARTS = f"""
import time
from kascade.environments.remote.server import server_of
from kascade.environments.remote.settings import Remote
print(server_of(Remote(command={HTTP!r})).base, flush=True)
time.sleep(60)
"""


def is_open(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0


def closes(address: str, within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while is_open(address) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not is_open(address)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_with_the_process_that_started_it(sign: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    try:
        assert is_open(address)
        os.kill(process.pid, sign)
        process.wait(20)
        assert closes(address)
    finally:
        process.kill()


def test_a_server_that_died_is_started_again() -> None:
    server = Server(Remote(command=tuple(HTTP)))
    first = server.base
    assert is_open(first)
    assert server._process is not None
    psutil.Process(server._process.pid).children()[0].kill()
    server._process.wait(20)
    assert is_open(server.base) and server.base != first


def test_images_and_packages_are_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "podman").write_text("#!/bin/sh\n")
    (tmp_path / "podman").chmod(0o755)
    words = Remote(image="ghcr.io/me/game:1", image_port=9000).starts()
    assert words[:2] == ("podman", "run") and words[-1] == "ghcr.io/me/game:1"
    assert "127.0.0.1:{port}:9000" in words
    gym = NemoGymOptions(package="mcqa", python="/env/bin/python", config={"speed": 1}).starts()
    assert gym[0] == "/env/bin/python" and gym[2:] == ("mcqa", "{port}", '{"speed": 1}')
    taskset = VerifiersOptions(package="glossary", python="/env/bin/python")
    assert taskset.starts()[1].endswith("serve_verifiers.py") and taskset.starts()[2:4] == (
        "glossary",
        "{port}",
    )
    assert taskset.prints_rows()[2:4] == ("glossary", "rows")
    with pytest.raises(ValidationError, match="give one of url, command, image, package"):
        VerifiersOptions(package="glossary", url="tcp://127.0.0.1:5000")
