"""What runs in the pods of a job: one stage's training, `python -m kascade.cluster.worker JOB RUN STAGE ...`.

Under torchrun every process comes here; the first one (RANK 0) keeps the log and writes the result, which the
launcher reads from the run's folder.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from kascade.errors import CheckpointError
from kascade.run.process import step_process
from kascade.storage.files import read_json, write_json
from kascade.storage.run_folder import RunFolder

TRAIN = "train"  # the attempt that is no recovery


@dataclass(frozen=True, slots=True)
class Work:
    """What a job is to do: train a stage (attempt "train") or recover it ("recover-N"). In `main`'s order."""

    run: str
    stage: str
    attempt: str
    checkpoint: str
    parent: str

    @property
    def layout(self) -> RunFolder:
        return RunFolder(Path(self.run))

    @property
    def step(self) -> str:
        """The name under which a job keeps its log, its state and its error, beside those of its launcher."""
        return f"{self.stage}.{self.attempt}.job"


def train_here(work: Work) -> str:
    """Do the work in this process. Returns the checkpoint's reference."""
    from kascade.steps import steps

    if work.attempt == TRAIN:
        return steps.train(work.run, work.stage, work.parent)
    round_ = int(work.attempt.removeprefix("recover-"))
    return steps.recover(work.run, work.stage, round_, work.checkpoint, work.parent)


def _result(work: Work) -> Path:
    return work.layout.job_result(work.step)


def read_result(work: Work, job: str) -> str:
    """The checkpoint that `job` wrote down. Raises CheckpointError when it wrote none."""
    path = _result(work)
    if not path.exists() or (found := read_json(path))["job"] != job:
        raise CheckpointError(f"{job} succeeded, but wrote no checkpoint down in {path}")
    return str(found["checkpoint"])


def main(job: str, *fields: str) -> None:
    """Do the work; the first process writes down the checkpoint for the launcher of `job`."""
    work = Work(*fields)
    first = int(os.environ.get("RANK", "0")) == 0
    with step_process(work.run, work.step) if first else nullcontext():
        reference = train_here(work)
        if first:
            write_json(_result(work), {"job": job, "checkpoint": reference})


if __name__ == "__main__":
    main(*sys.argv[1:])
