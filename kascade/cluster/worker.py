"""What runs in the pods of a job: a stage's training, as `python -m kascade.cluster.worker JOB RUN STAGE ...`.

Under torchrun every process comes here; the first one (RANK 0) keeps the log and writes the result, which the
launcher reads from the run's folder.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

from kascade.errors import CheckpointError
from kascade.stages.task import pipeline_task
from kascade.storage.files import read_json, write_json
from kascade.storage.layout import RunLayout


def arguments(run: str, stage: str, attempt: str, checkpoint: str, parent: str) -> list[str]:
    """The work of a job, in the order in which `main` takes it."""
    return [run, stage, attempt, checkpoint, parent]


def job_step(stage: str, attempt: str) -> str:
    """The name under which a job keeps its log, its state and its error, beside those of its launcher."""
    return f"{stage}.{attempt}.job"


def train_here(run: str, stage: str, attempt: str, checkpoint: str, parent: str) -> str:
    """Train a stage (attempt "train") or recover it ("recover-N") in this process."""
    from kascade.stages import steps

    if attempt == "train":
        return steps.train(run, stage, parent)
    return steps.recover(run, stage, int(attempt.removeprefix("recover-")), checkpoint, parent)


def _result(layout: RunLayout, stage: str, attempt: str) -> Path:
    return layout.task_state(job_step(stage, attempt)).with_suffix(".result.json")


def read_result(layout: RunLayout, stage: str, attempt: str, job: str) -> str:
    """The checkpoint that `job` wrote down. Raises CheckpointError when it wrote none."""
    path = _result(layout, stage, attempt)
    if not path.exists() or (found := read_json(path))["job"] != job:
        raise CheckpointError(f"{job} succeeded, but wrote no checkpoint down in {path}")
    return str(found["checkpoint"])


def main(job: str, run: str, stage: str, attempt: str, checkpoint: str, parent: str) -> None:
    """Do the work; the first process writes down the checkpoint for the launcher of `job`."""
    first = int(os.environ.get("RANK", "0")) == 0
    with pipeline_task(run, job_step(stage, attempt)) if first else nullcontext():
        reference = train_here(run, stage, attempt, checkpoint, parent)
        if first:
            result = {"job": job, "checkpoint": reference}
            write_json(_result(RunLayout(Path(run)), stage, attempt), result)


if __name__ == "__main__":
    main(*sys.argv[1:])
