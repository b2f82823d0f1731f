"""Small functions for generated tasks of one step, and wishes that calls of them fulfil."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from kascade.environments.rows.tool_calls import ToolCall
from kascade.environments.small_world.words import DAYS, NAMES

CITIES = ("Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Lagos", "Turin", "Perth")
COINS = ("EUR", "USD", "NOK", "JPY", "CHF")
ROOMS = ("kitchen", "hall", "office", "garage")
Wish = tuple[str, ToolCall]


def _weather(rng: random.Random) -> Wish:
    city, day = rng.choice(CITIES), rng.choice(DAYS)
    return f"What will the weather in {city} be on {day}?", ToolCall("weather", {"city": city, "day": day})


def _convert(rng: random.Random) -> Wish:
    amount, (old, new) = rng.randint(2, 500), rng.sample(COINS, 2)
    return f"How much is {amount} {old} in {new}?", ToolCall(
        "convert_money", {"amount": amount, "from_currency": old, "to_currency": new}
    )


def _table(rng: random.Random) -> Wish:
    name, people, day = rng.choice(NAMES), rng.randint(2, 9), rng.choice(DAYS)
    text = f"Book a table for {people} on {day}, in the name of {name}."
    return text, ToolCall("book_table", {"name": name, "people": people, "day": day})


def _lamp(rng: random.Random) -> Wish:
    room, on = rng.choice(ROOMS), rng.random() < 0.5
    return f"Turn the light in the {room} {'on' if on else 'off'}.", ToolCall(
        "set_light", {"room": room, "on": on}
    )


def _reminder(rng: random.Random) -> Wish:
    name, minutes = rng.choice(NAMES), rng.randint(5, 90)
    text = f"Remind me in {minutes} minutes to call {name}."
    return text, ToolCall("remind", {"minutes": minutes, "text": f"call {name}"})


WISHES: Mapping[str, Callable[[random.Random], Wish]] = {
    "weather": _weather,
    "convert_money": _convert,
    "book_table": _table,
    "set_light": _lamp,
    "remind": _reminder,
}
TYPES: Mapping[str, Mapping[str, str]] = {
    "weather": {"city": "string", "day": "string"},
    "convert_money": {"amount": "number", "from_currency": "string", "to_currency": "string"},
    "book_table": {"name": "string", "people": "integer", "day": "string"},
    "set_light": {"room": "string", "on": "boolean"},
    "remind": {"minutes": "integer", "text": "string"},
}


def _definition(name: str) -> dict[str, Any]:
    properties = {parameter: {"type": kind} for parameter, kind in TYPES[name].items()}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "name": name,
        "description": name.replace("_", " "),
        "parameters": {**schema, "additionalProperties": False},
        "strict": True,
    }


def pose_calls(
    rng: random.Random, count: int, *, fulfil: bool = True
) -> tuple[str, tuple[dict[str, Any], ...], list[ToolCall]]:
    """`count` wishes in words, the definitions at hand, and the calls: none where nothing fulfils them."""
    names = rng.sample(list(WISHES), count)
    wishes = [WISHES[name](rng) for name in names]
    others = [name for name in WISHES if name not in names]
    shown = rng.sample(others, 2) + (names if fulfil else [])
    rng.shuffle(shown)
    text = " ".join(words for words, _ in wishes)
    return text, tuple(map(_definition, shown)), [call for _, call in wishes] if fulfil else []
