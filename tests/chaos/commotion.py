"""A small cascade in its own process, and what can happen to it: kills, full disks, wrong clocks, damage.

The cascade is that of `toy_cascade`: real steps, real training, a model of a few thousand weights. A round
costs about a CPU second, because the process is a fork of one that has loaded everything.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from toy_cascade import RATE, make_run, stage

import kascade.doctor.preflight
import kascade.exams.evaluate
import kascade.stages.recover
import kascade.stages.train  # noqa: F401 (steps import late; forks find all of it loaded)
from kascade.errors import KascadeError
from kascade.recipe.run_recipe import read_run_recipe
from kascade.run import context
from kascade.run.context import open_run
from kascade.run.repair import repair
from kascade.stages.attempts import tried
from kascade.steps import settle, steps
from kascade.storage.run_folder import RunFolder
from pipelines.process import folder_lock

KILLS = int(os.environ.get("CHAOS_KILLS", "6"))
DAMAGES = int(os.environ.get("CHAOS_DAMAGES", "14"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
TAUGHT = {"min_teacher_gap": 0, "prompts_per_step": 4}
SMALL = {"updates_per_batch": 2, "min_usable_groups": 1}
STAGES = (
    stage("sft", "sft", "say_a", "say_b", steps=4, save_every=1),
    stage("rl", "if_rl", "say_a", steps=3, save_every=1, prompts_per_step=4, grpo=SMALL),
    stage("mopd", "mopd", "say_a", "say_b", steps=2, save_every=1, teachers={"math": "sft"}, **TAUGHT),
)
RECOVERY = {"rounds": 1, "steps": 2, "optimizer": RATE, "prompts_per_step": 4, "full_vocabulary": True}
REFUSED = 2


@dataclass(frozen=True)
class World:
    """A run's folder, and the folder of a finished run to put in its place."""

    run: RunFolder
    finished: Path
    results: dict[str, str]

    @classmethod
    def make(cls, root: Path, stages: Sequence[dict[str, Any]] = STAGES) -> World:
        for part in (part for one in stages for part in one["data"]):
            part["source"]["count"] = 40  # few tasks: most of a round is preflight, which reads them all
        run = make_run(root, *stages, tasks=32, recovery=RECOVERY, screen_samples=1)
        fresh = root / "fresh"
        shutil.copytree(run.root, fresh)
        world = cls(run, root / "finished", {})
        assert world.command() == 0, "the cascade itself fails"
        shutil.copytree(run.root, world.finished)
        return cls(run, world.finished, results(run))

    def begin_anew(self, *, finished: bool = False) -> None:
        shutil.rmtree(self.run.root)
        shutil.copytree(self.finished if finished else self.finished.with_name("fresh"), self.run.root)

    def start(
        self, before: Callable[[], None] = lambda: None, work: Callable[[Path], None] | None = None
    ) -> BaseProcess:
        """The same command, always. before: what happens to it, in its process. work: None: the cascade."""
        arguments = (self.run.root, before, work or cascade)
        process = multiprocessing.get_context("fork").Process(target=_main, args=arguments)
        process.start()
        return process

    def command(
        self, before: Callable[[], None] = lambda: None, work: Callable[[Path], None] | None = None
    ) -> int | None:
        process = self.start(before, work)
        process.join()
        return process.exitcode

    def killed(
        self, after_s: float, number: int = signal.SIGKILL, work: Callable[[Path], None] | None = None
    ) -> bool:
        """Start the command and send it a signal after a while. Returns whether that ended it."""
        process = self.start(work=work)
        process.join(after_s)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, number)
        process.join()
        return process.exitcode != 0

    def differences(self, left_out: tuple[str, ...] = ()) -> list[str]:
        """Files that are not as an undisturbed run makes them."""
        found = {name: value for name, value in results(self.run).items() if not name.startswith(left_out)}
        expected = {name: value for name, value in self.results.items() if not name.startswith(left_out)}
        return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))

    @property
    def said(self) -> str:
        """The last words of the last command."""
        path = self.run.root.with_name("said")
        return path.read_text(encoding="utf-8") if path.exists() else ""


def _main(root: Path, before: Callable[[], None], work: Callable[[Path], None]) -> None:
    said = root.with_name("said")
    said.unlink(missing_ok=True)
    before()
    try:
        work(root)
    except KascadeError as error:
        said.write_text(str(error), encoding="utf-8")
        sys.exit(REFUSED)
    except OSError as error:
        said.write_text(f"{error.filename}: {error}", encoding="utf-8")
        sys.exit(1)
    except Exception as error:
        said.write_text(f"TRACEBACK {type(error).__name__}: {error}", encoding="utf-8")
        raise


