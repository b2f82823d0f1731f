"""`kascade init`: a recipe to start from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kascade.commands.output import AsJson, emit
from kascade.errors import Fault, UserError
from kascade.storage.files import ROOM, expanded, is_folder

if TYPE_CHECKING:
    from kascade.doctor.subject import Subject
    from kascade.recipe.starter import OwnRecipe, OwnRows

MINIATURE = "builtin://mini-nemotron-h"
TEMPLATE = "nemotron-cascade-2"  # of a model without one, as the papers' base models are
Server = Annotated[
    str | None,
    typer.Option(help="Where the server of an environment such as nemo_gym listens: http://HOST:PORT."),
]


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    preset: Annotated[str, typer.Argument(help="The preset to start from.")] = "quickstart",
    *,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Your model: a folder, a hub id or builtin://NAME.")
    ] = None,
    sft: Annotated[
        list[str] | None,
        typer.Option(help="Rows with answers to imitate: ROWS or ENVIRONMENT=ROWS (repeatable)."),
    ] = None,
    rl: Annotated[
        list[str] | None, typer.Option(help="Rows to learn from by grades: ENVIRONMENT=ROWS (repeatable).")
    ] = None,
    exams: Annotated[
        list[str] | None,
        typer.Option(
            "--exam", help="Rows of a benchmark: ENVIRONMENT=ROWS (repeatable). Default: a tenth of --rl."
        ),
    ] = None,
    server: Server = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("recipe.yaml"),
    as_json: AsJson = False,
) -> None:
    """Write a recipe to start from: a preset to change, or your own model and rows.

    Example: kascade init --model ./my-model --sft sft.jsonl --rl mcqa=quiz.jsonl -o own.yaml
    """
    from kascade.recipe.starter import SCHEMA_FILE, preset_text

    faults = [*_preset_faults(preset), *_file_faults(out)]
    own = bool(sft or rl or exams)
    model = _model(out, model, faults)
    if own:
        given = {"--sft": sft or [], "--rl": rl or [], "--exam": exams or []}
        recipe = _given(out, model or MINIATURE, given, server, faults)
        text = "" if faults else _completed(recipe, out)
    else:
        text = preset_text(preset) + (f"model: {model}\n" if model else "")
    if faults:
        raise UserError(faults)
    try:
        out.write_text(text, encoding="utf-8")
        schema = _write_schema(out.parent / SCHEMA_FILE)
    except OSError as error:
        raise UserError(Fault(str(out), f"cannot be written: {error.strerror}", remedy=ROOM)) from error
    if as_json:
        emit({"written": str(out), "schema": str(schema)})
        return
    typer.echo(f"{out} written, with {schema.name} for editors; next: kascade check {out}")


def _preset_faults(preset: str) -> list[Fault]:
    from kascade.recipe.checks import nearest
    from kascade.recipe.load import preset_names

    names = preset_names()
    if preset in names:
        return []
    return [Fault(preset, "there is no such preset", ", ".join(names), nearest(preset, names))]


def _file_faults(out: Path) -> list[Fault]:
    faults = []
    if out.exists():
        remedy = "name another with --out"
        faults.append(Fault(str(out), "exists already; nothing was touched", remedy=remedy))
    if not out.parent.is_dir():
        faults.append(Fault(str(out), "its folder does not exist", remedy=f"make {out.parent} first"))
    return faults


def _write_schema(path: Path) -> Path:
    """The JSON Schema beside the recipe; one that is there already stays."""
    from kascade.recipe.file import file_schema

    if not path.exists():
        path.write_text(json.dumps(file_schema(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def _model(out: Path, model: str | None, faults: list[Fault]) -> str | None:
    """The model, as seen from the new file where it is a folder."""
    from kascade.models.load import source_faults

    if model is None:
        return None
    faults += [replace(fault, where=f"--model {model}") for fault in source_faults(model)]
    return _seen_from(out, model) if is_folder(expanded(model)) else model


def _given(
    out: Path, model: str, given: Mapping[str, Sequence[str]], server: str | None, faults: list[Fault]
) -> OwnRecipe:
    """The arguments as a recipe of own rows, with paths as seen from the new file."""
    from kascade.recipe.starter import OwnRecipe

    name = re.sub(r"[^a-z0-9_-]+", "-", out.stem.lower()).strip("-_0123456789")[:40] or "own"
    sft, rl, exams = (_rows(option, pairs, out, faults) for option, pairs in given.items())
    if not (given["--sft"] or given["--rl"]):
        faults.append(Fault("kascade init", "there is nothing to train on", remedy="give --sft or --rl"))
    elif not (given["--rl"] or given["--exam"]):
        what = "there is no benchmark: SFT rows have no grader"
        faults.append(Fault("kascade init", what, remedy="give --exam ENVIRONMENT=ROWS"))
    own = OwnRecipe(name=name, model=model, sft=sft, rl=rl, exams=exams)
    return _behind(server, own, faults)


def _behind(server: str | None, own: OwnRecipe, faults: list[Fault]) -> OwnRecipe:
    """The recipe with the server's address in each source whose environment has one."""
    from kascade.environments import get_environment

    rows = {one.environment for one in (*own.sft, *own.rl, *own.exams)}
    remote = {name for name in rows if get_environment(name).behind_server}
    if remote and server is None:
        what = f"{', '.join(sorted(remote))}: tasks are graded by a server"
        faults.append(Fault("--server", what, "http://HOST:PORT", "say where it listens"))
    if server is not None and not remote:
        faults.append(Fault(f"--server {server}", "no rows are of an environment behind a server"))

    def named(found: Sequence[OwnRows]) -> list[OwnRows]:
        return [replace(one, server=server) if one.environment in remote else one for one in found]

    return replace(own, sft=named(own.sft), rl=named(own.rl), exams=named(own.exams))


