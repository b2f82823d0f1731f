"""JSON text that nobody vouches for, as a value: what a parser would drop, guess or choke on is named."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

MAX_DEPTH = 200  # levels of lists and objects
MAX_VALUES = 2_000_000  # of one row; no row comes near, and each takes a hundred bytes of memory
LONGEST_ROW = 16 * 2**20  # bytes: several times the longest context
HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
LONGEST_LITERAL = 100_000  # characters of a list or an object as Python writes it
SURROGATE = re.compile(r"[\ud800-\udfff]")


class JsonError(ValueError):
    """Why a text is no usable JSON, in our words."""


def decode(data: bytes) -> str:
    """The text of bytes in UTF-8, a byte order mark aside. Raises JsonError naming the byte."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise JsonError("is UTF-16, not UTF-8: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JsonError(
            f"is not UTF-8 text (byte {data[error.start]:#04x} at place {error.start + 1}): save it as UTF-8"
        ) from None


def parse(data: bytes | str) -> Any:
    """The value in a text. Raises JsonError for bad syntax, a key twice, half a character, and excess."""
    if len(data) > LONGEST_ROW:
        raise JsonError(f"is longer than {LONGEST_ROW:,} bytes")
    text = decode(data) if isinstance(data, bytes) else data
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise JsonError(f"holds more than {MAX_VALUES:,} values")
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except JsonError:
        raise
    except RecursionError:
        raise JsonError(f"is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError:  # Python reads no number of thousands of digits
        raise JsonError("holds a number of more than 4,300 digits: write it as text") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise JsonError(f"is nested deeper than {MAX_DEPTH} levels")
    if HALF_CHARACTER.search(text) and (where := next(half_characters(value), None)) is not None:
        raise JsonError(f"{where}: holds half a character (\\ud800 to \\udfff), which no text can")
    return value


def within(value: Any, where: str) -> Any:
    """A field's value, which may be written as JSON text. Raises ValueError naming `where`."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except JsonError as error:
        raise ValueError(f"{where}: {error}") from None


def python_literal(text: str) -> Any:
    """A list or an object as Python writes it; the text itself where it is none that JSON could hold."""
    if len(text) > LONGEST_LITERAL:
        return text
    try:
        tree = ast.parse(text.strip(), mode="eval")
        if any(_names_twice(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)):
            return text
        return json.loads(json.dumps(ast.literal_eval(tree)))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _names_twice(node: ast.Dict) -> bool:
    keys = [repr(key.value) for key in node.keys if isinstance(key, ast.Constant)]
    return len(set(keys)) < len(keys)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonError(f"{twice}: stands twice in one object, and one of the two would be lost")
    return value


def _deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def not_finite(value: Any) -> bool:
    """Whether a value of JSON holds NaN or an infinity, which the standard does not know."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return True
    return False


def half_characters(value: Any, path: str = "") -> Iterator[str]:
    """Dotted places of texts that hold a lone surrogate, keys included."""
    if isinstance(value, str):
        if SURROGATE.search(value):
            yield path or "value"
    elif isinstance(value, dict):
        for key, inner in value.items():
            if SURROGATE.search(key):
                yield f"{path}.key".lstrip(".")
            yield from half_characters(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from half_characters(inner, f"{path}[{index}]")


def items(text: str) -> Iterator[str]:
    """The texts of a list's items, one after the other, so that no more than one is held as a value.

    Raises JsonError where the text is no list, or an item of it is no JSON.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_skip)
    blank = re.compile(r"[ \t\r\n]*")
    index = blank.match(text).end()  # type: ignore[union-attr]
    if text[index : index + 1] != "[":
        raise JsonError("holds no list")
    index = blank.match(text, index + 1).end()  # type: ignore[union-attr]
    while text[index : index + 1] != "]":
        try:
            _, end = decoder.raw_decode(text, index)
        except (ValueError, RecursionError) as error:
            raise JsonError(f"is not JSON at character {index + 1}: {_what(error)}") from None
        yield text[index:end]
        index = blank.match(text, end).end()  # type: ignore[union-attr]
        if text[index : index + 1] == ",":
            index = blank.match(text, index + 1).end()  # type: ignore[union-attr]
        elif text[index : index + 1] != "]":
            raise JsonError(
                f"is not JSON: a comma or the end of the list is missing at character {index + 1}"
            )


def _skip(pairs: Sequence[tuple[str, Any]]) -> None:
    """Objects are not built when only their end is looked for."""


def _what(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
