"""What runs of the built-in models took, for `kascade plan`: `python -m benchmarks.plan_measurements RUN...`

Writes `kascade/recipe/measurements.json`, which `kascade plan` answers from on the first day. Runs of other
names stay in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kascade.recipe.measured import SHIPPED, Measurement, measure, shipped
from kascade.recipe.run_recipe import read_run_recipe
from kascade.storage.run_folder import RunFolder


def measured(run: Path) -> Measurement:
    """One run, under its recipe's name."""
    recipe = read_run_recipe(run)
    return measure(RunFolder(run), recipe, f"{recipe.name}, seed {recipe.seed}")


def main(runs: list[str]) -> None:
    if not runs:
        sys.exit("name the folders of finished runs")
    found = {one.name: one for one in (*shipped(), *(measured(Path(run)) for run in runs))}
    text = json.dumps({"runs": [one.model_dump(mode="json") for one in found.values()]}, indent=1)
    SHIPPED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
