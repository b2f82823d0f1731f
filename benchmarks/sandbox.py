"""Untrusted programs run per CPU second, against a fresh Python interpreter for each, unconfined."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Measurement, compare
from kascade.environments.sandbox import Job, Sandbox

PROGRAM = "def double(x):\n    return 2 * x\n"
CALLS = ("1", "2", "3", "4", "5")


def run(quick: bool) -> list[Measurement]:
    programs, rounds = (20, 1) if quick else (100, 5)
    jobs = [Job(PROGRAM, function="double", calls=CALLS)] * programs
    with Sandbox() as sandbox:
        own, other = compare(lambda: sandbox.run_many(jobs), lambda: run_plain(programs), rounds)
    name = "sandbox, one function called five times"
    return [Measurement(name, programs / own, "programs / CPU s", programs / other, "one interpreter each")]


def run_plain(programs: int) -> None:
    source = f"{PROGRAM}print([double(int(x)) for x in {CALLS!r}])"
    for _ in range(programs):
        subprocess.run([sys.executable, "-I", "-S", "-c", source], check=True, stdout=subprocess.DEVNULL)
