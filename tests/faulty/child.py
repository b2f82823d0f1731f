"""Runs cases in forks of this process, each with limits of memory, CPU time and time.

    python child.py rows|recipes FOLDER REPORT

The limits are those that one case may need, and hold for all cases of a fork together. Beyond them the fork
ends, and the case in hand has failed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

MEMORY = 2**30  # bytes beyond what the process has when the case begins
CPU_S = 10
TOGETHER = 30  # cases of one fork: a fork costs more than most of them
WALL_S = 120  # for what waits and uses no CPU, such as a pipe that nobody writes to
Run = Callable[[Path], tuple[int, str]]


def batch(runs: dict[str, tuple[Run, Path]]) -> dict[str, dict[str, Any]]:
    """How each case ends: its exit code and output, or what ended it. The limits hold for all of them."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(read)
        _within_limits(runs, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = {name: {"code": code, "said": said} for name, code, said in map(json.loads, pipe)}
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):  # what was in hand then has no result
        name = next(name for name in runs if name not in found)
        found[name] = {"code": -os.WTERMSIG(status), "said": f"ended by signal {os.WTERMSIG(status)}"}
        rest = {name: run for name, run in runs.items() if name not in found}
        found |= batch(rest) if rest else {}
    return found


def _within_limits(runs: dict[str, tuple[Run, Path]], write: int) -> None:
    has = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (has + MEMORY, has + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    signal.alarm(WALL_S)
    with os.fdopen(write, "wb", buffering=0) as pipe:
        for name, (run, folder) in runs.items():
            os.chdir(folder)
            try:
                code, said = run(folder)
            except BaseException:
                code, said = 70, traceback.format_exc()
            pipe.write(json.dumps([name, code, said[-4000:]]).encode() + b"\n")
    os._exit(0)


def _command(arguments: list[str]) -> tuple[int, str]:
    from click.testing import CliRunner

    result = CliRunner().invoke(_app(), arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 70, "".join(traceback.format_exception(result.exception))
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


@cache
def _app() -> Any:
    import typer

    from kascade.cli import app

    return typer.main.get_command(app)


def _row(case: Any) -> Run:
    def run(folder: Path) -> tuple[int, str]:
        return _command(["data", "check", case.file, *case.arguments])

    return run


def _recipe(case: Any) -> Run:
    def run(folder: Path) -> tuple[int, str]:
        from kascade.errors import UserError
        from kascade.recipe.load import read_recipe

        try:
            read_recipe(case.source, list(case.overrides), None)
        except UserError as error:
            return error.exit_code, " ".join(str(error).split())
        return 0, "read without an error"

    return run


def main(kind: str, folder: Path, report: Path) -> None:
    """Everything is loaded before the first case, so that forks find it."""
    if kind == "rows":
        from row_cases import SOUND, row_cases, sound_file

        cases: list[Any] = row_cases()
        made = _row
        for environment in SOUND:
            file = sound_file(environment, folder / f"{environment}.jsonl")
            code, said = _command(["data", "check", str(file), "--environment", environment, "--graded", "0"])
            assert code == 0, said
    else:
        from recipe_cases import recipe_cases

        cases, made = recipe_cases(), _recipe
    results: dict[str, dict[str, Any]] = {}
    for start in range(0, len(cases), TOGETHER):
        runs = {}
        for number, case in enumerate(cases[start : start + TOGETHER], start=start):
            own = folder / str(number)
            own.mkdir()
            if len(case.file) < 255 and "\0" not in case.file:
                case.write(own / case.file)
            runs[case.name] = made(case), own
        results |= batch(runs)
    assert len(results) == len(cases), "two cases have one name"
    report.write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
