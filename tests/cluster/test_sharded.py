"""FSDP2 on two processes gives the losses and weights of one, and continues what one has saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray_toys import run_steps

TOLERANCE = 2e-5  # sums in another order, over four updates at a learning rate of 1e-2

pytestmark = pytest.mark.slow


def in_processes(world: int, folder: Path, first: int, last: int) -> list[dict[str, float]]:
    port = 20000 + os.getpid() % 20000
    script = Path(__file__).with_name("ray_toys.py")
    processes = []
    for rank in range(world):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        command = [sys.executable, str(script), str(folder), str(first), str(last)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    assert all(one == found[0] for one in found)  # every process sees the same metrics
    steps: list[dict[str, float]] = found[0]
    return steps


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    alone = run_steps(tmp_path / "one", 0, 4)
    together = in_processes(2, tmp_path / "two", 0, 2)
    together += in_processes(2, tmp_path / "two", 2, 4)  # a new pair continues from the saved state
    for one, two in zip(alone, together, strict=True):
        for name in ("loss", "grad_norm", "entropy", "tokens", "weights"):
            assert two[name] == pytest.approx(one[name], rel=TOLERANCE, abs=TOLERANCE), name
    assert run_steps(tmp_path / "two", 4, 5)[0]["loss"] == pytest.approx(
        run_steps(tmp_path / "one", 4, 5)[0]["loss"], rel=TOLERANCE
    )  # and one process continues what two have saved
