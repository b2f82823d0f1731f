"""Prints what the large pipelines take on a cluster, as a table: `python tests/pipelines/counts.py`.

The table of docs/architecture.md. Pods and nodes are those of a whole run: what is around the cascade takes
three pods more (the driver of the whole, and the report).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from backend_model import Counts, Story, counts
from compiled import compiled
from workflow_size import Workflow

from kascade.recipe.load import load_recipe

PRESETS = ("quickstart", "nemotron-cascade-1-14b", "nemotron-cascade-2", "specialists")
AROUND = Counts(pods=3, nodes=5, nodes_with_retries=10)  # the whole's driver and DAG, the report's three


def row(preset: str, folder: Path) -> str:
    """One preset: its package; pods and nodes held, then with all recoveries; Argo's object."""
    spec = compiled(load_recipe(preset), folder)
    around = spec["root"]["dag"]["tasks"]["exit-handler-1"]
    held = Story(spec, lambda stage, title: title != "Not begun" and "Recovery" not in title).run(around)
    all_lost = Story(spec, lambda stage, title: title != "Not begun").run(around)
    workflow = Workflow(spec)
    size = workflow.spec_bytes() + workflow.status_bytes(all_lost)
    package = (folder / "pipeline.yaml").stat().st_size
    cells = [
        f"{package / 1000:.0f} kB",
        *_cells(counts(held)),
        *_cells(counts(all_lost)),
        f"{size / 1000:,.0f} kB",
    ]
    return f"| {preset} | now | {' | '.join(cells)} |"


def _cells(found: Counts) -> tuple[str, str]:
    nodes, retries = found.nodes + AROUND.nodes, found.nodes_with_retries + AROUND.nodes_with_retries
    return str(found.pods + AROUND.pods), f"{nodes} / {retries}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name in PRESETS:
            sys.stdout.write(row(name, Path(scratch)) + "\n")
