"""`kascade environments`: what there is to train on and to test with, and what each needs."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.output import AsJson, emit
from kascade.environment_names import OF_OTHER_TOOLS

if TYPE_CHECKING:
    from kascade.environments.base import Environment

SEED = 0  # of the example


def register(app: typer.Typer) -> None:
    app.command("environments")(environments)


def environments(
    name: Annotated[str | None, typer.Argument(help="One environment: its options and an example.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the environments, with what each needs; or show one with its options and an example task.

    Example: kascade environments mcqa
    """
    from kascade.environments import get_environment, known_environments

    if name is None:
        found = [_summary(get_environment(one)) for one in sorted(known_environments())]
        emit(found) if as_json else _print_all(found)
        return
    environment = get_environment(name)
    shown = {**_summary(environment), "options": _options(environment), "example": _example(environment)}
    emit(shown) if as_json else _print_one(shown)


def _summary(environment: Environment) -> dict[str, Any]:
    doc = (type(environment).__doc__ or "").strip().split("\n\n")[0]
    return {
        "name": environment.name,
        "domain": environment.domain,
        "what": " ".join(doc.split()),
        "needs": _needs(environment),
    }


def _needs(environment: Environment) -> list[str]:
    needs = ["a sandbox"] if environment.sandboxes else []
    if environment.needs_judge(rows=True):
        needs.append("a judge for rows")
    if _posed(environment) is None and environment.name not in OF_OTHER_TOOLS:
        needs.append("rows")
    if environment.behind_server:
        needs.append("a server")
    return needs


def _posed(environment: Environment) -> Any:
    """A generated task; None where there is no generator."""
    try:
        return environment.pose(random.Random(SEED), 0.5)
    except ValueError:
        return None


def _options(environment: Environment) -> list[dict[str, Any]]:
    if environment.options_type is None:
        return []
    return [
        {
            "name": name,
            "required": field.is_required(),
            "default": None if field.is_required() else field.get_default(call_default_factory=True),
            "what": field.description or "",
        }
        for name, field in environment.options_type.model_fields.items()
    ]


def _example(environment: Environment) -> dict[str, Any] | None:
    """A generated task as a row would hold it."""
    task = _posed(environment)
    if task is None:
        return None
    asked = {"input": [dict(message) for message in task.messages]}
    if task.tools:
        asked["tools"] = [dict(tool) for tool in task.tools]
    row = {"responses_create_params": asked, **task.fields}
    return {**row, "reference": str(task.reference)} if task.reference is not None else row


def _print_all(found: list[dict[str, Any]]) -> None:
    for one in found:
        needs = f", needs {' and '.join(one['needs'])}" if one["needs"] else ""
        typer.echo(f"{one['name']}\n  {one['domain']}{needs}\n  {one['what']}")


def _print_one(shown: dict[str, Any]) -> None:
    typer.echo(f"{shown['name']} ({shown['domain']}): {shown['what']}")
    typer.echo(f"needs: {', '.join(shown['needs']) or 'nothing'}")
    for option in shown["options"]:
        what = f": {option['what']}" if option["what"] else ""
        default = "required" if option["required"] else f"default {option['default']!r}"
        typer.echo(f"option {option['name']} ({default}){what}")
    if shown["example"] is not None:
        typer.echo("example of a row:")
        typer.echo(json.dumps(shown["example"], ensure_ascii=False, indent=1, default=str))
