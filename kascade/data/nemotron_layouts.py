"""How NVIDIA published the RL data of Nemotron-Cascade 2, as the rows that environments read.

Known without the data itself: its card, and public programs that read it. Rows of one subset differ in their
fields, and the hub fills what a row does not have with nulls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from kascade.data.json_text import within

Row = dict[str, Any]
LETTERED = re.compile(r"^\(?([A-Z])[:.)]\s+(\S.*)$", re.MULTILINE)  # an option in the text of a question
OFFICE = ("workbench", "workplace_assistant")
PARAMS, NOT_OF_INSTANCES = "responses_create_params", ("responses_create_params", "agent_ref", "dataset")


def nemotron_cascade_2(row: Row) -> Row:
    """nvidia/Nemotron-Cascade-2-RL-data, subsets IF-RL, multi-domain-RL, MOPD and SWE-RL.

    Each row gets the environment that grades it. Rows that hold nothing to grade by, of which the set has
    some hundred, belong to `demonstrations`, so that no stage that asks for another environment reads them.
    """
    found = {name: value for name, value in row.items() if value not in (None, "", [], {})}
    if (issue := _issue(found)) is not None:
        return issue
    if found.get("expected_answer") is not None and "schema_str" not in found:
        found = _answered(found)
    return {**found, "agent_ref": {"type": "responses_api_agents", "name": _environment(found)}}


def _environment(row: Row) -> str:
    if "instruction_id_list" in row:
        return "instruction_following"
    if "schema_str" in row:
        return "structured_outputs"
    if "ground_truth" in row and row.get("environment_name", "workbench") in OFFICE:
        return "workplace_assistant"
    if "expected_answer" in row:
        return "mcqa" if "options" in row else "math_with_judge"
    return "demonstrations"


def _answered(row: Row) -> Row:
    """A question with one right answer: with the options that stand in its text, or as a problem."""
    if "options" in row:
        return row
    text = _asked(row)
    options = dict(LETTERED.findall(text))
    letter = str(row["expected_answer"]).strip().upper()
    if letter in options and len(options) > 1:
        return {**row, "options": [{key: value} for key, value in options.items()]}
    return {"question": text, **row}


def _asked(row: Row) -> str:
    """What the last turn of the prompt says."""
    params = row.get(PARAMS)
    turns = params.get("input") if isinstance(params, Mapping) else None
    if isinstance(turns, str):
        return turns
    last = turns[-1] if isinstance(turns, list) and turns else {}
    content = last.get("content") if isinstance(last, Mapping) else None
    return content if isinstance(content, str) else ""


def _issue(row: Row) -> Row | None:
    """A row of SWE-RL as NeMo-Gym's `swe_agents` has it, its repository joined in; None for other rows."""
    params = row.get(PARAMS)
    given = params.get("metadata") if isinstance(params, Mapping) else None
    metadata: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    statement = row.get("problem_statement") or metadata.get("problem_statement")
    if not statement:
        return None
    instance = within(metadata.get("instance_dict") or {}, f"{PARAMS}.metadata.instance_dict")
    if not isinstance(instance, Mapping):
        raise ValueError(f"{PARAMS}.metadata.instance_dict: an object is needed")
    own = {name: value for name, value in row.items() if name not in NOT_OF_INSTANCES}
    whole = {**metadata, "problem_statement": statement, "instance_dict": json.dumps({**instance, **own})}
    base = params if isinstance(params, Mapping) else {}
    return {
        **{name: value for name, value in row.items() if name in ("id", "dataset")},
        PARAMS: {**base, "input": base.get("input") or [], "metadata": whole},
        "agent_ref": {"type": "responses_api_agents", "name": "swe_agents"},
    }
