"""C++ programs against standard input and output: compiled and run in the sandbox, compared here."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from kascade.environments.code.unit_tests import MIB, MIN_WALL_SECONDS, ProgramOptions, UnitTests
from kascade.sandbox.checkout import Checkout, CheckoutError
from kascade.sandbox.commands import Command, CommandLimits, shared_commands
from kascade.sandbox.protocol import Result

COMPILER = ("g++", "-std=c++17", "-O2", "-pipe", "-w", "-o", "main", "main.cpp")
# One test after the other, each under its own limits; one that is killed ends it, as in Python.
DRIVER = """
for i in {numbers}; do
  (ulimit -t {seconds}; exec timeout -s KILL {wall} ./main < $i.in > $i.out 2> /dev/null)
  status=$?
  echo $status > $i.status
  if [ $status -ge 124 ]; then exit 0; fi
done
"""


def missing_compiler() -> str | None:
    """Why no C++ can be graded here."""
    return None if shutil.which(COMPILER[0]) else "no C++ compiler (g++) is installed here"


def run_cpp(programs: Sequence[tuple[str, UnitTests]]) -> list[list[bool] | str]:
    """For each program, which of its tests pass; a text says why the sandbox could not tell."""
    if missing := missing_compiler():
        return [missing for _ in programs]
    different = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(shared_commands().parallel) as pool:
        verdicts = dict(zip(different, pool.map(_run_one, different), strict=True))
    return [verdicts[program] for program in programs]


def _run_one(program: tuple[str, UnitTests]) -> list[bool] | str:
    source, tests = program
    if tests.fn_name is not None:
        return "tests that call a function need Python"
    checkout = Checkout({})
    try:
        checkout.write("main.cpp", source)
    except CheckoutError:  # not Unicode
        checkout.close()
        return [False] * len(tests.inputs)
    try:
        compiled = _compile(checkout, tests.options)
        if compiled is not True:
            return compiled or [False] * len(tests.inputs)
        for number, text in enumerate(tests.inputs):
            checkout.write(f"{number}.in", text)
        ran = shared_commands().run(_driver(checkout, tests))
        if ran.error is not None:
            return ran.error
        return tests.passed([_result(checkout, number) for number in range(len(tests.inputs))])
    finally:
        checkout.close()


def _compile(checkout: Checkout, options: ProgramOptions) -> bool | str:
    """Whether main.cpp is a program within the limits; a text says why nobody could tell."""
    limits = CommandLimits(
        wall_seconds=options.compile_wall_seconds,
        cpu_seconds=options.compile_seconds,
        memory_bytes=options.compile_memory_mb * MIB,
    )
    ended = shared_commands().run(Command(COMPILER, folder=checkout.folder, limits=limits))
    if ended.error is not None:
        return ended.error
    if ended.stopped == "time" and ended.cpu_seconds < options.compile_seconds:
        return f"g++ got no {options.compile_seconds} s of CPU time: this machine is too busy"
    return ended.status == 0 and ended.stopped is None


def _driver(checkout: Checkout, tests: UnitTests) -> Command:
    one = tests.options.limits
    seconds, wall = one.cpu_seconds, one.wall_seconds
    count = len(tests.inputs)
    script = DRIVER.format(
        numbers=" ".join(map(str, range(count))), seconds=seconds, wall=shlex.quote(f"{wall:g}")
    )
    limits = CommandLimits(
        wall_seconds=wall * count + MIN_WALL_SECONDS,
        cpu_seconds=seconds + 1,
        memory_bytes=one.memory_bytes,
        processes=8,
        file_bytes=one.output_bytes,
    )
    return Command(("sh", "-c", script), folder=checkout.folder, limits=limits)


def _result(checkout: Checkout, number: int) -> Result:
    try:
        status = int(checkout.read(f"{number}.status"))
        return Result(stdout=checkout.read(f"{number}.out"), exit_status=status)
    except (CheckoutError, ValueError):  # never run, or not text
        return Result(exit_status=1)