def _rows(option: str, pairs: Sequence[str], out: Path, faults: list[Fault]) -> list[OwnRows]:
    from kascade.environment_names import known_environments
    from kascade.recipe.checks import nearest
    from kascade.recipe.starter import OwnRows

    known = sorted(known_environments())
    found = []
    for pair in pairs:
        environment, equals, path = pair.partition("=")
        if not equals and option == "--sft":
            environment, path = "demonstrations", pair
        if not path:
            faults.append(Fault(f"{option} {pair}", "is not a pair", "ENVIRONMENT=ROWS"))
        elif environment not in known:
            what = f"there is no environment {environment!r}"
            faults.append(Fault(f"{option} {pair}", what, ", ".join(known), nearest(environment, known)))
        else:
            found.append(OwnRows(environment, _seen_from(out, path)))
    return found


def _seen_from(out: Path, path: str) -> str:
    """A path of this machine as the file at `out` names it; addresses stay as they are."""
    if "://" in path:
        return path
    seen = os.path.relpath(Path(path).expanduser().resolve(), out.resolve().parent)
    return seen if seen.startswith("..") else f"./{seen}"


def _completed(own: OwnRecipe, out: Path) -> str:
    """The recipe with sizes that fit its rows and model. Raises UserError with what is wrong with these."""
    from kascade.doctor import data
    from kascade.doctor.sight import sizes
    from kascade.environments import get_environment
    from kascade.recipe.starter import own_text

    domains = {get_environment(rows.environment).domain for rows in own.rl}
    own = replace(own, domain=domains.pop() if len(domains) == 1 else None, context=_context(own, out))
    own = replace(own, template=_template(own, out))
    subject = _subject(replace(own, weak="not known yet"), out)
    if faults := data.rows(subject):
        raise UserError(faults)
    own = _counted(own, subject)
    weak = sizes(_subject(own, out))
    return own_text(replace(own, weak=weak[0].what if weak else None))


def _subject(own: OwnRecipe, out: Path) -> Subject:
    from kascade.doctor.subject import Subject
    from kascade.recipe.load import GIVEN, read_recipe_text
    from kascade.recipe.starter import own_text

    loaded = read_recipe_text(own_text(own), str(out), out.resolve().parent, None, None, given=GIVEN)
    return Subject(loaded.recipe, loaded.place)


def _counted(own: OwnRecipe, subject: Subject) -> OwnRecipe:
    """`own` with how many tasks each use of the rows has."""
    sft = [len(tasks) for _, tasks in subject.pools.get("sft", [])] or [0] * len(own.sft)
    exams = [len(tasks) for tasks in subject.exams.values()]
    named = own.exams or own.rl
    counted = [
        replace(rows, count=number) for rows, number in zip(named, exams or [0] * len(named), strict=False)
    ]
    return replace(
        own,
        sft=[replace(rows, count=number) for rows, number in zip(own.sft, sft, strict=False)],
        exams=counted,
    )


def _context(own: OwnRecipe, out: Path) -> int | None:
    """Tokens that the model reads at once, where its folder is here and says so."""
    from kascade.models.load import resolve_source

    folder = out.resolve().parent / own.model
    if own.model.startswith("builtin://"):
        folder = resolve_source(own.model)
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(
            "max_position_embeddings"
        )
    except (
        OSError,
        ValueError,
        AttributeError,
    ):  # a hub id; `kascade check` says what is wrong with a folder
        return None
    return found if isinstance(found, int) else None


def _template(own: OwnRecipe, out: Path) -> str | None:
    """The chat template that the recipe must name; None: the tokenizer has its own, or is not here."""
    from kascade.doctor.template import own_template

    folder = out.resolve().parent / own.model
    if own.model.startswith("builtin://") or not (folder / "tokenizer.json").exists():
        return None
    try:
        return None if own_template(folder) else TEMPLATE
    except (OSError, ValueError, AttributeError, KeyError):  # `kascade check` says what is wrong with it
        return None
