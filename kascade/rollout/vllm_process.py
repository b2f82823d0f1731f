"""A vLLM server that this process starts with the interpreter of vLLM's environment, and ends."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import requests

from kascade.errors import Fault, UserError
from kascade.recipe.vllm import VLLM, ServedVLLM

SIDE = Path(__file__).with_name("vllm_side")
ENDS_WITHIN_S, ASKS_EVERY_S, SHOWN_LINES = 20.0, 0.5, 12
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # the routes that take weights
    "VLLM_NO_USAGE_STATS": "1",  # nothing leaves the cluster
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(SIDE),
}
CPU_DEFAULTS = {
    "VLLM_CPU_KVCACHE_SPACE": "4",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}  # on CPUs


class Savable(Protocol):
    """A config, or a tokenizer."""

    def save_pretrained(self, folder: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Started:
    """A server of ours. folder: config, tokenizer and log."""

    process: subprocess.Popen[bytes]
    url: str
    folder: tempfile.TemporaryDirectory[str]


_started: dict[str, Started] = {}


def start_server(served: ServedVLLM, settings: VLLM, dtype: str, config: Savable, tokenizer: Savable) -> str:
    """The address of a server for such a model: one of this process, started on first use.

    It begins with weights of chance. Raises UserError when it does not come up.
    """
    folder = tempfile.TemporaryDirectory(prefix="kascade-vllm-", ignore_cleanup_errors=True)
    model = Path(folder.name) / "model"
    for part in (config, tokenizer):
        part.save_pretrained(str(model))
    key = _key(served, settings, dtype, model)
    known = _started.get(key)
    if known is not None and known.process.poll() is None:
        return known.url
    _started[key] = started = _start(served, settings, dtype, folder)
    atexit.register(end_server, started)
    return started.url


def _key(served: ServedVLLM, settings: VLLM, dtype: str, model: Path) -> str:
    files = [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in sorted(model.iterdir())]
    return json.dumps([served.model_dump(), settings.model_dump(), dtype, files, os.getpid()])


def _start(
    served: ServedVLLM, settings: VLLM, dtype: str, folder: tempfile.TemporaryDirectory[str]
) -> Started:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = Path(folder.name) / "server.log"
    command = [str(served.python), str(SIDE / "kascade_vllm.py"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(Path(folder.name) / "model"), *options(served, settings, dtype)]
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**CPU_DEFAULTS, **os.environ, **ENVIRONMENT},
                start_new_session=True,
            )
    except OSError as error:
        remedy = "name the python of the environment in which vllm is installed"
        what = f"{served.python} cannot be started: {error.strerror or error}"
        raise UserError(Fault("model.rollout.vllm.served.python", what, remedy=remedy)) from None
    started = Started(process, f"http://127.0.0.1:{port}", folder)
    _wait(started, log, served.start_timeout_s)
    return started


def options(served: ServedVLLM, settings: VLLM, dtype: str) -> list[str]:
    """vLLM's own options, as docs/distributed.md has them."""
    found = ["--dtype", dtype, "--load-format", "dummy", "--logprobs-mode", "processed_logprobs"]
    found += ["--weight-transfer-config", json.dumps({"backend": served.transfer})]
    found += ["--tensor-parallel-size", str(settings.tensor_parallel_size)]
    found += ["--gpu-memory-utilization", str(settings.gpu_memory_utilization), "--seed", "0"]
    if settings.max_model_len is not None:
        found += ["--max-model-len", str(settings.max_model_len)]
    if served.transfer == "shared_memory":
        found += ["--worker-extension-cls", "kascade_vllm.SharedMemoryWorker", "--enforce-eager"]
    return found


def _wait(started: Started, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if started.process.poll() is not None:
            break
        try:
            if requests.get(f"{started.url}/health", timeout=ASKS_EVERY_S * 10).ok:
                return
        except requests.exceptions.RequestException:
            pass
        time.sleep(ASKS_EVERY_S)
    code = started.process.poll()
    end_server(started)
    said = "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
    what = f"ended with code {code}" if code is not None else f"did not answer within {timeout_s:g} s"
    remedy = "see the end of its log above"
    raise UserError(Fault("model.rollout.vllm.served", f"the vLLM server {what}:\n{said}", remedy=remedy))


def end_server(started: Started) -> None:
    """End a server and all that it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if started.process.poll() is not None:
            break
        try:
            os.killpg(started.process.pid, sign)
            started.process.wait(ENDS_WITHIN_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
