"""When a run that is started again and again trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kascade.recipe.parts import Part


class Retrain(Part):
    """A run trains only when something changed since the last one that ended: model, rows or recipe."""

    when: Literal["changed", "always"] = Field(
        "changed", description="changed: only then; always: this time in any case"
    )
    champion: bool = Field(
        False,
        description="where nothing changed, let the champion answer the benchmarks again, on the pods of "
        "the benchmarks; if it fell, the next run trains",
    )
