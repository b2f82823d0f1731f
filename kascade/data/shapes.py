"""Rows of any usual shape as NeMo-Gym rows: messages, prompt and answer, preference pairs.

What comes out holds `responses_create_params` and the environment's fields as NeMo-Gym has them, and where
the row has them `reference` (a full answer to imitate), `chosen` and `rejected`, each as text or as an
assistant's message.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kascade.data.formats import usual_row
from kascade.data.graded_formats import graded_row
from kascade.data.json_text import JsonError, parse, python_literal
from kascade.data.layouts import LAYOUTS

if TYPE_CHECKING:
    from kascade.recipe.parts import DataSource

Row = dict[str, Any]
Turn = dict[str, Any]

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
PLACEHOLDER = re.compile(r"\{([^{}\n]+)\}")  # of a prompt: a column, where there is one of that name
NO_WIDTH = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD))
SYSTEM = ("system", "developer")
WEIGHTS = ("weight", "train", "loss")  # of a turn: 0 or false where it is only to be read
PICTURES = ("image", "images", "audio", "audios", "video", "videos")
JSON_FIELDS = (
    *("responses_create_params", "messages", "conversations", "tools", "options", "choices", "kwargs"),
    *("instruction_id_list", "verifier_metadata", "template_metadata", "metadata", "agent_ref", "instance"),
)
SHAPES = (
    "give responses_create_params (NeMo-Gym), messages, chosen and rejected, instruction and output, "
    "question and answer, prompt and completion, prompt, or text; `columns` maps other names to these, "
    "`prompt` builds a prompt from them"
)


def nemo_gym_rows(row: Row, source: DataSource) -> list[Row]:
    """One raw row as NeMo-Gym rows: one, or with `turns: all` one an assistant turn.

    A row of no known shape is left as it is. Raises ValueError ("field: what is wrong").
    """
    found = row | {field: column_of(row, column) for field, column in source.columns.items()}
    if source.layout != "auto":
        found = LAYOUTS[source.layout](found)
    found = {name: _parsed(name, value) for name, value in found.items()}
    if source.layout == "auto":
        found = graded_row(found, source.environment)
    if isinstance(params := found.get("responses_create_params"), Mapping):
        return [{**found, "responses_create_params": _begun(params, {**row, **found}, source)}]
    for name in PICTURES:
        if found.get(name) and not isinstance(found[name], bool):
            raise ValueError(
                f"{name}: pictures (images), sound and videos are not seen by models here; leave the row out"
            )
    if source.prompt is not None:
        found["prompt"] = fill(source.prompt, {**row, **found})
    found = usual_row(found)
    if "chosen" in found and "rejected" in found:
        return [_preference(found, source)]
    for name in ("messages", "conversations"):
        if isinstance(found.get(name), Sequence) and not isinstance(found[name], str):
            turns = _turns(found[name], name)
            return _conversation(found, turns if source.prompt is None else _reworded(found, turns), source)
    if isinstance(found.get("prompt"), (str, list)):
        return [_with_prompt(found, _prompt(found["prompt"], "prompt"), source)]
    return [found]  # an environment of the user's may read rows of a shape of its own


def _begun(params: Mapping[str, Any], values: Row, source: DataSource) -> Mapping[str, Any]:
    """`responses_create_params` with the data source's prompt and system message."""
    given = params.get("input")
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        return params  # whoever reads the row says what is wrong
    if source.prompt is not None:
        turns = _reworded({"prompt": fill(source.prompt, values)}, turns)
    if source.system and not any(turn.get("role") in SYSTEM for turn in turns):
        turns = [{"role": "system", "content": source.system}, *turns]
    return {**params, "input": turns}


