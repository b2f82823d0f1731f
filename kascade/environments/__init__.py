"""Environments by name; a user adds one as an entry point of the group `kascade.environments`."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from kascade.environment_names import BUILTIN, known_environments
from kascade.environments.base import Environment
from kascade.errors import Fault, UserError
from kascade.recipe.parts import DataSource
from kascade.task import SHIPPED_DOMAINS, SPLITS, Domain, Grade, Message, Split, Task


@cache
def get_environment(name: str) -> Environment:
    """The environment registered under `name`. Raises UserError naming what is registered."""
    known = known_environments()
    if name not in known:
        raise UserError(Fault(f"environment {name!r}", "is not registered", allowed=", ".join(sorted(known))))
    module, _, attribute = known[name].partition(":")
    try:
        environment = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:  # of a package that a user adds
        raise UserError(_unloadable(name, known[name], f"cannot be loaded: {error}")) from error
    if not isinstance(environment, Environment):
        raise UserError(_unloadable(name, known[name], "is not an Environment"))
    return environment


def domain_of(source: DataSource) -> Domain:
    """The domain of a data source's environment, as its options have it. Raises ValueError for an option."""
    return get_environment(source.environment).with_options(source.options).domain


def _unloadable(name: str, place: str, what: str) -> Fault:
    remedy = f"fix or uninstall the package that registers it as {place}"
    return Fault(f"environment {name!r}", what, "a class derived from kascade's Environment", remedy)


__all__ = [
    "BUILTIN",
    "SHIPPED_DOMAINS",
    "SPLITS",
    "Domain",
    "Environment",
    "Grade",
    "Message",
    "Split",
    "Task",
    "domain_of",
    "get_environment",
    "known_environments",
]
