"""A recipe's pipeline on this machine: the compiled YAML, run by `kfp.local`, and what that lacks.

The pipeline runs in a process group of its own that ends with this process, whatever ends it; a folder
has one run at a time; every task has its log; the task's own error is what the user gets to see; the
terminal shows how far the cascade is; and the same call again continues where the last one stopped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

import kascade
from kascade.errors import Fault, UserError
from kascade.recipe.schema import Recipe
from kascade.stages.task import TaskError
from kascade.storage.files import read_json, write_text
from kascade.storage.layout import RunLayout
from kascade.termination import termination_as_exit
from pipelines.cascade import Steps
from pipelines.process import folder_lock, process_group
from pipelines.show import choose_view
from pipelines.watch import Watcher

LOOK_EVERY_S = 0.5
TAIL_LINES = 15
# Threads that wait must not spin: several libraries share the cores. And nothing is told to anyone.
TASK_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. final_checkpoint: reference of the main line's last accepted checkpoint.

    report: the page, where this run wrote it. failed_step, error: the step that failed and its own error.
    """

    status: Literal["succeeded", "failed"]
    report: Path | None = None
    final_checkpoint: str | None = None
    failed_step: str | None = None
    error: TaskError | None = None

    @property
    def exit_code(self) -> int:
        return self.error["exit_code"] if self.error else 0


def run_local(
    recipe: Recipe,
    run: Path,
    *,
    quiet: bool = False,
    steps: Steps | None = None,
    console: Console | None = None,
) -> RunResult:
    """Run a recipe's cascade in the folder `run`, or continue it there; finished tasks are not run again.

    quiet: show the outcome only. steps: other components than those of `components/`. console: where it is
    shown, by default standard error. Raises UserError when the folder is in use or cannot be; on Ctrl-C,
    ends every process of the run, then raises KeyboardInterrupt (SIGTERM: SystemExit).
    """
    from pipelines.compile import compile_recipe

    layout = RunLayout(run.absolute())
    _refuse_unusable_names(recipe, layout.root)
    steps = steps or Steps.shipped()
    console = console or Console(stderr=True)
    with folder_lock(layout.runner / "lock") as lock, termination_as_exit():
        write_text(layout.resolved_recipe, recipe.model_dump_json(indent=1) + "\n")
        compile_recipe(recipe, layout.pipeline, steps=steps)
        (layout.runner / "result.json").unlink(missing_ok=True)
        watcher = Watcher(layout, recipe, since=time.time())
        with (
            tempfile.TemporaryDirectory(prefix="kascade-", ignore_cleanup_errors=True) as scratch,
            choose_view(console, watcher, quiet=quiet) as view,
            process_group(
                [
                    sys.executable,
                    "-m",
                    "pipelines.orchestrate",
                    str(layout.root),
                    scratch,
                    ",".join(steps.library),
                ],
                environment=task_environment(recipe, Path(scratch)),
                log=layout.log("pipeline"),
                inherit=(lock,),
            ) as process,
        ):
            while not _ended(process):
                view.update()
        result = _result(watcher, process.returncode)
    _tell(console, result, layout)
    return result


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(LOOK_EVERY_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _refuse_unusable_names(recipe: Recipe, run: Path) -> None:
    """kfp.local puts the interpreter's path wherever a task's arguments say `python3`."""
    names = {str(run): "the run's folder", recipe.name: "name"}
    names |= {stage.name: f"stages.{index}.name" for index, stage in enumerate(recipe.stages)}
    faults = [
        Fault(where, f"{name!r} contains 'python3', which the local runner cannot handle", remedy="rename it")
        for name, where in names.items()
        if "python3" in name
    ]
    if faults:
        raise UserError(faults)


def task_environment(recipe: Recipe, scratch: Path) -> Mapping[str, str]:
    """What the tasks inherit; what the user has set is left as it is."""
    source = recipe.model.source
    temporary = scratch / "tmp"
    temporary.mkdir()
    environment = {**TASK_ENVIRONMENT, **os.environ, "TMPDIR": str(temporary)}
    if source.startswith("builtin://") or Path(source).is_dir():
        environment.setdefault("HF_HUB_OFFLINE", "1")
    checkout = str(Path(kascade.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (checkout, inherited)))
    return environment


def _result(watcher: Watcher, returncode: int) -> RunResult:
    layout = watcher.layout
    fresh = layout.report.exists() and layout.report.stat().st_mtime >= watcher.since
    report = layout.report if fresh else None
    if returncode == 0:
        final = read_json(layout.runner / "result.json")["final_checkpoint"]
        return RunResult("succeeded", report, final_checkpoint=final)
    unfinished = [state["step"] for state in watcher.states() if state["state"] != "succeeded"]
    if not unfinished:
        return RunResult("failed", report, error=_crash(layout, "pipeline", returncode))
    step = unfinished[-1]
    path = layout.task_error(step)
    error: TaskError = read_json(path) if path.exists() else _crash(layout, step, returncode)
    return RunResult("failed", report, failed_step=step, error=error)


def _crash(layout: RunLayout, step: str, returncode: int) -> TaskError:
    """The error of a process that could not say anything itself: killed, or out of memory."""
    path = layout.log(step)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    tail = "\n".join(deque(text.splitlines(), TAIL_LINES))
    message = f"ended without a word of its own (killed, or out of memory?); its log ends with\n{tail}"
    return {"type": "ProcessDied", "message": message, "exit_code": max(returncode, 1), "faults": []}


def _tell(console: Console, result: RunResult, layout: RunLayout) -> None:
    """The last words: where the report is, or what went wrong and where to read more."""
    if result.error is None:
        text, style = f"report: {result.report}", "green"
    else:
        step = result.failed_step or "pipeline"
        kind = "" if result.error["faults"] else f"{result.error['type']}: "
        text = f"{step} failed\n{kind}{result.error['message']}\nlog: {layout.log(step)}"
        style = "red"
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
