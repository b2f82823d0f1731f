"""Rows of dialogues: a user and gold calls of our own form, or BFCL's multi-turn rows with their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, PositiveFloat

from kascade.environments.dialogues.interface_classes import BFCL_CLASSES, WorldError, definitions, parse_call
from kascade.environments.options import Options
from kascade.environments.rows.tool_calls import function_of
from kascade.environments.workplace.environment import parse_gold

Fields = dict[str, Any]
Tools = tuple[Mapping[str, Any], ...]
NEW_FUNCTIONS = "I have updated some more functions you can choose from. What about now?"  # [BFCL]


class DialogueOptions(Options):
    """What the tools of dialogues act on."""

    databases: str | None = Field(None, description="folder of the office's CSV files; None: generated")
    classes: dict[str, str] = Field(
        {}, description="name → module of Python classes that rows' involved_classes name, beside BFCL's"
    )
    call_seconds: PositiveFloat = Field(5.0, description="CPU time of one call of such a class")
    call_wall_seconds: PositiveFloat = Field(300.0, description="after which such a call is an error")


def dialogue_fields(row: Mapping[str, Any], options: DialogueOptions) -> tuple[Fields, Tools]:
    """A task's fields, and the tools where the row's classes define them.

    Raises ValueError naming the field at fault.
    """
    named = row.get("involved_classes")
    if named is None:
        world: Fields = {"databases": options.databases}
        return _fields(row, world, _turns(row.get("ground_truth"), {})), ()
    known = {**BFCL_CLASSES, **options.classes}
    if not _texts(named) or not named or not all(name in known for name in named):
        raise ValueError(f"involved_classes: {named!r} are not all of {', '.join(known)} (option `classes`)")
    used = {name: known[name] for name in named}
    config = row.get("initial_config") or {}
    if not isinstance(config, Mapping):
        raise ValueError("initial_config: an object is needed")
    world = {"classes": used, "config": config, "long_context": "long_context" in str(row.get("id"))}
    world |= {"call_seconds": options.call_seconds, "call_wall_seconds": options.call_wall_seconds}
    try:
        tools = definitions(used, row.get("excluded_function") or ())
        turns = _turns(row.get("ground_truth"), used)
    except WorldError as error:
        raise ValueError(f"involved_classes: {error}") from error
    return _held_back(row.get("missed_function") or {}, _fields(row, world, turns), tuple(tools))


def _held_back(missed: Any, fields: Fields, tools: Tools) -> tuple[Fields, Tools]:
    """BFCL's `missed_function` {turn: [names]}: definitions that the user brings along in that turn.

    The user's turn is empty in the rows, and says as in BFCL that there is more to choose from.
    """
    if not isinstance(missed, Mapping):
        raise ValueError("missed_function: an object {turn: [names]} is needed")
    if not missed:
        return fields, tools
    if not fields["by_turn"]:
        raise ValueError("missed_function: needs a user with a script, and gold calls of every turn")
    named = {str(function_of(tool)["name"]): tool for tool in tools}
    script = list(fields["user"]["script"])
    held: dict[str, list[Mapping[str, Any]]] = {}
    for turn, names in missed.items():
        if not str(turn).isdecimal() or not 0 < int(turn) <= len(script):
            raise ValueError(f"missed_function: {turn!r} is not one of the turns 1 to {len(script)}")
        if not _texts(names) or not all(name in named for name in names):
            raise ValueError(f"missed_function.{turn}: {names!r} are not all of the tools {', '.join(named)}")
        held[str(turn)] = [named.pop(name) for name in dict.fromkeys(names)]
        shown = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in held[str(turn)])
        said = script[int(turn) - 1].strip() or NEW_FUNCTIONS
        script[int(turn) - 1] = f"<tools>\n{shown}\n</tools>\n{said}"
    return {**fields, "user": {"script": script}, "held": held}, tuple(named.values())


def _fields(row: Mapping[str, Any], world: Fields, turns: list[list[Fields]]) -> Fields:
    user = row.get("user")
    if not isinstance(user, Mapping) or ("script" in user) == ("instructions" in user):
        raise ValueError('user: {"script": [lines]} or {"instructions": text} is needed')
    if "script" in user and not _texts(user["script"]):
        raise ValueError("user.script: a list of texts is needed, what the user says after the first turn")
    if "instructions" in user and not isinstance(user["instructions"], str):
        raise ValueError("user.instructions: text is needed")
    communicate = row.get("communicate") or []
    if not _texts(communicate):
        raise ValueError("communicate: a list of texts is needed")
    by_turn = "script" in user and len(turns) == len(user["script"]) + 1
    return {
        "world": world,
        "user": dict(user),
        "ground_truth": turns,
        "communicate": list(communicate),
        "by_turn": by_turn,
        "check_results": "classes" in world,
        "held": {},
    }


def _turns(value: Any, classes: Mapping[str, str]) -> list[list[Fields]]:
    """Gold calls turn by turn; calls that stand in one list are one turn's. Raises ValueError."""
    if not isinstance(value, list):
        raise ValueError("ground_truth: a list of turns, each a list of calls, is needed")
    turns = value if all(isinstance(turn, list) for turn in value) else [value]
    return [_calls(turn, f"ground_truth[{index}]", classes) for index, turn in enumerate(turns)]


def _calls(turn: Sequence[Any], where: str, classes: Mapping[str, str]) -> list[Fields]:
    try:
        written = [parse_call(call, classes) for call in turn if isinstance(call, str)]
        calls = written if len(written) == len(turn) else parse_gold(list(turn))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
