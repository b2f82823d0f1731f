"""Several processes learn what one learns: three families, every layout, objective and control."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from launching import launch
from spread_cases import CASES, Case, reference, save_models

pytestmark = pytest.mark.slow
# Of float32, relative above 1. Processors with vectors of 256 bits sum in another order: 1.5e-6 in one case.
LOSS, METRICS, WEIGHTS = 2e-6, 1e-5, 1e-4
PER_LAYOUT = 7  # groups of processes: one for each dimension of two meshes, and one for all replicas
HALF_LOSS, HALF_WEIGHTS = 5e-3, 2e-2  # of bfloat16, which rounds other sums


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spread")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, dict[str, float]]:
    """What each case's processes differ by from one process, by the case's name."""
    torch.set_num_threads(1)
    save_models(folder)
    for case in CASES:
        reference(case, folder)
    results: dict[str, dict[str, float]] = {}
    for processes in sorted({case.processes for case in CASES}):
        launch(processes, "spread_cases.py", folder)
        results |= json.loads(Path(folder / f"found-{processes}.json").read_text())
    return results


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.processes}-{case.name}")
def test_several_processes_learn_what_one_learns(found: dict[str, dict[str, float]], case: Case) -> None:
    differences = found[f"{case.processes}-{case.name}"]
    assert differences["loss"] <= (HALF_LOSS if case.half else LOSS)
    assert differences["weights"] <= (HALF_WEIGHTS if case.half else WEIGHTS)
    assert case.half or differences["metrics"] <= METRICS


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.processes}-{case.name}")
def test_each_process_holds_its_part_of_the_weights(found: dict[str, dict[str, float]], case: Case) -> None:
    held = found[f"{case.processes}-{case.name}"]["held"]
    assert held <= 1.05 / case.parallel.shard_of(case.processes)


def test_models_that_are_spread_alike_share_their_groups(found: object, folder: Path) -> None:
    """With NCCL each group takes memory of the device."""
    for processes in (2, 4):
        cases = [case for case in CASES if case.processes == processes]
        layouts = {(case.parallel.experts, case.parallel.replicate) for case in cases}
        groups = json.loads((folder / f"groups-{processes}.json").read_text())
        assert groups <= 1 + PER_LAYOUT * len(layouts) < len(cases) * 6
