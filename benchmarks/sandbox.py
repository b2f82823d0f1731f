"""Untrusted code per CPU second: programs against a fresh interpreter for each, commands, whole C++ verdicts.

For scale: the asynchronous verifier of Nemotron-Cascade 2 (arXiv 2603.19220 §4.7) grades 2,048 programs in
427.2 s on 384 cores, 0.0125 per core second. Those are competition programs with many tests, ours small ones
with five, so it is no peer of these rows.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys

from benchmarks.measure import Measurement, compare, median_cpu_time
from kascade.environments import get_environment
from kascade.sandbox.commands import Command, shared_commands
from kascade.sandbox.programs import Sandbox
from kascade.sandbox.protocol import Execution

PROGRAM = "def double(x):\n    return 2 * x\n"
CALLS = ("1", "2", "3", "4", "5")


def run(quick: bool) -> list[Measurement]:
    programs, rounds = (20, 1) if quick else (100, 5)
    jobs = [Execution(PROGRAM, function="double", calls=CALLS)] * programs
    with Sandbox() as sandbox:
        own, other = compare(lambda: sandbox.run_many(jobs), lambda: run_plain(programs), rounds)
    name = "sandbox, one function called five times"
    programs_a_second = Measurement(
        name, programs / own, "programs / CPU s", programs / other, "one interpreter each"
    )
    return [programs_a_second, commands(quick), *verdicts("code_gen", quick), *cpp(quick)]


def run_plain(programs: int) -> None:
    source = f"{PROGRAM}print([double(int(x)) for x in {CALLS!r}])"
    for _ in range(programs):
        subprocess.run([sys.executable, "-I", "-S", "-c", source], check=True, stdout=subprocess.DEVNULL)


def commands(quick: bool) -> Measurement:
    count, rounds = (5, 1) if quick else (20, 3)
    sandbox = shared_commands()
    seconds = median_cpu_time(lambda: sandbox.run_many([Command(("true",))] * count), rounds)
    return Measurement(f"sandbox, commands ({sandbox.isolation})", count / seconds, "commands / CPU s")


def verdicts(environment: str, quick: bool) -> list[Measurement]:
    """Answers with all their tests."""
    count, rounds = (4, 1) if quick else (16, 3)
    tests = get_environment(environment)
    tasks = [tests.pose(random.Random(seed), 1.0) for seed in range(count)]
    groups = [(task, [str(task.reference)]) for task in tasks]
    seconds = median_cpu_time(lambda: tests.grade_all(groups), rounds)
    name = f"sandbox, {environment} verdicts of five tests"
    return [Measurement(name, count / seconds, "answers / CPU s")]


def cpp(quick: bool) -> list[Measurement]:
    """Compiled and run; nothing where there is no compiler."""
    return verdicts("competitive_coding_challenges", quick) if shutil.which("g++") else []
