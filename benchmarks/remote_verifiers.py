"""Episodes of verifiers' own server against the same grades in this process.

`python -m benchmarks.remote_verifiers PYTHON`, with the interpreter of the environment that `make outside`
builds for verifiers. Each episode is one answer of `say_letters`, the test's own taskset. CPU seconds are
those of this process and of the server's processes together. Prints Markdown.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from kascade.environments import get_environment
from kascade.environments.remote.environment import RemoteEnvironment
from kascade.task import Grade, Task

SERVE = Path(__file__).parents[1] / "tests" / "outside" / "serve_verifiers.py"
AT_ONCE = (1, 16, 128)
EPISODES, ROUNDS, REPEATED = 256, 5, 200
ANSWER = "a b a"
Groups = list[tuple[Task, list[str]]]


def in_process(task: Task, answer: str) -> Grade:
    """What `say_letters` pays: .8 of the wanted letter's share, and .2 where the answer begins with it."""
    wanted, said = task.fields["task_data"]["wanted"], answer.split()
    share, first = said.count(wanted) / len(said), float(answer.strip().startswith(wanted))
    return Grade(0.8 * share + 0.2 * first, {"share": share, "first": first})


def cpu_of_all() -> float:
    """CPU seconds of this process and of all that it started and that still run."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def measured(work: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Median CPU seconds of all processes, of this one, and wall seconds; one round before is not counted."""
    work()
    found = []
    for _ in range(rounds):
        everything, own, wall = cpu_of_all(), time.process_time(), time.monotonic()
        work()
        found.append((cpu_of_all() - everything, time.process_time() - own, time.monotonic() - wall))
    return tuple(median(column) for column in zip(*found, strict=True))  # type: ignore[return-value]


def rows_of(python: str) -> list[dict[str, Any]]:
    """The taskset's rows, as verifiers dumps them."""
    done = subprocess.run(
        [python, str(SERVE), "say_letters", "rows"], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def remote_groups(
    python: str, rows: Sequence[dict[str, Any]], at_once: int, episodes: int
) -> tuple[RemoteEnvironment, Groups]:
    """The environment behind a server of its own, and what it is to grade."""
    command = [python, str(SERVE), "say_letters", "{port}"]
    environment = get_environment("verifiers").with_options({"command": command, "conversations": at_once})
    assert isinstance(environment, RemoteEnvironment)
    return environment, [(environment.from_row(rows[n % len(rows)]), [ANSWER]) for n in range(episodes)]


def main(python: str, episodes: int = EPISODES, rounds: int = ROUNDS) -> None:
    """Print a row per number of conversations."""
    rows = rows_of(python)
    print("| at once | answers per CPU s | of which this process | per s | in-process, per CPU s |")
    print("|-|-|-|-|-|")
    for at_once in AT_ONCE:
        print(row(*remote_groups(python, rows, at_once, episodes), at_once, rounds), flush=True)


def row(environment: RemoteEnvironment, groups: Groups, at_once: int, rounds: int) -> str:
    """One line of the table. The rewards of both sides must be equal."""

    def near() -> list[Grade]:
        return [in_process(task, answer) for task, (answer,) in groups]

    grades = [grade for group in environment.grade_all(groups) for grade in group]
    assert [one.error for one in grades] == [None] * len(groups)
    assert all(abs(a.reward - b.reward) < 1e-9 for a, b in zip(grades, near(), strict=True))
    everything, own, wall = measured(lambda: environment.grade_all(groups), rounds)
    close, _, _ = measured(lambda: [near() for _ in range(REPEATED)], rounds)
    count = len(groups)
    cells = (count / everything, own / everything, count / wall, REPEATED * count / close)
    return "| {} | {:,.0f} | {:.0%} | {:,.0f} | {:,.0f} |".format(at_once, *cells)


if __name__ == "__main__":
    main(sys.argv[1])
