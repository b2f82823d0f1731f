"""A cascade without a model: the step functions' shapes, acting out a script that lies in the run's folder.

As the real steps do, training and evaluation find what they finished before; then they do not act again.

script.json: {"regressed": [attempts that the verdict finds regressed, as "STAGE.ATTEMPT"],
              "fail": {step: kind of failure}, "hang": [steps that do not end by themselves],
              "costs": {step: CPU seconds that it is said to have used}}
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
from kascade.guard.approval import decide, go_on, read_waiting
from kascade.recipe.approval import decisions
from kascade.recipe.run_recipe import read_run_recipe
from kascade.run.gate import may_begin
from kascade.storage.checkpoint import CheckpointRef, Manifest, open_checkpoint, publish
from kascade.storage.files import write_json, write_record
from kascade.storage.run_folder import RunFolder
from kascade.tracking.retrain import Inputs, Reason

SCRIPT = "script.json"


def act(run: str, step: str, **arguments: Any) -> None:
    """Write down that a step was called, then fail, hang or go on as the script says."""
    with (Path(run) / "calls.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **arguments}) + "\n")
    print(f"hello from {step}")
    script = read_script(run)
    if (cpu_s := script.get("costs", {}).get(step)) is not None:
        write_json(RunFolder(Path(run)).cost(step), {"cpu_s": cpu_s})
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


def has_news(run: str) -> bool:
    """What the script says of whether anything changed; the reason lies where the real step puts it."""
    news: list[str] = read_script(run).get("news", [])
    inputs = Inputs(code="0", model="m", recipe={}, rows={})
    reason = Reason(train=bool(news), reasons=tuple(news) or ("Nothing changed.",), inputs=inputs)
    write_record(RunFolder(Path(run)).retrain, reason.model_dump_json())
    return reason.train


def known(run: str, stage: str, attempt: str) -> str | None:
    """Reference of a checkpoint that was made before."""
    folder = Path(run) / "checkpoints" / stage / attempt
    return str(open_checkpoint(folder)[0]) if (folder / "manifest.json").exists() else None


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


def regressed(run: str, stage: str, attempt: str) -> bool:
    """What the script says of an attempt."""
    return f"{stage}.{attempt}" in read_script(run).get("regressed", [])


def judged(run: str, stage: str, attempt: str) -> Path:
    """The mark that an attempt was evaluated before."""
    return Path(run) / f"judged.{stage}.{attempt}"


def tried(run: str, stage: str) -> list[str]:
    """References of the stage's attempts, each recovery following a regressed one."""
    attempts = ["train", "recover-1", "recover-2"]
    last = next((n for n, one in enumerate(attempts) if not regressed(run, stage, one)), len(attempts) - 1)
    found = [known(run, stage, attempt) for attempt in attempts[: last + 1]]
    return [reference for reference in found if reference]


def left_out(run: str, stages: str) -> None:
    """Write down which stages the form switched off: "a=true b=False"."""
    off = [pair.partition("=")[0] for pair in stages.split() if pair.lower().endswith("=false")]
    (Path(run) / "off.json").write_text(json.dumps(off), encoding="utf-8")


def begins(run: str, before: str, subject: str) -> bool:
    """What the real gate says of a stage, a recovery or the end check."""
    if "." not in before and is_left_out(run, before):
        return False
    if not RunFolder(Path(run)).has_begun:  # a pipeline without a recipe in its folder has no gate
        return True
    return may_begin(RunFolder(Path(run)), read_run_recipe(Path(run)), before, subject)


def following(stage: str, attempt: str) -> str:
    """The recovery that follows an attempt."""
    return f"{stage}.recover-{1 if attempt == 'train' else int(attempt[-1]) + 1}"


def take_word(run: str, approve: str) -> None:
    """As the real preflight: forget what was waited for, and keep what the form says."""
    go_on(RunFolder(Path(run)))
    for name, approved in decisions(approve, "approve", []).items():
        decide(RunFolder(Path(run)), name, approved=approved, by="the form")


def waits(run: str) -> bool:
    return read_waiting(RunFolder(Path(run))) is not None


def is_held_up(run: str, stage: str) -> bool:
    waiting = read_waiting(RunFolder(Path(run)))
    mine = waiting is not None and waiting.before.partition(".")[0] == stage
    return is_left_out(run, stage) or mine or (waiting is not None and not tried(run, stage))


def is_left_out(run: str, stage: str) -> bool:
    return stage in json.loads((Path(run) / "off.json").read_text(encoding="utf-8"))


def name_of(reference: str) -> str:
    """ "STAGE/ATTEMPT" of a checkpoint made here."""
    return "/".join(CheckpointRef.parse(reference).uri.split("/")[-2:])
