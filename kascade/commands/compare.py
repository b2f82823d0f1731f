"""`kascade compare A B`: two checkpoints, runs or result files, on the same tasks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.output import AsJson, emit
from kascade.errors import Fault, UserError
from kascade.guard.comparison import MAX_MISSING, UNEQUAL_MISSING, WORDS, missing_grades

if TYPE_CHECKING:
    from kascade.results.comparing import BenchmarkRow, DifferingTask
    from kascade.results.model import Results

Named = Annotated[
    str,
    typer.Argument(help="A run, a checkpoint, a file of results, or with --recipe an API's address."),
]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", "-r", help="Recipe whose benchmarks are asked of models."),
]
KeyVariable = Annotated[
    str | None, typer.Option(help="Environment variable with the key of addresses that need one.")
]


INTERVAL = len("[-0.000,")  # a limit stays in one piece on a narrow terminal


def register(app: typer.Typer) -> None:
    app.command()(compare)
    app.command()(evaluate)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="An API, such as http://host:8000/v1, or a checkpoint as `serve` takes it."),
    ],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Recipe whose benchmarks are asked.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of results, which `compare` reads.")],
    *,
    benchmark: Annotated[
        list[str] | None, typer.Option("--benchmark", "-b", help="Only this benchmark (repeatable).")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Answers per task.", min=1)] = None,
    api_key_variable: KeyVariable = None,
) -> None:
    """Ask a recipe's benchmarks of any model, outside of a run, and keep the graded answers.

    Example: kascade evaluate http://127.0.0.1:8000/v1 --recipe quickstart --benchmark math -o served.jsonl
    """
    from kascade.exams.anywhere import evaluate_anywhere, write_results
    from kascade.recipe.load import load_recipe

    if out.exists():
        raise UserError(Fault("--out", f"{out} is there already", remedy="name another file"))
    asked = load_recipe(recipe)
    found = evaluate_anywhere(
        model, asked, names=benchmark or (), samples=samples, key_variable=api_key_variable
    )
    write_results(out, found)
    for name, rewards in found.benchmarks.items():
        means = rewards.task_means()
        mean = f"{sum(means.values()) / len(means):.3f}" if means else "no grades"
        typer.echo(f"{name}: {mean}, {len(rewards.rewards)} tasks, {rewards.missing:.1%} of grades missing")


def compare(
    a: Named,
    b: Named,
    *,
    margin: Annotated[float, typer.Option(help="Fall that still counts as kept.", min=0, max=1)] = 0.03,
    level: Annotated[
        float, typer.Option(help="Error rate of intervals and tests.", min=1e-9, max=0.5)
    ] = 0.05,
    max_missing: Annotated[
        float, typer.Option(help="Share of missing grades above which nothing is judged.", min=0, max=1)
    ] = MAX_MISSING,
    unequal_missing: Annotated[
        float,
        typer.Option(help="p up to which grades are missing unequally, and nothing is judged.", min=0, max=1),
    ] = UNEQUAL_MISSING,
    metric: Annotated[str | None, typer.Option(help="Metric to take from files that have several.")] = None,
    answers: Annotated[int, typer.Option(help="Differing answers to show per benchmark.", min=0)] = 0,
    recipe: RecipeName = None,
    api_key_variable: KeyVariable = None,
    as_json: AsJson = False,
) -> None:
    """Compare B with A: what was kept, lost or not shown, with intervals and p values.

    Reads runs, checkpoints in runs, and per-sample results of lm-eval, Inspect and NeMo Evaluator. With
    --recipe, an address of an API or a checkpoint without a run is asked the recipe's benchmarks now.

    Example: kascade compare runs/a runs/b --answers 3
    """
    from kascade.results.comparing import compare_results, differences

    first, second = (_results(named, metric, recipe, api_key_variable) for named in (a, b))
    rows = compare_results(
        first, second, margin=margin, level=level, max_missing=max_missing, unequal_missing=unequal_missing
    )
    shown = {row.benchmark: differences(first, second, row.benchmark, answers) for row in rows}
    if as_json:
        alone = [
            {"benchmark": name, "standing": "not_judged", "found": None}
            for name in _alone(first, second, rows)
        ]
        emit([*(_plain(row, shown[row.benchmark]) for row in rows), *alone])
        return
    _print(first, second, rows, shown, margin=margin, level=level)


def _results(named: str, metric: str | None, recipe: str | None, key_variable: str | None) -> Results:
    """What is there of a model; with a recipe, what it answers now where nothing is there."""
    from kascade.results.reading import has_results, read_results

    if has_results(named):
        return read_results(named, metric=metric, name=named)
    if recipe is None:
        remedy = "name the recipe whose benchmarks are to be asked: --recipe"
        raise UserError(Fault(named, "has no results yet", remedy=remedy))
    from kascade.exams.anywhere import evaluate_anywhere
    from kascade.recipe.load import load_recipe

    return evaluate_anywhere(named, load_recipe(recipe), key_variable=key_variable)


def _alone(a: Results, b: Results, rows: list[BenchmarkRow]) -> list[str]:
    """Benchmarks without a task that is graded on both sides: not compared, and not left out in silence."""
    return sorted({*a.benchmarks, *b.benchmarks} - {row.benchmark for row in rows})


def _plain(row: BenchmarkRow, shown: list[DifferingTask]) -> dict[str, Any]:
    found = {**asdict(row.found), "difference": row.found.difference}
    return {**asdict(row), "found": found, "differences": [asdict(one) for one in shown]}


def _print(
    a: Results,
    b: Results,
    rows: list[BenchmarkRow],
    shown: dict[str, list[DifferingTask]],
    *,
    margin: float,
    level: float,
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"B against A\nA: {a.name}\nB: {b.name}", title_justify="left")
    difference = f"B - A, {_percent(1 - level)}"
    for column in ("benchmark", "tasks", "A", "B", difference, "B has", "p fall", "p rise", "shows falls of"):
        table.add_column(column, min_width=INTERVAL if column == difference else None)
    for row in rows:
        found = row.found
        low, high = row.interval
        table.add_row(
            row.benchmark,
            str(found.num_tasks),
            f"{found.before:.3f}",
            f"{found.after:.3f}",
            f"{found.difference:+.3f} [{low:+.3f}, {high:+.3f}]",
            WORDS[row.standing],
            f"{row.p_fall:.2g}",
            f"{row.p_rise:.2g}",
            f"{row.visible:.3f}",
        )
    console.print(table)
    console.print(_legend(rows, margin, level), soft_wrap=True)
    if alone := _alone(a, b, rows):
        console.print(
            f"Not compared, as no task is graded on both sides: {', '.join(alone)}.", soft_wrap=True
        )
    for differing in shown.values():
        for one in differing:
            _print_difference(console, one)


def _percent(share: float) -> str:
    """With as many digits as it has, up to ten."""
    return f"{100 * share:.10g}%"


def _legend(rows: list[BenchmarkRow], margin: float, level: float) -> str:
    sure = _percent(1 - level)
    lines = [
        f"kept: the fall is shown to be below {margin:g}. lost: a fall is shown. not shown: neither. "
        f"Each is shown by a limit that is one-sided at {sure}.",
        f"p values are adjusted for {len(rows)} benchmark{'s' * (len(rows) != 1)} (Holm). The last column is "
        f"the fall that this comparison shows with a chance of 95%, at a level of {_percent(level)}.",
    ]
    for row in rows:
        lines += _missing(row)
    return "\n".join(lines)


def _missing(row: BenchmarkRow) -> list[str]:
    """What is not there of a benchmark, and what to do where that keeps it from being judged."""
    lines = []
    if row.only_a or row.only_b:
        lines.append(
            f"{row.benchmark}: tasks only in A: {row.only_a}, only in B: {row.only_b}. "
            "Where a side lacks a task, its grades count as missing."
        )
    if row.found.most_missing:
        missing = missing_grades(row.found, "in A", "in B")
        left_out = f"{row.found.num_left_out} tasks have none on one side."
        unequal = f"p that both miss as many: {row.found.p_unequal:.2g}."
        lines.append(f"{row.benchmark}: {missing} {left_out} {unequal}")
    if row.standing == "not_judged":
        lines.append(
            f"{row.benchmark}: ask both sides the same tasks and have all answers graded. If what is missing "
            "has nothing to do with the answers, say --max-missing 1 --unequal-missing 0."
        )
    return lines


def _print_difference(console: Any, one: DifferingTask) -> None:
    from rich.columns import Columns
    from rich.panel import Panel
    from rich.text import Text

    prompt = next((side.prompt for side in (one.a, one.b) if side is not None and side.prompt), None)
    console.print(f"\n{one.benchmark}, task {one.task}", style="bold", markup=False)
    if prompt:
        console.print(Text(prompt, style="dim"))
    width = max(20, console.width // 2 - 1)
    sides = [("A", one.before, one.a), ("B", one.after, one.b)]
    console.print(
        Columns(
            [
                Panel(
                    Text(side.text or "" if side else "(not kept)"), title=f"{name}: {mean:.2f}", width=width
                )
                for name, mean, side in sides
            ]
        )
    )
