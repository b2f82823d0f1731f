"""The corpus holds; so do inputs drawn beside it, and a few seconds of coverage-guided fuzzing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import TARGETS

HERE = Path(__file__).parent
# The short run takes the same inputs each time: it fails by a change, not by chance. `make fuzz` draws new.
INPUTS, SEED, PATIENCE_S = 1000, 1, 1000


def corpus(name: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((HERE / "corpus" / name).iterdir())]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_its_corpus(name: str) -> None:
    seeds = corpus(name)
    assert seeds
    for seed in seeds:
        TARGETS[name](seed)


@st.composite
def mixed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Pieces of the corpus, cut anywhere, joined, and with bytes of any kind between them."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        seed = draw(st.sampled_from(seeds))
        start = draw(st.integers(0, len(seed)))
        parts += [seed[start : draw(st.integers(start, len(seed)))], draw(st.binary(max_size=6))]
    return b"".join(parts)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_what_is_made_of_its_corpus(name: str) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mixed(corpus(name)))
    def held(data: bytes) -> None:
        TARGETS[name](data)

    held()


@pytest.mark.slow
def test_a_short_run_of_the_fuzzer_finds_nothing() -> None:
    pytest.importorskip("atheris", reason="NOT RUN: atheris is not installed (pip install -e .[dev])")
    command = [sys.executable, str(HERE / "run.py"), str(PATIENCE_S), f"--inputs={INPUTS}", f"--seed={SEED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
