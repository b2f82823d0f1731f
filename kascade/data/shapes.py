"""Rows of any usual shape as NeMo-Gym rows: messages, prompt and answer, preference pairs.

What comes out holds `responses_create_params` and the environment's fields as NeMo-Gym has them, and where
the row has them `reference` (a full answer to imitate), `chosen` and `rejected`, each as text or as an
assistant's message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kascade.data.layouts import LAYOUTS

if TYPE_CHECKING:
    from kascade.recipe.parts import DataSource

Row = dict[str, Any]
Turn = dict[str, Any]

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
JSON_FIELDS = (
    *("responses_create_params", "messages", "conversations", "tools", "options", "choices", "kwargs"),
    *("instruction_id_list", "verifier_metadata", "template_metadata", "metadata", "agent_ref", "instance"),
)
SHAPES = (
    "give responses_create_params (NeMo-Gym), messages, chosen and rejected, or prompt; `columns` maps other "
    "names to these, `prompt` builds a prompt from them"
)


def nemo_gym_rows(row: Row, source: DataSource) -> list[Row]:
    """One raw row as NeMo-Gym rows: one, or with `turns: all` one an assistant turn.

    A row of no known shape is left as it is. Raises ValueError ("field: what is wrong").
    """
    found = row | {field: column_of(row, column) for field, column in source.columns.items()}
    if source.layout != "auto":
        found = LAYOUTS[source.layout](found)
    found = {name: _parsed(name, value) for name, value in found.items()}
    if isinstance(found.get("responses_create_params"), Mapping):
        return [found]
    if source.prompt is not None:
        found["prompt"] = fill(source.prompt, {**row, **found})
    if found.get("chosen") is not None and found.get("rejected") is not None:
        return [_preference(found, source)]
    for name in ("messages", "conversations"):
        if isinstance(found.get(name), Sequence) and not isinstance(found[name], str):
            return _conversation(found, _turns(found[name], name), source)
    if isinstance(found.get("prompt"), (str, list)):
        return [_with_prompt(found, _prompt(found["prompt"], "prompt"), source)]
    return [found]  # an environment of the user's may read rows of a shape of its own


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with each {column} replaced by its value; other braces stay as they are."""

    def value(match: re.Match[str]) -> str:
        return as_text(values[match[1]]) if match[1] in values else match[0]

    return re.sub(r"\{(\w+)\}", value, template)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def column_of(row: Row, column: str) -> Any:
    """The value of a column; dots reach into objects and lists when no column has that very name.

    Raises ValueError naming the columns that there are.
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            raise ValueError(f"{column}: there is no such column; there are {', '.join(map(str, row))}")
    return value


def _parsed(name: str, value: Any) -> Any:
    """Cells of tables that hold JSON lists or objects, where lists or objects are meant."""
    if name not in JSON_FIELDS or not isinstance(value, str) or not value.startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _turns(value: Any, name: str) -> list[Turn]:
    """OpenAI messages, or ShareGPT's from/value, as {role, content, ...}."""
    turns = []
    for index, turn in enumerate(value):
        if not isinstance(turn, Mapping):
            raise ValueError(f"{name}[{index}]: an object with role and content is needed")
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str):
            raise ValueError(f"{name}[{index}].role: is missing")
        rest = {k: v for k, v in turn.items() if k not in ("from", "value") and v is not None}
        turns.append({**rest, "role": SHAREGPT_ROLES.get(role, role), "content": content})
    if not turns:
        raise ValueError(f"{name}: is empty")
    return turns


def _prompt(value: Any, name: str) -> list[Turn]:
    return [{"role": "user", "content": value}] if isinstance(value, str) else _turns(value, name)


def _with_prompt(row: Row, turns: list[Turn], source: DataSource) -> Row:
    system = row.get("system") or source.system
    if isinstance(system, str) and turns[0]["role"] not in ("system", "developer"):
        turns = [{"role": "system", "content": system}, *turns]
    params = {"input": turns, **(row.get("create_params") or {})}
    if row.get("tools"):
        params["tools"] = row["tools"]
    return {**row, "responses_create_params": params}


def _conversation(row: Row, turns: list[Turn], source: DataSource) -> list[Row]:
    """A conversation: its last assistant turn (`turns: all`: each) is the answer to what came before."""
    answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and i > 0]
    if source.turns == "last" or not answers:
        answers = [len(turns) - 1] if turns[-1]["role"] == "assistant" else []
    if not answers:
        return [_with_prompt(row, turns, source)]
    return [{**_with_prompt(row, turns[:index], source), "reference": turns[index]} for index in answers]


def _preference(row: Row, source: DataSource) -> Row:
    """A preference pair: two answers to one prompt, or two conversations that differ in the last turn."""
    answers: dict[str, str | Turn] = {}
    prompts: list[list[Turn]] = []
    for name in ("chosen", "rejected"):
        value = row[name]
        if isinstance(value, str):
            answers[name] = value
            continue
        turns = _turns(value, name) if isinstance(value, list) else []
        if not turns or turns[-1]["role"] != "assistant":
            raise ValueError(f"{name}: text, or messages that end with the assistant's, are needed")
        answers[name] = turns[-1]
        prompts.append(turns[:-1])
    given = row.get("prompt") if row.get("prompt") is not None else row.get("messages")
    if given is not None:
        prompts.insert(0, _prompt(given, "prompt"))
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise ValueError("prompt: missing; a preference pair needs what was asked, as text or messages")
    if any(prompt != prompts[0] for prompt in prompts[1:]) and given is None:
        raise ValueError("rejected: answers another prompt than `chosen` does")
    return _with_prompt({**row, **answers, "reference": answers["chosen"]}, prompts[0], source)
