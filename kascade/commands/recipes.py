"""Verbs about a recipe that start nothing: check, plan, compile, schema, version."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from kascade.commands.arguments import RecipeArguments, recipe_verb
from kascade.commands.checking import examine_recipe, show_warnings
from kascade.commands.output import AsJson, counted, emit
from kascade.errors import Fault, UserError
from kascade.storage.files import naming
from kascade.version import __version__


def register(app: typer.Typer) -> None:
    for verb in (check, compile_, schema, version):
        app.command(verb.__name__.rstrip("_"))(verb)


@recipe_verb
def check(
    arguments: RecipeArguments,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; runs/NAME by default.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also load the tokenizer, generate tasks and try the graders.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a recipe, its model, rows, benchmarks and output folder; start nothing.

    Example: kascade check own.yaml --deep
    """
    from kascade.doctor.checks import HERE
    from kascade.guard.power import sight_table

    loaded = arguments.load()
    recipe = loaded.recipe
    found = examine_recipe(loaded, out or Path("runs") / recipe.name, HERE if deep else None)
    if not as_json:
        typer.echo("\n".join(sight_table(found.falls, recipe.guard)))
        show_warnings(found)
    found.raise_errors()
    if as_json:
        warnings = UserError(found.warnings).as_json()
        looked = {"checked": found.checked, "not_checked": found.not_checked, "warnings": warnings}
        falls = {name: one.as_json() for name, one in found.falls.items()}
        emit({"ok": True, "recipe": recipe.model_dump(mode="json"), **looked, "visible_falls": falls})
        return
    parts = f"{counted(len(recipe.stages), 'stage')}, {counted(len(recipe.benchmarks), 'benchmark')}"
    warned = f", {counted(len(found.warnings), 'warning')}" if found.warnings else ""
    typer.echo(f"{recipe.name}: {parts}, no errors{warned}")
    typer.echo(f"checked: recipe, {', '.join(found.checked)}")
    for reason in dict.fromkeys(found.not_checked.values()):
        names = [name for name, why in found.not_checked.items() if why == reason]
        typer.echo(f"not checked: {', '.join(names)} ({reason})")
    if not deep:
        typer.echo("kascade check --deep looks at all that this machine can")


@recipe_verb
def compile_(
    arguments: RecipeArguments,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The pipeline's YAML.")] = Path("pipeline.yaml"),
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace another pipeline in the file.")
    ] = False,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Write Pipeline and PipelineVersion manifests for kubectl.")
    ] = False,
    namespace: Annotated[str | None, typer.Option(help="Namespace of those manifests.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compile a recipe to a Kubeflow pipeline.

    Example: kascade compile own.yaml -o pipeline.yaml
    """
    loaded = arguments.load()
    if not out.parent.is_dir():
        raise UserError(Fault(str(out), "its folder does not exist", remedy=f"make {out.parent} first"))
    if namespace is not None and not kubernetes:
        raise UserError(Fault("--namespace", "belongs to manifests only", remedy="add --kubernetes"))
    from pipelines.compile import compile_recipe

    with naming(out), TemporaryDirectory(dir=out.parent, prefix=".kascade-") as folder:
        made = compile_recipe(
            loaded.recipe,
            Path(folder) / out.name,
            scales=loaded.scales,
            kubernetes=kubernetes,
            namespace=namespace,
        )
        written = _put(made, out, force)
    emit({"written": str(written)}) if as_json else typer.echo(f"{written} written")


def _put(made: Path, out: Path, force: bool) -> Path:
    """Move a file to where it belongs. Raises UserError rather than replace another one, unless forced."""
    if out.exists() and not force and out.read_bytes() != made.read_bytes():
        what = "holds another pipeline; nothing was touched"
        raise UserError(Fault(str(out), what, remedy="name another file with --out, or add --force"))
    made.replace(out)
    return out


def schema(
    as_json: AsJson = True,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Print every field in words instead (Markdown)."),
    ] = False,
) -> None:
    """Print the JSON Schema of recipe files, for editors.

    Example: kascade schema > recipe.schema.json
    """
    del as_json  # a schema is JSON anyway
    from kascade.recipe.file import file_schema
    from kascade.recipe.reference import reference_text

    typer.echo(reference_text(), nl=False) if reference else emit(file_schema())


def version(as_json: AsJson = False) -> None:
    """Print the version.

    Example: kascade version --json
    """
    emit({"version": __version__}) if as_json else typer.echo(__version__)
