"""Whether the secrets that a recipe refers to can be read here."""

from __future__ import annotations

from collections.abc import Iterator

from kascade.doctor.subject import Subject
from kascade.errors import Fault
from kascade.recipe.schema import Recipe
from kascade.storage.secrets import secret_problem

REMEDY = "set it where the run's steps run; on a cluster, map a secret's key to it with `cluster.secrets`"


def readable(subject: Subject) -> list[Fault]:
    """A warning for each that cannot be read, and what the run will then not do."""
    found = []
    for path, reference, then in _references(subject.recipe):
        if (problem := secret_problem(reference)) is not None:
            found.append(Fault(subject.place(*path), f"{problem}; {then}", remedy=REMEDY))
    return found


def _references(recipe: Recipe) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Place in the recipe, reference, and what does not happen without it."""
    if recipe.attest is not None:
        yield ("attest", "key"), recipe.attest.key, "nothing would be signed or promoted"
    for number, receiver in enumerate(recipe.notify):
        named = {"url": receiver.url, "secret": receiver.secret}
        for field, reference in named.items():
            if reference is not None and "://" not in reference:
                yield ("notify", number, field), reference, "nobody would be told there"
