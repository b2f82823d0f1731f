"""The process that runs a compiled pipeline with `kfp.local`; `pipelines.local` starts it.

    python -m pipelines.orchestrate RUN SCRATCH LIBRARY LIFELINE

RUN: the run's folder. SCRATCH: an empty folder that nobody will miss. LIBRARY: modules
to load once for all tasks, separated by commas. LIFELINE: see `die_with_starter`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from kascade.guard.approval import read_waiting
from kascade.recipe.approval import PROMOTION
from kascade.storage.run_folder import RunFolder
from kascade.tracking.retrain import read_reason
from pipelines.forked import wait_for_task_when_terminated
from pipelines.process import die_with_starter


def run_pipeline(layout: RunFolder, scratch: Path, library: Sequence[str]) -> str | None:
    """Run `pipeline.yaml` of a run; what was finished before is found by its key.

    Returns the final checkpoint's reference; None where the run waits before its end, or had no reason to
    train. Raises RuntimeError when a task failed.
    """
    from kfp import components, local

    from pipelines.forked import fork_tasks

    fork_tasks(library)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(layout.runner_outputs),
        workspace_root=str(scratch / "workspace"),  # kfp deletes it afterwards
    )
    pipeline = components.load_component_from_file(str(layout.pipeline))
    pipeline(run=str(layout.root))
    waiting = read_waiting(layout)
    if waiting is not None and waiting.before != PROMOTION:
        return None
    final, reason = layout.final_checkpoint(), read_reason(layout)
    if final is None and reason is not None and not reason.train:
        return None
    if final is None:
        raise RuntimeError(f"the pipeline ended without {layout.final}")
    return final


def main() -> None:
    run, scratch, library, lifeline = sys.argv[1:]
    die_with_starter(int(lifeline))
    wait_for_task_when_terminated()
    logging.basicConfig(level=logging.INFO)
    layout = RunFolder(Path(run))
    final = run_pipeline(layout, Path(scratch), list(filter(None, library.split(","))))
    if final is not None:
        layout.write_result(final)


if __name__ == "__main__":
    main()
