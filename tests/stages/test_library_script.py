"""The script of docs/library.md, as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "examples" / "grpo_reasoning_gym.py"


def test_the_page_shows_the_script() -> None:
    assert f"```python\n{SCRIPT.read_text()}```" in (ROOT / "docs" / "library.md").read_text()


@pytest.mark.slow
def test_the_reward_rises() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rewards = [float(line.split()[1]) for line in done.stdout.splitlines()]
    first, last = mean(rewards[:5]), mean(rewards[-5:])
    assert last > 0.05 and last > 5 * first, f"{first:.3f} to {last:.3f}"
