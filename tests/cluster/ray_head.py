"""A Ray cluster of one node with its job server, and what KubeRay does with a RayJob on it.

Facts: kuberay (August 2026), ray-operator/controllers/ray/common/job.go (the submitter's command) and
rayjob_controller.go (how a job's status becomes the resource's), common/pod.go (the token of `authOptions`).
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.s3_servers import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 150
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Head:
    """A head's job server. environment: of every container of the cluster, the submitter's included."""

    address: str
    environment: dict[str, str]

    def get(self, path: str) -> Any:
        """JSON from the server. Raises URLError, HTTPError."""
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        asked = urllib.request.Request(f"{self.address}{path}", headers=token)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def ray_head(cpus: int) -> Iterator[Head]:
    """A head that has `cpus` and asks for a token; all of it ends with the block."""
    port = free_port()
    options = {
        "port": 0,
        "num-cpus": cpus,
        "object-store-memory": 80 * 2**20,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": port,
        "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": 0,
        "min-worker-port": 0,
        "max-worker-port": 0,
    }
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",  # as in the image: `python` is the library's
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    command = ["ray", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        command.append(f"--temp-dir={scratch}")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = subprocess.Popen([str(binaries / command[0]), *command[1:]], env=environment, **quiet)
        try:
            head = Head(f"http://127.0.0.1:{port}", environment)
            _wait_until_it_answers(head, started)
            yield head
        finally:
            _end(started)


def _end(head: subprocess.Popen[bytes]) -> None:
    """At once: left to itself, Ray takes half a minute to say goodbye."""
    import psutil

    everyone = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
    for process in everyone:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait(PATIENCE_S)
    psutil.wait_procs(everyone, PATIENCE_S)


def _wait_until_it_answers(head: Head, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(OSError):
            head.get("/api/version")
            return
        assert started.poll() is None, f"ray start ended with {started.returncode}"
        assert time.monotonic() < deadline, "Ray's job server does not answer"
        time.sleep(0.2)


class KubeRay:
    """Submits the RayJob that a stub of the API was given, and writes into it what became of the job.

    seen: states of the resource, in order.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self.seen: list[tuple[str, str]] = []
        self._submitter: threading.Thread | None = None

    def __call__(self, resource: dict[str, Any], times: int) -> None:
        """Reconcile; a `StubApi.on_get`."""
        del times
        name = resource["metadata"]["name"]
        if self._submitter is None:
            assert resource["spec"]["rayClusterSpec"]["authOptions"] == {
                "mode": "token"
            }  # as the head has it
            script = submitter_script(self.head.address, name, resource["spec"])
            self._submitter = threading.Thread(target=self._submit, args=(script,), daemon=True)
            self._submitter.start()
            resource["status"] = {"jobDeploymentStatus": "Initializing"}
        elif (job := self._job(name)) is not None:
            status = {"jobStatus": job["status"], "message": job["message"] or ""}
            deployment = "Complete" if job["status"] in ENDED else "Running"
            if job["status"] == "FAILED":
                deployment, status["reason"] = "Failed", "AppFailed"
            resource["status"] = {"jobDeploymentStatus": deployment, **status}
        state = resource["status"]
        now = (state["jobDeploymentStatus"], state.get("jobStatus", ""))
        if now not in self.seen:
            self.seen.append(now)

    def _submit(self, script: str) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["/bin/bash", "-ce", "--", script], env=self.head.environment, check=False, **quiet)

    def _job(self, name: str) -> dict[str, Any] | None:
        with suppress(urllib.error.HTTPError):
            found: dict[str, Any] = self.head.get(f"/api/jobs/{name}")
            return found
        return None


def submitter_script(address: str, name: str, spec: dict[str, Any]) -> str:
    """What KubeRay's submitter pod runs, but for the wait until the head is up."""
    status = f"ray job status --address {address} {name} >/dev/null 2>&1"
    cores = f"--entrypoint-num-cpus {spec['entrypointNumCpus']:f}"
    submit = f"ray job submit --address {address} --no-wait --submission-id {name} {cores}"
    follow = f"ray job logs --address {address} --follow {name}"
    entrypoint = spec["entrypoint"].replace("$$", "$")  # as Kubernetes reads it in the submitter's arguments
    return f"if ! {status} ; then {submit} -- {entrypoint} ; fi ; {follow}"
