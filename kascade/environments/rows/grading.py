"""Grading rows that carry a response, each by the environment that it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from kascade.data.rows import Row, field_fault
from kascade.environments import get_environment
from kascade.environments.base import Environment
from kascade.environments.crashes import graded
from kascade.environments.rows.loading import row_task
from kascade.environments.rows.nemo_gym import response_text
from kascade.environments.rows.routing import environment_of, named_environment
from kascade.errors import Fault, UserError
from kascade.task import Grade, Task

BATCH = 64  # rows graded together, so that environments which run programs can batch them


@dataclass(frozen=True, slots=True)
class GradedRow:
    """One row's grade. key: hash of the row's content, by which a later try knows what is done."""

    place: str
    key: str
    id: Any
    environment: str
    grade: Grade

    def as_json(self) -> dict[str, Any]:
        return {
            "row": self.place,
            "key": self.key,
            "id": self.id,
            "environment": self.environment,
            "reward": self.grade.reward if self.grade.error is None else None,
            "components": dict(self.grade.components),
            "error": self.grade.error,
        }


def row_key(row: Mapping[str, Any]) -> str:
    """16 hex digits that stand for a row's content."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def grade_rows(
    rows: Iterable[tuple[str, Row | Fault]],
    environment: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[GradedRow | Fault]:
    """The grade or the fault of each row, batch by batch.

    environment: for rows that name none. options: of that environment. Raises ValueError naming an option.
    """
    configured = get_environment(environment).with_options(options) if environment and options else None
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH)):
        yield from _grade_batch(batch, environment, configured)


def _grade_batch(
    batch: list[tuple[str, Row | Fault]], environment: str | None, configured: Environment | None
) -> Iterator[GradedRow | Fault]:
    results: list[GradedRow | Fault | None] = [None] * len(batch)
    waiting: dict[str, list[tuple[int, Task, str]]] = {}
    for index, (place, row) in enumerate(batch):
        if isinstance(row, Fault):
            results[index] = row
            continue
        try:
            grader = _grader(row, environment)
            if configured is not None and configured.name == grader.name:
                grader = configured
            waiting.setdefault(grader.name, []).append((index, row_task(grader, row), response_text(row)))
        except ValueError as error:
            results[index] = field_fault(place, error, "see docs/data.md for rows with a response")
    for name, answered in waiting.items():
        grades = graded(get_environment(name), [(task, [answer]) for _, task, answer in answered])
        for (index, _, _), (grade,) in zip(answered, grades, strict=True):
            place, row = batch[index]
            assert not isinstance(row, Fault)
            results[index] = GradedRow(place, row_key(row), row.get("id", row.get("uuid")), name, grade)
    yield from (result for result in results if result is not None)


def _grader(row: Row, environment: str | None) -> Environment:
    name = named_environment(row) or environment or environment_of(row)
    try:
        return get_environment(name)
    except UserError as error:
        fault = error.faults[0]
        raise ValueError(
            f"{fault.where} {fault.what} ({fault.remedy or f'there are {fault.allowed}'})"
        ) from None
