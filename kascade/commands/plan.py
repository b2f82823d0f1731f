"""The verb `plan`: what a recipe does, needs and costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kascade.commands.arguments import RecipeArguments, recipe_verb
from kascade.commands.output import AsJson, emit

if TYPE_CHECKING:
    from rich.console import Console

    from kascade.recipe.plan import Plan
    from kascade.recipe.plan_actual import Against
    from kascade.recipe.plan_words import PlanTable

PLAIN_WIDTH = 160  # of a table that does not go to a terminal


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


@recipe_verb
def plan(
    arguments: RecipeArguments,
    *,
    run: Annotated[
        Path | None, typer.Option(help="An earlier run: what changes, and its plan against what it took.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a recipe does, needs and costs, before it starts; after a run, plan against actual.

    The folder of a run stands for its recipe and for --run.

    Example: kascade plan own.yaml --set prices.accelerator_hour=2.5
    """
    from kascade.commands.run_folder import read_earlier_run
    from kascade.doctor.sight import as_asked
    from kascade.doctor.subject import Subject
    from kascade.guard.power import sight_table, visible_falls
    from kascade.recipe.measured import runs_beside
    from kascade.recipe.plan import make_plan
    from kascade.recipe.plan_actual import plan_against_actual
    from kascade.storage.run_folder import RunFolder

    if run is None and RunFolder(Path(arguments.recipe)).has_begun:
        run = Path(arguments.recipe)
        arguments = replace(arguments, recipe=str(RunFolder(run).resolved_recipe))
    loaded = arguments.load()
    recipe = as_asked(Subject(loaded.recipe, loaded.place))
    earlier = read_earlier_run(run) if run else None
    beside = runs_beside(run or Path("runs") / recipe.name, recipe)
    made = make_plan(recipe, earlier, beside)
    compared = plan_against_actual(RunFolder(run), earlier.recipe) if run and earlier else ()
    seen = visible_falls(recipe)
    if as_json:
        falls = {name: one.as_json() for name, one in seen.items()}
        against = [one.model_dump(mode="json") for one in compared]
        emit({**made.model_dump(mode="json"), "visible_falls": falls, "against_actual": against})
        return
    _show_plan(made, sight_table(seen, recipe.guard), compared)


def _show_plan(made: Plan, sight: Sequence[str], compared: tuple[Against, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    from kascade.commands.memory import show_memory
    from kascade.recipe.plan_actual import actual_table
    from kascade.recipe.plan_short import in_short
    from kascade.recipe.plan_words import forecast_table

    out = Console()
    out = out if out.is_terminal else Console(width=PLAIN_WIDTH)
    out.print(f"{made.recipe} from {made.model}", markup=False)
    table = Table("stage", "starts from", "steps", "samples", "max tokens", "learns on")
    table.caption = "samples and tokens: of one step"
    for column in table.columns[:-1]:
        column.no_wrap = True
    for stage in made.stages:
        teachers = [
            edge.source for edge in made.edges if edge.target == stage.name and edge.role == "teacher"
        ]
        learns_on = ", ".join(_counted(stage.environments)) + (
            f"; taught by {', '.join(teachers)}" if teachers else ""
        )
        title = f"{stage.name} (side)" if stage.side_branch else stage.name
        numbers = (stage.steps, stage.samples_per_step, stage.tokens_per_step)
        table.add_row(title, stage.parent, *(f"{number:,}" for number in numbers), learns_on)
    out.print(table)
    exams = ", ".join(f"{exam.name} ({exam.tasks})" for exam in made.exams)
    answers = f"{made.answers_per_checkpoint:,} answers per checkpoint"
    out.print(f"Benchmarks after every stage, with their tasks: {exams}; {answers}.", markup=False)
    for line in sight:
        out.print(f"  {line}", markup=False)
    worst = made.worst_case
    out.print(
        f"At worst {worst.recoveries} recoveries: {worst.steps:,} more steps with {worst.samples:,} rollouts "
        f"and {worst.exam_answers:,} answers to benchmarks in all."
    )
    show_table(out, forecast_table(made.forecast), "What it takes: expected (low-high)")
    if made.memory is not None:
        show_memory(out, made.memory)
    if compared:
        show_table(out, actual_table(compared), "Plan against actual")
    if made.redo is not None:
        _show_redo(made.redo)
    out.print("In short", style="bold")
    for line in in_short(made):
        out.print(f"  {line}", markup=False, soft_wrap=True)


def _counted(environments: Sequence[str]) -> list[str]:
    """Each environment once."""
    return [name if n == 1 else f"{name} ({n} sources)" for name, n in Counter(environments).items()]


def _show_redo(redo: dict[str, tuple[str, ...]]) -> None:
    typer.echo("Trained again:" if redo else "Nothing is trained again.")
    for stage, reasons in redo.items():
        typer.echo(f"  {stage}: {'; '.join(reasons)}")


def show_table(out: Console, shown: PlanTable, title: str) -> None:
    """A table of words, and the notes under it."""
    from rich.table import Table

    table = Table(*shown.head, title=title, title_justify="left")
    for column in table.columns[:2]:
        column.no_wrap = True
    for row in shown.rows:
        table.add_row(*row)
    out.print(table)
    for note in shown.notes:
        out.print(f"  {note}", markup=False)
