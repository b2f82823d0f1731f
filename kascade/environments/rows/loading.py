"""Rows as tasks of an environment; all faults at once, or bad rows skipped where the recipe says so."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from kascade.data.rows import BadRows, field_fault, read_rows
from kascade.data.shapes import SHAPES, is_blank
from kascade.environments.base import Environment
from kascade.environments.rows.nemo_gym import answer_text, row_tools
from kascade.environments.rows.routing import named_environment
from kascade.errors import Fault, UserError
from kascade.recipe.identity import data_digest
from kascade.recipe.parts import DataSource
from kascade.task import THINK_END, Task, in_mode

log = logging.getLogger(__name__)
SHOWN = 3  # skipped rows that are reported in full


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a source holds for one environment.

    tasks: without repeated questions. num_repeated: rows that asked one again. elsewhere: rows of other
    environments by name (a file may mix them). skipped: faults of the rows that were left out.
    """

    tasks: tuple[Task, ...]
    num_repeated: int
    elsewhere: Mapping[str, int]
    skipped: tuple[Fault, ...]


def load_tasks(environment: Environment, source: DataSource) -> Loaded:
    """The source's rows as tasks of `environment`; rows that name another environment are passed over.

    Read once per content. Raises UserError with the faults of all rows, or when there is no row.
    """
    assert source.path is not None
    paths = [source.path, *([source.join.path] if source.join else [])]
    return _load(environment, source.model_dump_json(), " ".join(map(data_digest, paths)))


@lru_cache(maxsize=32)
def _load(environment: Environment, source_json: str, digest: str) -> Loaded:
    source = DataSource.model_validate_json(source_json)
    tasks: dict[str, Task] = {}
    elsewhere: Counter[str] = Counter()
    bad = BadRows(source)
    num_repeated = 0
    for place, row in read_rows(source):
        if bad.full:
            break
        if isinstance(row, Fault):
            bad.faults.append(row)
            continue
        try:
            named = None if environment.reads_all_rows else named_environment(row)
            if named is not None and named != environment.name:
                elsewhere[named] += 1
                continue
            task = row_task(environment, row, source)
        except ValueError as error:
            known = "responses_create_params" in row
            remedy = f"see the row format of environment {environment.name!r}" if known else SHAPES
            bad.faults.append(field_fault(place, error, remedy))
        else:
            num_repeated += task.id in tasks
            tasks.setdefault(task.id, task)
    bad.raise_if_too_many()
    if not tasks:
        raise UserError(nothing_loaded(source, elsewhere, bad.faults))
    if bad.faults:
        shown = "\n".join(map(str, bad.faults[:SHOWN]))
        log.warning("%s: bad rows skipped: %d, such as\n%s", source.path, len(bad.faults), shown)
    return Loaded(tuple(tasks.values()), num_repeated, dict(elsewhere), tuple(bad.faults))


def row_task(environment: Environment, row: Mapping[str, Any], source: DataSource | None = None) -> Task:
    """One NeMo-Gym row as a task, with the answer to imitate and the preference pair it may carry.

    Raises ValueError naming the field at fault.
    """
    try:
        task = environment.from_row(row)
    except (KeyError, IndexError, TypeError, AttributeError) as error:  # of an environment that a user adds
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"the environment {environment.name} cannot read this row ({what})") from error
    reference, fields = task.reference, dict(task.fields)
    tools = task.tools or row_tools(row)  # shown to the model even where the grader asks for no call
    if row.get("reference") is not None:
        reference = answer_text(row["reference"], "reference")
        if is_blank(reference) and environment.name == "demonstrations":
            raise ValueError(
                "reference: the answer is empty, so there is nothing to learn; leave the row out"
            )
    if row.get("chosen") is not None and row.get("rejected") is not None:
        fields |= {name: answer_text(row[name], name) for name in ("chosen", "rejected")}
    thinking = task.thinking or (source is not None and source.thinking)
    thinking = thinking or (reference is not None and THINK_END in reference)
    made = replace(task, reference=reference, fields=fields, thinking=thinking, tools=tools)
    return in_mode(made, source.mode if source is not None else None)


def nothing_loaded(source: DataSource, elsewhere: Mapping[str, int], faults: Sequence[Fault]) -> list[Fault]:
    """Why a source has no row of its environment. elsewhere: how many of others; faults: of its rows."""
    if elsewhere:
        rows = ", ".join(f"{name} ({number})" for name, number in elsewhere.items())
        what, remedy = f"holds no rows of {source.environment}", "name one of these environments instead"
        return [*faults, Fault(str(source.path), what, rows, remedy)]
    return list(faults) or [
        Fault(str(source.path), "holds no rows", "one object a row", "write rows to it, or name another file")
    ]