@contextmanager
def stopped_in_its_run(pid: int, run: RunFolder) -> Iterator[None]:
    """A process that holds its run's folder, and stands still within the block."""
    deadline = time.monotonic() + 120
    while not (run.runner_lock.exists() and run.runner_lock.read_text() == str(pid)):
        assert time.monotonic() < deadline, "the process never took its run's folder"
        time.sleep(0.005)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def cascade(root: Path) -> None:
    """What `kascade run` does, step by step, in one process and without MLflow."""
    folder = RunFolder(root)
    with folder_lock(folder.runner_lock, patience_s=0.5):
        recipe = read_run_recipe(root)
        repair(folder)
        run = str(root)
        parent = steps.preflight(run)
        steps.evaluate(run, "base", parent, parent)
        for part in recipe.stages:
            parent = _guarded(run, part.name, parent, recipe.guard.recovery.rounds)
        steps.finish(run, parent)


def _guarded(run: str, name: str, parent: str, rounds: int) -> str:
    candidate = steps.train(run, name, parent)
    for round_ in range(1, rounds + 1):
        if not steps.evaluate(run, name, candidate, parent):
            break
        candidate = steps.recover(run, name, round_, candidate, parent)
    else:
        steps.evaluate(run, name, candidate, parent)
    with open_run(run, f"{name}.settle") as opened:
        return settle.settle_stage(opened, name, tried(opened, name, parent)[-1], parent)


def results(run: RunFolder) -> dict[str, str]:
    """What a run is for, by file: weights, scores, answers, verdicts, outcomes, curves."""
    found = {}
    for name in ("checkpoints", "scores", "answers", "verdicts", "outcomes", "training"):
        for path in sorted((run.root / name).rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(run.root).parts)
            if path.is_file() and not hidden and "state" not in path.parts:
                found[str(path.relative_to(run.root))] = sha256(_telling(path)).hexdigest()
    return found


def _telling(path: Path) -> bytes:
    """A file's contents without the times in them."""
    if path.suffix != ".json" or path.name == "config.json":
        return path.read_bytes()
    value = json.loads(path.read_bytes())
    return json.dumps(_without_times(value), sort_keys=True).encode()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in {"created", "seal"}}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


# what can happen to a running command


WRITES = ((os, "fsync"), (Path, "replace"), (Path, "rename"), (shutil, "rmtree"))


def killed_in_a_write(number: int, within: tuple[Any, str] | None = None) -> Callable[[], None]:
    """SIGKILL at the `number`-th moment at which something reaches the disk: before, between or after.

    within: a function, by its module and name, from whose first call on moments are counted. None: all are.
    """

    def arm() -> None:
        left, counting = [number], [within is None]

        def write() -> None:
            left[0] -= counting[0]
            if counting[0] and left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        for owner, name in WRITES:
            _hooked(owner, name, write)
        if within is not None:
            _hooked(*within, lambda: counting.__setitem__(0, True))

    return arm


def _hooked(owner: Any, name: str, first: Callable[[], Any]) -> None:
    """Let `first` be called before a function, in this process."""
    original = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        first()
        return original(*arguments, **named)

    setattr(owner, name, call)


def out_of_room(num_bytes: int) -> Callable[[], None]:
    """No file may become longer: what a full disk does to a write."""

    def arm() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

    return arm


def clock_set_back() -> None:
    """A day earlier than it is."""

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz or UTC) - timedelta(days=1)

    context.datetime = settle.datetime = Yesterday  # type: ignore[attr-defined,misc]


# what can happen to a file


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) or 1)])


def _as_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _zeros(path: Path, rng: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _garbage(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.randrange(1, 200)))


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "flipped": flip,
    "cut": cut,
    "emptied": lambda path, rng: path.write_bytes(b"") and None,
    "deleted": lambda path, rng: path.unlink(),
    "a folder": _as_folder,
    "zeros": _zeros,
    "garbage": _garbage,
}


def files_of(run: RunFolder) -> list[Path]:
    """Everything in a run's folder that a command reads."""
    skipped = {run.runner_lock, run.stamps, run.resolved_recipe.with_name("recipe.yaml")}
    return sorted(
        path
        for path in run.root.rglob("*")
        if path.is_file() and path not in skipped and path.suffix != ".log" and not path.name.startswith(".")
    )
