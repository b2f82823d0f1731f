"""Starts a program of this folder in several processes, as torchrun does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PATIENCE_S = 240
TESTS = Path(__file__).parents[1]


def launch(processes: int, script: str, *arguments: object, fails: bool = False) -> None:
    """Run it to its end. Raises AssertionError with its output when it fails, or does not where it should."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={processes}", str(Path(__file__).with_name(script))]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(TESTS / place) for place in ("..", ".", "spread", "stages")),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout[-4000:]
