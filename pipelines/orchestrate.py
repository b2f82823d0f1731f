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

from kascade.storage.files import read_json, write_json
from kascade.storage.layout import RunLayout
from pipelines.cache import drop_vanished
from pipelines.process import die_with_starter


def run_pipeline(layout: RunLayout, scratch: Path, library: Sequence[str]) -> str:
    """Run `pipeline.yaml` of a run; tasks finished before are taken from the cache.

    Returns the final checkpoint's reference. Raises RuntimeError when a task failed.
    """
    from kfp import components, local

    from pipelines.forked import fork_tasks

    fork_tasks(library)
    cache = layout.runner / "cache"
    drop_vanished(cache)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(layout.runner / "outputs"),
        workspace_root=str(scratch / "workspace"),  # kfp deletes it afterwards
        enable_caching=True,
        cache_root=str(cache),
    )
    pipeline = components.load_component_from_file(str(layout.pipeline))
    pipeline(run=str(layout.root))
    return str(read_json(layout.final)["final_checkpoint"])


def main() -> None:
    run, scratch, library, lifeline = sys.argv[1:]
    die_with_starter(int(lifeline))
    logging.basicConfig(level=logging.INFO)
    layout = RunLayout(Path(run))
    final = run_pipeline(layout, Path(scratch), list(filter(None, library.split(","))))
    write_json(layout.runner / "result.json", {"final_checkpoint": final})


if __name__ == "__main__":
    main()
