"""A recipe's pipeline on this machine: the compiled YAML, run by `kfp.local`, and what that lacks.

The pipeline runs in a process group of its own that ends with this process, whatever ends it; a folder
has one run at a time; every task has its log; the task's own error is what the user gets to see; the
terminal shows how far the cascade is; and the same call again continues where the last one stopped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from kascade.errors import Fault, UserError
from kascade.guard.approval import Waiting, read_waiting
from kascade.recipe.run_recipe import keep_recipe
from kascade.recipe.schema import Recipe
from kascade.run.repair import repair
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder, StepError
from kascade.termination import termination_as_exit
from kascade.tracking.retrain import read_reason, why
from pipelines.cascade import Steps
from pipelines.process import folder_lock, process_group
from pipelines.show import choose_view
from pipelines.watch import Watcher

LOOK_EVERY_S = 0.5
WAITS = 5  # what the command ends with where the run waits for a person or for money
TAIL_LINES = 15
SCRATCH = "kascade-"  # how folders of temporary files are called
# Threads that wait must not spin: several libraries share the cores. And nothing is reported to anyone.
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
    waiting: what the run waits for, where it ended without an error before its end.
    """

    status: Literal["succeeded", "failed", "waiting for approval", "budget reached", "rejected"]
    report: Path | None = None
    final_checkpoint: str | None = None
    failed_step: str | None = None
    error: StepError | None = None
    waiting: Waiting | None = None

    @property
    def exit_code(self) -> int:
        """0: it came to its end. `WAITS`: it did not, and that is no error."""
        return self.error["exit_code"] if self.error else WAITS if self.waiting else 0


def run_local(
    recipe: Recipe,
    run: Path,
    *,
    text: str | None = None,
    deep: bool = False,
    quiet: bool = False,
    steps: Steps | None = None,
    console: Console | None = None,
) -> RunResult:
    """Run a recipe's cascade in the folder `run`, or continue it there; finished tasks are not run again.

    text: the recipe as the user wrote it; None: what the folder holds stays. deep: read every weight first,
    also where nothing was written since it was last checked. quiet: show the outcome only. steps: other
    components than those of `components/`. console: where it is shown, by default standard error. Raises
    UserError when the folder is in use, cannot be, or holds damage that nothing here can make good. On Ctrl-C
    it ends every process of the run, then raises KeyboardInterrupt (SIGTERM: SystemExit).
    """
    from pipelines.compile import compile_recipe

    layout = RunFolder(run.absolute())
    _refuse_unusable_names(recipe, layout.root)
    steps = steps or Steps.shipped()
    console = console or Console(stderr=True)
    with folder_lock(layout.runner_lock) as lock, termination_as_exit():
        _prepare(layout, recipe, text, deep, console)
        compile_recipe(recipe, layout.pipeline, steps=steps)
        layout.runner_result.unlink(missing_ok=True)
        watcher = Watcher(layout, recipe, since=time.time())
        with (
            scratch_folder(layout) as scratch,
            told_when_stopped(console, layout),
            choose_view(console, watcher, quiet=quiet) as view,
            process_group(
                _command(layout, scratch, steps),
                environment=task_environment(recipe, Path(scratch)),
                log=layout.log("pipeline"),
                inherit=(lock,),
                grace_s=max(recipe.save_on_signal, 3.0),
            ) as process,
        ):
            while not _ended(process):
                view.update()
        result = _result(watcher, process.returncode)
    _tell(console, result, layout)
    return result


def _command(layout: RunFolder, scratch: str, steps: Steps) -> list[str]:
    return [sys.executable, "-m", "pipelines.orchestrate", str(layout.root), scratch, ",".join(steps.library)]


