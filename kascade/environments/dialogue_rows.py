"""Rows of dialogues: a user and gold calls of our own form, or BFCL's multi-turn rows with their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kascade.environments.tool_worlds import BFCL_CLASSES, WorldError, definitions, parse_call
from kascade.environments.workplace import parse_gold

Fields = dict[str, Any]


def dialogue_fields(
    row: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Fields, tuple[Mapping[str, Any], ...]]:
    """A task's fields, and the tools where the row's classes define them.

    options: the environment's. Raises ValueError naming the field at fault.
    """
    named = row.get("involved_classes")
    if named is None:
        world: Fields = {"databases": options.get("databases")}
        return _fields(row, world, _turns(row.get("ground_truth"), {})), ()
    known = {**BFCL_CLASSES, **options.get("classes", {})}
    if not isinstance(named, list) or not named or not all(name in known for name in named):
        raise ValueError(f"involved_classes: {named!r} are not all of {', '.join(known)} (option `classes`)")
    if row.get("missed_function"):
        raise ValueError("missed_function: rows that hold functions back are not read; leave them out")
    used = {name: known[name] for name in named}
    config = row.get("initial_config") or {}
    if not isinstance(config, Mapping):
        raise ValueError("initial_config: an object is needed")
    world = {"classes": used, "config": config, "long_context": "long_context" in str(row.get("id"))}
    try:
        tools = definitions(used, row.get("excluded_function") or ())
        turns = _turns(row.get("ground_truth"), used)
    except WorldError as error:
        raise ValueError(f"involved_classes: {error}") from error
    return _fields(row, world, turns), tuple(tools)


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
