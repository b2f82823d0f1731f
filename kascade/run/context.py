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

from kascade.clock import Clock
from kascade.errors import CheckpointError
from kascade.guard.lineage import Ancestor
from kascade.recipe.identity import fingerprint
from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import Recipe
from kascade.rollout.checkpoint_judge import set_up_judge
from kascade.run.machine import accelerators_held
from kascade.storage.address import join_uri
from kascade.storage.checkpoint import (
    MANIFEST,
    CheckpointRef,
    Manifest,
    open_checkpoint,
    point_to,
    publish,
    verify,
)
from kascade.storage.files import naming, share
from kascade.storage.progress import Progress
from kascade.storage.run_folder import ACCELERATOR, RunFolder
from kascade.version import __version__

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """One step's view of a run: what it is to do, where things are, and what time goes into."""

    layout: RunFolder
    recipe: Recipe
    step: str
    progress: Progress
    clock: Clock = field(default_factory=Clock)
    cost_before: Mapping[str, float] = field(default_factory=dict)

    def keep_cost(self, *, ended: bool = False) -> None:
        """Write what this try has cost so far: a killed one writes nothing at its end."""
        spent = self.clock.summary()
        held = accelerators_held(self.recipe, self.step)
        if held:
            spent[ACCELERATOR] = round(held * spent["wall_s"], 3)
        self.layout.write_cost(self.step, self.cost_before, spent, ended=ended)

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
    layout = RunFolder(Path(run))
    recipe = read_run_recipe(layout.root)
    if recipe.threads is not None and not light:
        import torch

        torch.set_num_threads(recipe.threads)
    set_up_judge(recipe.judge, layout.judge)
    progress = Progress(layout.progress(step), step)
    opened = Run(layout, recipe, step, progress, cost_before=layout.cost_so_far(step))
    try:
        yield opened
    finally:
        opened.keep_cost(ended=True)


def publish_checkpoint(
    run: Run,
    *,
    stage: str,
    attempt: str,
    key: str,
    parent: str | None,
    teachers: Mapping[str, Ancestor],
    write: Callable[[Path], None],
    base: str | None = None,
) -> str:
    """Write a checkpoint's files with `write(folder)` and publish them. Returns the reference.

    base: reference of the model that it is an adapter of; None: it is a whole model.

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
        base=base,
        fingerprint=fingerprint(run.recipe, stage),
        code_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        files={},
    )
    target = run.layout.checkpoint(checkpoint_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        with run.clock.section("saving"), naming(target):
            write(staged)
            share(staged)
            if run.checkpoints is None:
                ref = publish(staged, target, manifest)
            else:
                ref = publish(staged, join_uri(run.checkpoints, checkpoint_id), manifest)
                point_to(ref, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    run.layout.training(checkpoint_id).drop_states()
    log.info("published %s", ref)
    return str(ref)


def digest_of(reference: str) -> str:
    return CheckpointRef.parse(reference).digest
