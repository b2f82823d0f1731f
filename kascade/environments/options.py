"""What a recipe may set of an environment: a data source's `options`, each with its default and source."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from pydantic import ConfigDict, Field, PositiveFloat, ValidationError

from kascade.environments.bounded import REGEX_SECONDS
from kascade.recipe.parts import Part

GRADING = "grading"  # field of a task: its grader's options. A row may have `options` of its own


class Options(Part):
    """Base of all environments' options: types are not converted, unknown names are errors."""

    model_config = ConfigDict(strict=True)

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str = "options") -> Self:
        """Raises ValueError naming the first option at fault, as a field of `where`."""
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            what = first["msg"].removeprefix("Value error, ")
            raise ValueError(
                f"{where}.{name}: {first['input']!r}: {what}" if name else f"{where}: {what}"
            ) from None

    @classmethod
    def of_task(cls, fields: Mapping[str, Any]) -> Self:
        """Those of a task's fields, which may hold others as well. Raises ValueError."""
        given = fields.get(GRADING)
        if not given:  # most tasks have none, and a pydantic model takes as long as a short grading
            plain: Self = _of_none(cls)
            return plain
        return cls.of({name: given[name] for name in cls.names() if name in given})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(cls.model_fields)


@cache
def _of_none(kind: type[Options]) -> Any:
    return kind.of({})


class PatternOptions(Options):
    """Of environments whose rows bring regular expressions along."""

    regex_seconds: PositiveFloat = Field(
        REGEX_SECONDS, description="seconds that a regular expression of a row may take on one answer"
    )
