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
    environment = getattr(import_module(module), attribute)()
    assert isinstance(environment, Environment)
    return environment


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
