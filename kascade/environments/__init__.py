"""Environments by name; a user adds one as an entry point of the group `kascade.environments`."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from kascade.environments.base import DOMAINS, SPLITS, Domain, Environment, Grade, Message, Split, Task
from kascade.environments.registry import BUILTIN, known_environments
from kascade.errors import Fault, UserError


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


def _unloadable(name: str, place: str, what: str) -> Fault:
    remedy = f"mend or uninstall the package that registers it as {place}"
    return Fault(f"environment {name!r}", what, "a class derived from kascade's Environment", remedy)


__all__ = [
    "BUILTIN",
    "DOMAINS",
    "SPLITS",
    "Domain",
    "Environment",
    "Grade",
    "Message",
    "Split",
    "Task",
    "get_environment",
    "known_environments",
]
