"""Whether the calls of an answer are the expected ones: by their arguments, or by lists of allowed values.

Arguments are compared as NeMo-Gym's `single_step_tool_use_with_argument_comparison` does; allowed values as
the checker of the Berkeley Function-Calling Leaderboard (BFCL v3, "AST" categories) does.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from kascade.environments.json_types import Bare, kinds_of
from kascade.environments.rows.tool_calls import ToolCall, function_of

Mode = Literal["binary_strict", "fractional", "f1"]
FLOAT_TOLERANCE = 1e-6  # NeMo-Gym floating_point_comparison_threshold
NUMBERS = (int, float)
IGNORED = re.compile(r"[ ,./\-_*^]")  # BFCL: what does not distinguish two texts
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "float": (float, int),
    "number": (float, int),
    "boolean": (bool,),
    "array": (list,),
    "tuple": (list,),
    "object": (dict,),
    "dict": (dict,),
}


def max_matching(candidates: Sequence[Sequence[int]]) -> dict[int, int]:
    """The most pairs of expected (index into candidates) and actual calls: actual → expected.

    Augmenting paths (Kuhn), because one actual call may fit several expected ones.
    """
    owner: dict[int, int] = {}

    def place(expected: int, tried: set[int]) -> bool:
        for actual in candidates[expected]:
            if actual in tried:
                continue
            tried.add(actual)
            if actual not in owner or place(owner[actual], tried):
                owner[actual] = expected
                return True
        return False

    for expected in range(len(candidates)):
        place(expected, set())
    return owner


def num_matched(
    expected: Sequence[Any], actual: Sequence[ToolCall], same: Callable[[Any, ToolCall], bool]
) -> int:
    """How many expected calls find a call of their own, in any order."""
    fits = [[i for i, call in enumerate(actual) if same(wanted, call)] for wanted in expected]
    return len(max_matching(fits))


def matched_reward(matched: int, expected: int, actual: int, mode: Mode) -> float:
    """binary_strict: all and no others; fractional: share of the expected; f1: 2 m / (e + a). [NeMo-Gym]"""
    if mode == "f1":
        return 2 * matched / (expected + actual) if expected + actual else 0.0
    if mode == "fractional":
        return matched / expected if expected else 0.0
    return float(matched == expected == actual)


def same_call(expected: ToolCall, actual: ToolCall, word_similarity: float) -> bool:
    """Same name and same arguments; texts of several words may differ in some."""
    return expected.name == actual.name and same_argument(
        dict(expected.arguments), dict(actual.arguments), word_similarity
    )


def same_argument(expected: Any, actual: Any, word_similarity: float) -> bool:
    """Types, keys and lengths must agree, numbers to 1e-6, texts in the share of words that they share.

    A value that was written bare, where its parameter may be text or not, may have its other reading.

    word_similarity: least number of common words per word of both texts together (0.5 is all of them), where
    both have two words or more; shorter ones must be equal. [NeMo-Gym word_count_similarity_threshold]
    """
    actual = actual.other if isinstance(actual, Bare) and not isinstance(expected, str) else actual
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            same_argument(value, actual[key], word_similarity) for key, value in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(
            same_argument(ours, theirs, word_similarity)
            for ours, theirs in zip(expected, actual, strict=True)
        )
    if isinstance(expected, str) and isinstance(actual, str):
        return _same_words(expected, actual, word_similarity)
    if isinstance(expected, float) and isinstance(actual, (int, float)):
        return _same_number(expected, actual)
    return isinstance(expected, NUMBERS) == isinstance(actual, NUMBERS) and bool(expected == actual)


def _same_number(expected: float, actual: float) -> bool:
    try:
        most = FLOAT_TOLERANCE * min(1.0, abs(expected))  # in proportion, where the number is small
        return expected == actual or abs(actual - expected) < most  # inf - inf is no number
    except OverflowError:  # an integer beyond the floats
        return False


def _same_words(expected: str, actual: str, least: float) -> bool:
    ours, theirs = (Counter(text.lower().split()) for text in (expected, actual))
    total = ours.total() + theirs.total()
    if min(ours.total(), theirs.total()) < 2:
        return expected == actual
    return (ours & theirs).total() / total >= least


def parameters_of(name: str, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The schema of a function's parameters, as far as the definitions give one."""
    schema = next((f for f in map(function_of, tools) if f.get("name") == name), {}).get("parameters")
    return schema if isinstance(schema, Mapping) else {}


def allowed_call(allowed: Mapping[str, Any], call: ToolCall, tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a call is one that `allowed` ({function: {parameter: [value, …]}}) describes. [BFCL]"""
    if call.name not in allowed:
        return False
    values: Mapping[str, Any] = allowed[call.name]
    parameters = parameters_of(call.name, tools)
    properties, required = parameters.get("properties") or {}, parameters.get("required") or []
    if any(name not in call.arguments for name in required):
        return False
    if any(name not in values or (properties and name not in properties) for name in call.arguments):
        return False
    if any("" not in options for name, options in values.items() if name not in call.arguments):
        return False  # left out, though not optional: the empty text in the list says that it may be
    return all(
        _allowed_value(value, _type(properties.get(name), parameters), values[name])
        for name, value in call.arguments.items()
    )


def _type(schema: Any, root: Any) -> str:
    """The one type of a parameter; "any" where it has several or none."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if isinstance(kind, str):
        return kind
    kinds = (kinds_of(schema, root) or frozenset()) - {"null"}
    return next(iter(kinds)) if len(kinds) == 1 else "any"


def _allowed_value(value: Any, kind: str, allowed: Sequence[Any]) -> bool:
    """One of the allowed values, of the right type. Where the definition's type leaves open what was written
    (`true` in a text's place), the letters count: calls in XML carry no types."""
    if isinstance(value, Bare) and _allowed_value(value.other, kind, allowed):
        return True
    if not _typed(value, kind, allowed):
        return False
    return any(_same_value(option, value) for option in allowed) or (
        (kind not in TYPES or kind == "string") and any(_same_letters(option, value) for option in allowed)
    )


def _same_letters(option: Any, value: Any) -> bool:
    if isinstance(option, str) == isinstance(value, str) or isinstance(option, list | dict):
        return False
    ours, theirs = (one if isinstance(one, str) else json.dumps(one) for one in (option, value))
    return ours.lower() == theirs.lower()


def _typed(value: Any, kind: str, allowed: Sequence[Any]) -> bool:
    """A value has its parameter's type, or, in place of it, that of the allowed ones: a variable's name."""
    wanted = TYPES.get(kind)
    if wanted is None or type(value) is next((type(one) for one in allowed if one != ""), None):
        return True
    return isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))


def _same_value(allowed: Any, value: Any) -> bool:
    """One allowed value against the given one: texts by their letters, objects key by key. [BFCL]"""
    if isinstance(allowed, str) and isinstance(value, str):
        return IGNORED.sub("", allowed).lower() == IGNORED.sub("", value).lower()
    if isinstance(allowed, bool) or isinstance(value, bool):
        return allowed is value
    if isinstance(allowed, list) and isinstance(value, list):
        return len(allowed) == len(value) and all(map(_same_value, allowed, value))
    if isinstance(allowed, dict) and isinstance(value, dict):
        # Within an object each key has its own list of allowed values, "" again for one that may be absent.
        return value.keys() <= allowed.keys() and all(
            any(_same_value(option, value[key]) for option in options) if key in value else "" in options
            for key, options in ((key, o if isinstance(o, list) else [o]) for key, o in allowed.items())
        )
    return bool(allowed == value)
