"""Defaults of a part inside another part.

A recovery warms up by default, and optimisers in general do not. Who gives the recovery's learning rate alone
must not lose its warm-up by that: what a written part does not say is as its owner has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from kascade.recipe.methods import METHODS
from kascade.recipe.parts import Part


def over_defaults(part: type[Part], value: Any) -> Any:
    """A JSON value of `part`, its inner parts completed by the defaults that `part` gives them.

    What is of a wrong type stays as it is.
    """
    if not isinstance(value, Mapping):
        return value
    found = dict(value)
    for name, field in part.model_fields.items():
        if name not in found:
            continue
        if isinstance(field.default, Part) and isinstance(found[name], Mapping):
            usual = field.default.model_dump(mode="json", exclude_unset=True)
            found[name] = {**usual, **found[name]}
        found[name] = _inside(field.annotation, found[name])
    return found


def _inside(annotation: Any, value: Any) -> Any:
    """The value of a field, with the parts in it completed."""
    kinds = list(_parts(annotation))
    if isinstance(value, list):
        return [_inside(annotation, item) for item in value]
    if not isinstance(value, Mapping) or not kinds:
        return value
    if get_origin(annotation) is dict:
        return {key: over_defaults(kinds[0], item) for key, item in value.items()}
    method = METHODS.get(str(value.get("kind"))) if len(kinds) > 1 else None
    if len(kinds) > 1 and method is None:  # an unknown kind of stage, which is reported elsewhere
        return value
    return over_defaults(method.part if method is not None else kinds[0], value)


def _parts(annotation: Any) -> Iterator[type[Part]]:
    """The kinds of parts that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType, tuple, list, dict):
        for inner in get_args(annotation):
            yield from _parts(inner)
