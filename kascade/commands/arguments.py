"""Arguments that several verbs share: which recipe, with which dials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.recipe.load import LoadedRecipe

RowPairs = Annotated[
    list[str] | None,
    typer.Option("--data", "-d", help="ENVIRONMENT=ROWS.jsonl (repeatable), or a folder of such files."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", help="stage.field=value, guard.field=value, model.field=value, ... (repeatable)."
    ),
]


@dataclass(frozen=True, slots=True)
class RecipeArguments:
    """A recipe as the command line names it; `recipe_verb` makes each field an argument of a verb."""

    recipe: Annotated[str, typer.Argument(help="A preset's name or a recipe file.")]
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model to start from: a folder, hub id or builtin://NAME."),
    ] = None
    data: RowPairs = None
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn at random.")] = None
    scale: Annotated[str | None, typer.Option(help="One of the recipe's scales.")] = None
    budget: Annotated[
        float | None, typer.Option(help="CPU hours; stops before a stage that would exceed it.")
    ] = None
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None
    settings: Changes = None

    def load(self) -> LoadedRecipe:
        """The checked recipe. Raises UserError with every fault."""
        from kascade.recipe.load import read_recipe

        return read_recipe(self.recipe, self.settings, self.dials())

    def dials(self) -> dict[str, Any]:
        """Dials in the form of a recipe file; those not given are left out."""
        dials = {
            "model": self.model,
            "data": rows_by_environment(self.data),
            "seed": self.seed,
            "scale": self.scale,
            "budget": self.budget,
            "threads": self.threads,
        }
        return {key: value for key, value in dials.items() if value is not None}

    def words(self) -> list[str]:
        """The arguments as a command line takes them."""
        dials = {"model": self.model, "seed": self.seed, "scale": self.scale, "budget": self.budget}
        words = [self.recipe]
        for name, value in {**dials, "threads": self.threads}.items():
            words += [f"--{name}", str(value)] if value is not None else []
        for pair in self.data or []:
            words += ["--data", pair]
        for setting in self.settings or []:
            words += ["--set", setting]
        return words

    def remark(self) -> str:
        """The dials as YAML comments, to stand above the recipe in the run's folder."""
        given = [f"{key}: {value}" for key, value in self.dials().items()]
        given += [f"set {setting}" for setting in self.settings or []]
        return "".join(f"# given on the command line: {' '.join(line.split())}\n" for line in given)


def recipe_verb(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb whose first parameter is `RecipeArguments` take its fields from the command line."""
    own = list(signature(verb, eval_str=True).parameters.values())[1:]
    shared = list(signature(RecipeArguments, eval_str=True).parameters.values())
    names = [parameter.name for parameter in shared]

    @wraps(verb)
    def taken_apart(**given: Any) -> None:
        arguments = RecipeArguments(**{name: given.pop(name) for name in names})
        verb(arguments, **given)

    parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in (*shared, *own)]
    taken_apart.__dict__["__signature__"] = Signature(parameters)
    return taken_apart


def rows_by_environment(pairs: list[str] | None) -> str | dict[str, str] | None:
    """What `--data` says, as a recipe's dial. Raises UserError."""
    if not pairs:
        return None
    if len(pairs) == 1 and ("=" not in pairs[0] or Path(pairs[0]).is_dir()):
        return pairs[0]
    split = [pair.partition("=") for pair in pairs]
    faults = [
        Fault(f"--data {pair}", "not a pair", "ENVIRONMENT=ROWS.jsonl, or one folder")
        for pair, (name, _, path) in zip(pairs, split, strict=True)
        if not name or not path
    ]
    if faults:
        raise UserError(faults)
    return {name: path for name, _, path in split}
