"""The folder of a run: one reader and one writer of everything in it.

What is plain JSON is read and written here. What has a type of a higher layer is read and written by one
function there, with `load` and `each`: the recipe in `kascade.recipe.run_recipe`, scores, verdicts and
outcomes in `kascade.guard`, answers in `kascade.exams`, curves in `kascade.learning.metrics`.

Errors are the same for all: a broken file raises UserError with what to do. A folder opened as `tolerant`
leaves the file out instead, and says so in `problems`: a report of half a run is worth having.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from kascade.errors import Fault, KascadeError, UserError
from kascade.storage.checkpoint import MANIFEST, CheckpointRef, Manifest, open_checkpoint
from kascade.storage.files import read_json, refuse_changed, write_json
from kascade.storage.run_paths import RunPaths

Read = TypeVar("Read")
REMEDY = "remove the file and resume the run: the step that wrote it writes it again"
PEAK = "peak_memory_bytes"
TRIES, UNDER_WAY = "tries", "under_way"  # of a step: how often it was begun, and whether it has not ended yet
ACCELERATOR = "accelerator_s"  # seconds times the accelerators that were held


class StepError(TypedDict):
    """A step's own error; `faults` as `UserError.as_json` gives them, [] for any other error."""

    type: str
    message: str
    exit_code: int
    faults: list[dict[str, str | None]]


class StepState(TypedDict):
    """How a step stands; `seconds` is None while it runs (or was killed)."""

    step: str
    state: str
    started: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class RunFolder(RunPaths):
    """The folder of a run at `root`. problems: None: a broken file is an error; else where it is noted."""

    problems: list[str] | None = field(default=None, compare=False)

    @classmethod
    def tolerant(cls, root: Path) -> RunFolder:
        """The folder as a report reads it: what is broken is left out and listed in `problems`."""
        return cls(root, [])

    def note(self, path: Path, what: str) -> None:
        """List a problem with a file, if this folder is read tolerantly."""
        if self.problems is not None:
            self.problems.append(f"{path.relative_to(self.root)}: {what}")

    def load(self, path: Path, read: Callable[[Path], Read], remedy: str = REMEDY) -> Read | None:
        """What `read` makes of a file; None where there is none (or it is broken, read tolerantly).

        Raises UserError for a broken file.
        """
        if not path.exists():
            return None
        try:
            refuse_changed(path.read_bytes())
            return read(path)
        except (OSError, ValueError, KeyError, TypeError, KascadeError) as error:
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if self.problems is None:
                raise UserError(Fault(str(path), f"cannot be read: {what}", remedy=remedy)) from error
            self.note(path, what)
            return None

    def each(self, paths: Iterable[Path], read: Callable[[Path], Read]) -> dict[Path, Read]:
        """What `read` makes of each file, by path. Errors as in `load`."""
        found = {path: self.load(path, read) for path in paths}
        return {path: value for path, value in found.items() if value is not None}

    # what steps leave behind

    def costs(self) -> dict[str, dict[str, Any]]:
        """What each step has cost so far, by step: seconds by kind, and the peak of memory in bytes."""
        return {path.stem: cost for path, cost in self.each(self.cost_files(), _object).items()}

    def cost_so_far(self, step: str) -> Mapping[str, float]:
        """What the tries of a step have cost: an interrupted one has been paid for, too."""
        return self.load(self.cost(step), _object) or {}

    def write_cost(
        self, step: str, before: Mapping[str, float], summary: Mapping[str, float], *, ended: bool = True
    ) -> None:
        """before: of earlier tries; summary: of this one, so far. ended: whether this try has."""
        names = [name for name in {**before, **summary} if name not in (TRIES, UNDER_WAY)]
        total = {name: round(before.get(name, 0.0) + summary.get(name, 0.0), 3) for name in names}
        total |= {PEAK: max(before.get(PEAK, 0), summary[PEAK])}
        total |= {TRIES: before.get(TRIES, 1) + 1} if before else {}
        write_json(self.cost(step), total if ended else {**total, UNDER_WAY: True})

    def states(self) -> list[StepState]:
        """How the steps stand, in the order in which they began."""
        found: Iterable[Any] = self.each(self.state_files(), _object).values()
        return sorted(found, key=lambda state: float(state["started"]))

    def write_state(self, state: StepState) -> None:
        write_json(self.step_state(state["step"]), state)

    def error(self, step: str) -> StepError | None:
        """A step's own error; None where its last try did not fail."""
        found: Any = self.load(self.step_error(step), _object)
        return found  # type: ignore[no-any-return]

    def errors(self) -> dict[str, StepError]:
        """The own errors of all steps whose last try failed."""
        paths = self.error_files()
        found: Mapping[Path, Any] = self.each(paths.values(), _object)
        return {step: found[path] for step, path in paths.items() if path in found}

    def write_error(self, step: str, error: StepError) -> None:
        write_json(self.step_error(step), error)

    def forget_error(self, step: str) -> None:
        """Remove the error of an earlier try."""
        self.step_error(step).unlink(missing_ok=True)

    def progress_since(self, step: str, since: float) -> dict[str, Any] | None:
        """How far a step is (`Progress` writes it); None if it has said nothing since then (Unix s)."""
        path = self.progress(step)
        if not path.exists() or path.stat().st_mtime < since:
            return None
        return self.load(path, _object)

    # checkpoints

    def checkpoints(self) -> list[tuple[CheckpointRef, Manifest]]:
        """Every complete checkpoint of the folder, oldest first."""
        paths = sorted(self._checkpoints.rglob(MANIFEST))
        found = self.each(paths, lambda path: open_checkpoint(path.parent)).values()
        return sorted(found, key=lambda pair: pair[1].created)

    def final_checkpoint(self) -> str | None:
        """Reference of the checkpoint that the main line ended with; None before the cascade has ended."""
        return self._reference(self.final)

    def write_final(self, reference: str) -> None:
        write_json(self.final, {"final_checkpoint": reference})

    def retained_of(self, checkpoint: str) -> str | None:
        """What the end check of `checkpoint` ended with; None before it was made."""
        found = self.load(self.retained, _object)
        return str(found["retained"]) if found and found["checkpoint"] == checkpoint else None

    def write_retained(self, checkpoint: str, retained: str) -> None:
        write_json(self.retained, {"checkpoint": checkpoint, "retained": retained})

    def result(self) -> str | None:
        """Reference that the local runner's last run ended with; None where it did not succeed."""
        return self._reference(self.runner_result)

    def write_result(self, reference: str) -> None:
        write_json(self.runner_result, {"final_checkpoint": reference})

    def _reference(self, path: Path) -> str | None:
        return self.load(path, lambda one: str(read_json(one)["final_checkpoint"]))


def _object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError for any other JSON value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value