def _prepare(layout: RunFolder, recipe: Recipe, text: str | None, deep: bool, console: Console) -> None:
    """Under the folder's lock: the recipe takes its place, and what the run continues from is looked at."""
    try:
        changed = keep_recipe(layout, recipe)
        if text is not None:
            write_text(layout.recipe, text)
        layout.retrain.unlink(missing_ok=True)  # an earlier pass's: this one decides anew
        found = repair(layout, deep=deep)
    except OSError as error:
        remedy = "make room there and check its rights, or name another folder with --out"
        what = f"cannot be written: {error.strerror or error}"
        raise UserError(Fault(str(error.filename or layout.root), what, remedy=remedy)) from error
    lines = list(found)
    if changed is not None and text is not None:
        lines.append(
            f"continuing {layout.root}" + ("; earlier results are kept, done again:" if changed else "")
        )
        lines += [f"  {stage}: {'; '.join(reasons)}" for stage, reasons in changed.items()]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def scratch_folder(layout: RunFolder) -> Iterator[str]:
    """A folder for temporary files. The one that a killed run of this folder has left goes first."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        left = Path(layout.scratch.read_text(encoding="utf-8").strip())
        if left.name.startswith(SCRATCH) and left.parent == Path(tempfile.gettempdir()):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True) as scratch:
        write_text(layout.scratch, scratch + "\n")
        yield scratch


@contextlib.contextmanager
def told_when_stopped(console: Console, layout: RunFolder) -> Iterator[None]:
    """Say what SIGTERM did, once every process of the run has ended."""
    try:
        yield
    except SystemExit:
        running = [state["step"] for state in layout.states() if state["state"] != "succeeded"]
        what = f"stopped by SIGTERM in {running[-1]}" if running else "stopped by SIGTERM"
        saved = f"; see {layout.log(running[-1])}" if running else ""
        text = f"{what}{saved}. Finished steps and saved training states are kept: the same command continues"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
        raise


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
    checkout = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (checkout, inherited)))
    return environment


def _result(watcher: Watcher, returncode: int) -> RunResult:
    layout = watcher.layout
    fresh = layout.report.exists() and layout.report.stat().st_mtime >= watcher.since
    report = layout.report if fresh else None
    waiting = read_waiting(layout) if returncode == 0 else None
    if waiting is not None:
        return RunResult(waiting.word, report, final_checkpoint=layout.result(), waiting=waiting)
    if returncode == 0:
        return RunResult("succeeded", report, final_checkpoint=layout.result())
    unfinished = [state["step"] for state in watcher.states() if state["state"] != "succeeded"]
    if not unfinished:
        return RunResult("failed", report, error=_crash(layout, "pipeline", returncode))
    step = unfinished[-1]
    error = layout.error(step) or _crash(layout, step, returncode)
    return RunResult("failed", report, failed_step=step, error=error)


def _crash(layout: RunFolder, step: str, returncode: int) -> StepError:
    """The error of a process that could not say anything itself: killed, or out of memory."""
    path = layout.log(step)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    tail = "\n".join(deque(text.splitlines(), TAIL_LINES))
    message = f"ended without an error of its own (killed, or out of memory?); its log ends with\n{tail}"
    return {"type": "ProcessDied", "message": message, "exit_code": max(returncode, 1), "faults": []}


def _tell(console: Console, result: RunResult, layout: RunFolder) -> None:
    """The last words: where the report is, or what went wrong and where to read more."""
    if result.waiting is not None:
        text, style = f"{result.waiting.word}: {result.waiting.sentence}\nreport: {result.report}", "yellow"
    elif result.error is None:
        text, style = f"{_reason(layout)}report: {result.report}", "green"
    else:
        step = result.failed_step or "pipeline"
        kind = "" if result.error["faults"] else f"{result.error['type']}: "
        text = f"{step} failed\n{kind}{result.error['message']}\nlog: {layout.log(step)}"
        style = "red"
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _reason(layout: RunFolder) -> str:
    """A line on why a run that is started again and again did not train; "" for any other."""
    found = read_reason(layout)
    return f"{why(found)}\n" if found is not None and not found.train else ""
