"""Arguments of the verbs that grade: an environment's options, and a judge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.recipe.judge_model import JudgeModel

EnvironmentOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="NAME=VALUE of that environment, as in a recipe (repeatable)."),
]
JudgeUrl = Annotated[str | None, typer.Option(help="Address of a judge for rows that need one, with /v1.")]
JudgeName = Annotated[str, typer.Option(help="The judge's model name at that address.")]
JudgeKey = Annotated[str | None, typer.Option(help="Environment variable that holds the judge's key.")]


def judge_at(url: str | None, model: str, key_env: str | None) -> JudgeModel | None:
    """The judge that the command line names, if it does."""
    from kascade.recipe.judge_model import JudgeModel
    from kascade.storage.address import WEB, address_problem

    if url is None:
        return None
    if problem := address_problem(url, WEB):
        remedy = "name the environment variable that holds the key: --judge-key-env"
        raise UserError(Fault("--judge-url", f"the address {problem}", "http://HOST:PORT/v1", remedy))
    return JudgeModel(url=url, model=model, api_key_env=key_env)


def environment_options(pairs: list[str] | None, environment: str | None) -> dict[str, Any]:
    """Options of an environment; values are JSON where they can be read as such, else text."""
    from kascade.environments import get_environment

    if pairs and environment is None:
        raise UserError(Fault("--option", "belongs to one environment", remedy="name it with --environment"))
    found = {}
    for name, equals, value in (pair.partition("=") for pair in pairs or []):
        if not equals:
            raise UserError(Fault(f"--option {name}", "is not a pair", "NAME=VALUE"))
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    try:
        if environment is not None:
            get_environment(environment).with_options(found)
    except ValueError as error:
        remedy = "docs/environments.md says what each option takes"
        raise UserError(Fault("--option", str(error), remedy=remedy)) from error
    return found
