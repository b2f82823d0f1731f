"""Text that reaches a step as it was written.

A step's arguments pass through Argo, which fills in `{{...}}`, and through Kubernetes, which reads `$(NAME)`
as a variable and `$$` as one dollar sign. Such text is broken up where only people read it, spelt otherwise
inside JSON, and refused elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kascade.errors import Fault, UserError

FILLED_IN = re.compile(r"\$[$(]|\{\{(?!\$\.)")  # `{{$.` is Kubeflow's own
FROM_PEOPLE = re.compile(r"\$[$(]|\{\{")  # nothing of a recipe is Kubeflow's own
ALLOWED = "text without $$, $( and {{, which Kubernetes and Argo fill in"
REMEDY = "write the value itself here: no step fills in variables"
IN_JSON = {"$": "\\u0024", "{{": "{\\u007b"}


def for_people(text: str) -> str:
    """`text` with a space inside whatever would be filled in: for titles."""
    return re.sub(r"(?<=\$)(?=[$(])|(?<=\{)(?=\{)", " ", text)


def in_json(text: str) -> str:
    """A JSON text with the same value, in which nothing is filled in; text that is no JSON stays as it is.

    A dollar sign stands only inside strings. So do two braces in a row: an object begins with a quote.
    """
    for mark, escaped in IN_JSON.items():
        text = text.replace(mark, escaped)
    return text


def refuse_filled_in(value: Any, where: str) -> None:
    """Raise UserError naming every text of a JSON value that a cluster would change.

    value: a PipelineSpec or PlatformSpec. The code of components is Kubeflow's matter.
    """
    faults = [
        Fault(place, f"{text!r} would be changed on its way to a step", ALLOWED, REMEDY)
        for place, text in _texts(value, where)
        if FILLED_IN.search(text)
    ]
    if faults:
        raise UserError(faults)


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("command", "args"):
                yield from _texts(item, f"{where}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{where}.{number}")