def _reworded(row: Row, turns: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns with the row's prompt, which the data source words, as the one that the user says.

    Raises ValueError for a conversation: it has several turns, and which of them is meant is not known.
    """
    begins = [turn for turn in turns if turn.get("role") in SYSTEM]
    rest = [turn for turn in turns if turn.get("role") not in SYSTEM]
    if [turn.get("role") for turn in rest] not in (["user"], ["user", "assistant"], ["assistant"], []):
        raise ValueError(
            f"prompt: stands for one user's turn, and the row holds {len(rest)} turns; leave out the data "
            "source's `prompt`"
        )
    answers = [turn for turn in rest if turn["role"] == "assistant"]
    return [dict(turn) for turn in (*begins, *_prompt(row["prompt"], "prompt"), *answers)]


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with each {column} replaced by its value; other braces stay as they are.

    Raises ValueError where a value is not there: null would be read as a word.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            return match[0]
        if is_absent(values[match[1]]):
            raise ValueError(f"{match[1]}: is empty (null), and the prompt of the data source shows it")
        return as_text(values[match[1]])

    filled, found = PLACEHOLDER.subn(value, template)
    named = [name for name in PLACEHOLDER.findall(template) if name in values]
    if found and not named:
        there = ", ".join(map(str, values))
        raise ValueError(f"prompt: no {{column}} of the data source's prompt is one of the row's: {there}")
    return filled


def is_absent(value: Any) -> bool:
    """Whether a value stands for none: null, or the NaN that tables have in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or holds blanks and characters of no width."""
    return not text.translate(NO_WIDTH).strip()


def as_text(value: Any) -> str:
    """A value as a prompt shows it. Raises ValueError for one that is no text, number, list or object."""
    if isinstance(value, date | time | Decimal):  # of a typed column
        return str(value)
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise ValueError(f"prompt: shows what is no text: {error}") from None


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
    """Cells of tables that hold lists or objects as JSON or Python writes them, where such are meant.

    Raises ValueError for JSON that would lose something.
    """
    if name not in JSON_FIELDS or not isinstance(value, str) or not value.startswith(("[", "{")):
        return value
    try:
        return parse(value)
    except JsonError as error:
        literal = python_literal(value)
        if isinstance(literal, str) and not str(error).startswith("is not JSON"):
            raise ValueError(f"{name}: {error}") from None
        return literal


def _turns(value: Any, name: str) -> list[Turn]:
    """OpenAI messages, or ShareGPT's from/value, as {role, content, ...}."""
    turns = []
    for index, turn in enumerate(value):
        if not isinstance(turn, Mapping):
            raise ValueError(f"{name}[{index}]: an object with role and content is needed")
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if turn.get("from") not in (None, role):
            raise ValueError(f"{name}[{index}]: has the role {role!r} and is from {turn['from']!r}; give one")
        if not isinstance(role, str):
            there = ", ".join(map(str, turn)) or "nothing"
            raise ValueError(f"{name}[{index}].role: is missing; the turn holds {there}")
        if turn.get("content") is not None and turn.get("value") not in (None, content):
            raise ValueError(f"{name}[{index}]: has a content and another value; give one of them")
        rest = {k: v for k, v in turn.items() if k not in ("from", "value") and v is not None}
        turns.append({**rest, "role": SHAREGPT_ROLES.get(role, role), "content": content})
    if not turns:
        raise ValueError(f"{name}: is empty")
    return turns


def _prompt(value: Any, name: str) -> list[Turn]:
    if isinstance(value, str) and not is_blank(value):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        what = "is empty" if isinstance(value, str) else f"is a {type(value).__name__}"
        raise ValueError(f"{name}: {what}; text or a list of turns is needed")
    return _turns(value, name)


def _with_prompt(row: Row, turns: list[Turn], source: DataSource) -> Row:
    own = None if is_absent(row.get("system")) else row["system"]
    if own is not None and not isinstance(own, str):
        raise ValueError(f"system: is a {type(own).__name__}; text is needed")
    begins = turns[0] if turns and turns[0]["role"] in SYSTEM else None
    if own and begins is not None and begins["content"] != own:
        raise ValueError("system: differs from the system turn, and would be lost; give one of them")
    if (system := own or source.system) and begins is None:
        turns = [{"role": "system", "content": system}, *turns]
    given = row.get("create_params") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"create_params: is a {type(given).__name__}; an object is needed")
    params = {"input": turns, **given}
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
    learnt = [index for index in answers if _is_learnt(turns[index], f"messages[{index}]")]
    if not learnt:
        raise ValueError(
            f"messages[{answers[-1]}]: its weight is 0, so nothing of the conversation would be learnt; "
            "leave the row out"
        )
    return [{**_with_prompt(row, turns[:index], source), "reference": turns[index]} for index in learnt]


def _is_learnt(turn: Turn, where: str) -> bool:
    """Whether an assistant's turn is to be learnt. Raises ValueError for a weight between 0 and 1."""
    for name in WEIGHTS:
        weight = turn.get(name, 1)
        if weight not in (0, 1):
            raise ValueError(f"{where}.{name}: {weight!r}: a turn is learnt (1) or only read (0)")
        if not weight:
            return False
    return True


def _preference(row: Row, source: DataSource) -> Row:
    """A preference pair: two answers to one prompt, or two conversations that differ in the last turn."""
    answers: dict[str, str | Turn] = {}
    prompts: list[list[Turn]] = []
    for name in ("chosen", "rejected"):
        value = row[name]
        if is_absent(value):
            raise ValueError(f"{name}: is empty (null); a preference pair needs both answers")
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
    if source.prompt is None and any(_said(prompt) != _said(prompts[0]) for prompt in prompts[1:]):
        if given is None:
            raise ValueError("rejected: answers another prompt than `chosen` does")
        raise ValueError(
            "prompt: differs from the turns in `chosen` and `rejected`; leave one of the two out"
        )
    return _with_prompt({**row, **answers, "reference": answers["chosen"]}, prompts[0], source)


def _said(turns: Sequence[Turn]) -> list[tuple[str, Any]]:
    """Who says what, blanks at the ends aside."""
    said = ((turn["role"], turn["content"]) for turn in turns)
    return [(role, text.strip() if isinstance(text, str) else text) for role, text in said]
