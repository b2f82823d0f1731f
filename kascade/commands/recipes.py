"""Verbs about a recipe that start nothing: init, check, plan, compile, schema, version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import kascade
from kascade.commands.arguments import RecipeArguments, recipe_verb
from kascade.commands.output import AsJson, duration, emit
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.recipe.plan import Estimate, Plan

PLAIN_WIDTH = 130  # of a table that does not go to a terminal
STARTER = """# A recipe. Level 1: dials. See all that may stand here: kascade schema > recipe.schema.json
# yaml-language-server: $schema=recipe.schema.json
preset: {preset}
# model: ./my-model           a folder, a hub id, or builtin://NAME
# data: {{mcqa: rows.jsonl}}    your rows in place of an environment's tasks
# seed: 0
# budget: 2                   CPU hours; stops before a stage that would exceed it

# Level 2: change single stages, benchmarks and the guard; null leaves a stage out.
# overrides:
#   if_rl: {{steps: 20}}
#   swe_rl: null
#   guard: {{min_drop: 0.05}}
"""


def register(app: typer.Typer) -> None:
    for verb in (init, check, plan, compile_, schema, version):
        app.command(verb.__name__.rstrip("_"))(verb)


def init(
    preset: Annotated[str, typer.Argument(help="The preset to start from.")] = "quickstart",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("recipe.yaml"),
    as_json: AsJson = False,
) -> None:
    """Write a short recipe to start from."""
    from kascade.recipe.checks import nearest
    from kascade.recipe.load import preset_names

    names = preset_names()
    faults = []
    if preset not in names:
        faults.append(Fault(preset, "there is no such preset", ", ".join(names), nearest(preset, names)))
    if out.exists():
        faults.append(
            Fault(str(out), "exists already; nothing was touched", remedy="name another with --out")
        )
    if not out.parent.is_dir():
        faults.append(Fault(str(out), "its folder does not exist", remedy=f"make {out.parent} first"))
    if faults:
        raise UserError(faults)
    try:
        out.write_text(STARTER.format(preset=preset), encoding="utf-8")
    except OSError as error:
        raise UserError(Fault(str(out), f"cannot be written: {error.strerror}")) from error
    emit({"written": str(out)}) if as_json else typer.echo(f"{out} written; next: kascade check {out}")


@recipe_verb
def check(
    arguments: RecipeArguments,
    *,
    out: Annotated[Path | None, typer.Option(help="Folder the run would go to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a recipe, its model's folder, its rows and the output folder; start nothing."""
    from kascade.commands.preflight import preflight_faults

    loaded = arguments.load()
    if faults := preflight_faults(loaded, out):
        raise UserError(faults)
    found = loaded.recipe
    if as_json:
        emit({"ok": True, "recipe": found.model_dump(mode="json")})
    else:
        typer.echo(f"{found.name}: {len(found.stages)} stages, {len(found.benchmarks)} benchmarks, no faults")


@recipe_verb
def plan(
    arguments: RecipeArguments,
    *,
    run: Annotated[Path | None, typer.Option(help="An earlier run: what changes, what it may cost.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show stages, exams, worst case and cost; with --run also what would be done again and why."""
    from kascade.commands.run_folder import read_earlier_run
    from kascade.recipe.plan import make_plan

    loaded = arguments.load()
    made = make_plan(loaded.recipe, read_earlier_run(run) if run else None)
    emit(made.model_dump(mode="json")) if as_json else _show_plan(made)


def _show_plan(made: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

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
        learns_on = ", ".join(stage.environments) + (f"; taught by {', '.join(teachers)}" if teachers else "")
        title = f"{stage.name} (side)" if stage.side_branch else stage.name
        numbers = (stage.steps, stage.samples_per_step, stage.tokens_per_step)
        table.add_row(title, stage.parent, *(f"{number:,}" for number in numbers), learns_on)
    out.print(table)
    exams = ", ".join(f"{exam.name} ({exam.tasks})" for exam in made.exams)
    out.print(f"Exams after every stage: {exams}; {made.answers_per_checkpoint:,} answers a checkpoint.")
    worst = made.worst_case
    out.print(
        f"At worst {worst.recoveries} recoveries: {worst.steps:,} more steps of {worst.samples:,} rollouts, "
        f"and {worst.exam_answers:,} exam answers in all."
    )
    out.print(f"CPU time: {_cost(made.estimate)}", markup=False)
    if made.redo is not None:
        _show_redo(made.redo)


def _show_redo(redo: dict[str, tuple[str, ...]]) -> None:
    typer.echo("Trained again:" if redo else "Nothing is trained again.")
    for stage, reasons in redo.items():
        typer.echo(f"  {stage}: {'; '.join(reasons)}")


def _cost(estimate: Estimate) -> str:
    if estimate.low is None or estimate.expected is None:
        return estimate.basis
    high = duration(estimate.high) if estimate.high is not None else "unknown"
    numbers = f"low {duration(estimate.low)}, expected {duration(estimate.expected)}, high {high}"
    return f"{numbers} ({estimate.basis})"


@recipe_verb
def compile_(
    arguments: RecipeArguments,
    *,
    out: Annotated[Path, typer.Option(help="The pipeline's YAML.")] = Path("pipeline.yaml"),
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="As Pipeline and PipelineVersion manifests for kubectl.")
    ] = False,
    namespace: Annotated[str | None, typer.Option(help="Namespace of those manifests.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compile a recipe to a Kubeflow pipeline."""
    loaded = arguments.load()
    if not out.parent.is_dir():
        raise UserError(Fault(str(out), "its folder does not exist", remedy=f"make {out.parent} first"))
    if namespace is not None and not kubernetes:
        raise UserError(Fault("--namespace", "belongs to manifests only", remedy="add --kubernetes"))
    from pipelines.compile import compile_recipe

    written = compile_recipe(
        loaded.recipe, out, scales=loaded.scales, kubernetes=kubernetes, namespace=namespace
    )
    emit({"written": str(written)}) if as_json else typer.echo(f"{written} written")


def schema(as_json: AsJson = True) -> None:
    """Print the JSON Schema of recipe files, for editors."""
    del as_json  # a schema is JSON anyway
    from kascade.recipe.file import file_schema

    emit(file_schema())


def version(as_json: AsJson = False) -> None:
    """Print the version."""
    emit({"version": kascade.__version__}) if as_json else typer.echo(kascade.__version__)
