"""A run opened for a step: recipe, paths, clock and progress."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import kascade
from kascade.clock import Clock
from kascade.errors import CheckpointError, Fault, UserError
from kascade.guard.lineage import Ancestor
from kascade.recipe.identity import fingerprint
from kascade.recipe.schema import Recipe, read_resolved
from kascade.stages.judging import set_up_judge
from kascade.storage.checkpoint import (
    MANIFEST,
    CheckpointRef,
    Manifest,
    open_checkpoint,
    point_to,
    publish,
    verify,
)
from kascade.storage.files import read_json, share, write_json
from kascade.storage.layout import RunLayout
from kascade.storage.progress import Progress
from kascade.storage.uris import join_uri

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """One step's view of a run: what it is to do, where things lie, and what time goes into."""

    layout: RunLayout
    recipe: Recipe
    step: str
    progress: Progress
    clock: Clock = field(default_factory=Clock)

    def open_verified(self, reference: str) -> Path:
        """The folder of a checkpoint after every file was checked. Raises CheckpointError."""
        with self.clock.section("loading"):
            return verify(reference)[0]

    @property
    def checkpoints(self) -> str | None:
        """Where checkpoints are published when that is not the run's folder; their ids follow."""
        return self.recipe.storage.checkpoints or os.environ.get("KASCADE_CHECKPOINTS")

    def existing(self, checkpoint_id: str) -> str | None:
        """Reference of a finished checkpoint of this run, None when it is still to be made.

        Other runs that keep their checkpoints in the same place may have made it.
        """
        folder = self.layout.checkpoint(checkpoint_id)
        if self.checkpoints is None:
            return str(open_checkpoint(folder)[0]) if (folder / MANIFEST).exists() else None
        try:
            ref, _ = open_checkpoint(join_uri(self.checkpoints, checkpoint_id))
        except CheckpointError:
            return None
        point_to(ref, folder)
        return str(ref)


@contextmanager
def open_run(run: str, step: str, *, light: bool = False) -> Iterator[Run]:
    """Open a run for the step called `step`; what it cost is added up when the step is left, however.

    light: the step holds no model, and does without torch, which costs a pod seconds to load.
    """
    layout = RunLayout(Path(run))
    if not layout.resolved_recipe.exists():
        remedy = "start it with `kascade run RECIPE --out FOLDER`"
        raise UserError(Fault(str(layout.root), "is not the folder of a run", remedy=remedy))
    recipe = read_resolved(layout.resolved_recipe)
    if recipe.threads is not None and not light:
        import torch

        torch.set_num_threads(recipe.threads)
    set_up_judge(recipe.judge, layout.judge)
    opened = Run(layout, recipe, step, Progress(layout.progress(step), step))
    try:
        yield opened
    finally:
        add_cost(layout.cost(step), opened.clock.summary())


def add_cost(path: Path, summary: Mapping[str, float]) -> None:
    """Add a try's cost to that of earlier ones: an interrupted step has been paid for, too."""
    before = read_json(path) if path.exists() else {}
    names = {**before, **summary}
    total = {name: round(before.get(name, 0.0) + summary.get(name, 0.0), 3) for name in names}
    peak = "peak_memory_bytes"
    write_json(path, {**total, peak: max(before.get(peak, 0), summary[peak])})


def publish_checkpoint(
    run: Run,
    *,
    stage: str,
    attempt: str,
    key: str,
    parent: str | None,
    teachers: Mapping[str, Ancestor],
    write: Callable[[Path], None],
) -> str:
    """Write a checkpoint's files with `write(folder)` and publish them. Returns the reference.

    Its training state is removed afterwards: it has served.
    """
    checkpoint_id = f"{stage}/{attempt}-{key}"
    manifest = Manifest(
        id=checkpoint_id,
        stage=stage,
        attempt=attempt,
        key=key,
        parent=parent,
        teachers={domain: teacher.reference for domain, teacher in teachers.items()},
        fingerprint=fingerprint(run.recipe, stage),
        code_version=kascade.__version__,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        files={},
    )
    target = run.layout.checkpoint(checkpoint_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        with run.clock.section("saving"):
            write(staged)
            share(staged)
            if run.checkpoints is None:
                ref = publish(staged, target, manifest)
            else:
                ref = publish(staged, join_uri(run.checkpoints, checkpoint_id), manifest)
                point_to(ref, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(run.layout.training(checkpoint_id) / "state", ignore_errors=True)
    log.info("published %s", ref)
    return str(ref)


def digest_of(reference: str) -> str:
    return CheckpointRef.parse(reference).digest
