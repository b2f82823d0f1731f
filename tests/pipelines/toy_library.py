"""A cascade without a model: the step functions' shapes, acting out a script that lies in the run's folder.

script.json: {"regressed": [attempts that the verdict finds regressed, as "STAGE.ATTEMPT"],
              "fail": {step: kind of failure}, "hang": [steps that do not end by themselves]}
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from kascade.errors import Fault, GuardStop, UserError
from kascade.storage.checkpoint import CheckpointRef, Manifest, publish

SCRIPT = "script.json"


def act(run: str, step: str, **arguments: Any) -> None:
    """Write down that a step was called, then fail, hang or go on as the script says."""
    with (Path(run) / "calls.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **arguments}) + "\n")
    print(f"hello from {step}")
    script = read_script(run)
    if step in script.get("hang", []):
        subprocess.Popen(["sleep", "300"])  # a process that the task started
        time.sleep(300)
    failure = script.get("fail", {}).get(step)
    if failure == "user":
        raise UserError(Fault("data.jsonl:3", "is not JSON", remedy="mend the row"))
    if failure == "stop":
        raise GuardStop("a loss stayed")
    if failure == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


def read_script(run: str) -> dict[str, Any]:
    path = Path(run) / SCRIPT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def make_checkpoint(run: str, stage: str, attempt: str) -> str:
    """Publish a checkpoint of one small file; returns its reference."""
    staged = Path(run) / "staged" / stage / attempt
    staged.mkdir(parents=True, exist_ok=True)
    (staged / "weights.txt").write_text(f"{stage} {attempt}", encoding="utf-8")
    manifest = Manifest(
        id=f"{stage}/{attempt}",
        stage=stage,
        attempt=attempt,
        key="key",
        parent=None,
        fingerprint="",
        code_version="0",
        created="2026-01-01T00:00:00+00:00",
        files={},
    )
    return str(publish(staged, Path(run) / "checkpoints" / stage / attempt, manifest))


def name_of(reference: str) -> str:
    """ "STAGE/ATTEMPT" of a checkpoint made here."""
    return "/".join(CheckpointRef.parse(reference).uri.split("/")[-2:])
