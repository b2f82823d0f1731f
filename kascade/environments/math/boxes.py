r"""The answer of a solution: what its last box holds, however TeX lets it be written."""

from __future__ import annotations

import re

from kascade.environments.math.looks import without_looks

LONGEST = 2000  # characters; a longer answer is no short answer, and not equal to one
MOST_BOXES = 20  # at the end of an answer, of which the last complete one counts
BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
# What a box without a brace takes: TeX's next token, and the digits or arguments that belong to it.
TOKEN = re.compile(r"[-+]?\d+(?:[.,]\d+)*(?:/\d+)?|\\[A-Za-z]+(?=([^A-Za-z]|$))|[A-Za-z]")
USUAL = "\\boxed{"
SPECIAL = re.compile(r"[\\{]")
END = re.compile(r"(?<!\\)[.,;:]+$")
DELIMITERS = ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$"))


def last_boxed(text: str) -> str | None:
    r"""What the last complete \boxed{...} (or \fbox) holds, braces inside included; \boxed 5 holds 5."""
    last = text.rfind("box")
    if last < 0:
        return None
    if text.startswith(USUAL, last - 1):  # the only form in most answers
        content = group(text, last - 1 + len(USUAL) - 1)
        if content is not None:
            return content.strip()
    boxes = list(BOX.finditer(text))[-MOST_BOXES:]
    for box in reversed(boxes):
        braced = text[box.end() : box.end() + 1] == "{"
        content = group(text, box.end()) if braced else _token(text, box.end())
        if content is not None:
            return content.strip()
    return None


def group(text: str, opening: int) -> str | None:
    """What stands between the brace at `opening` and its partner, of at most LONGEST characters."""
    first = text.find("}", opening)
    if 0 < first <= opening + LONGEST + 1 and not SPECIAL.search(text, opening + 1, first):
        return text[opening + 1 : first]
    depth, index = 0, opening
    end = min(len(text), opening + LONGEST + 2)
    while index < end:
        if text[index] == "\\":  # an escaped brace opens and closes nothing
            index += 2
            continue
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[opening + 1 : index]
        index += 1
    return None


def _token(text: str, start: int) -> str | None:
    found = TOKEN.match(text, start)
    if found is None:
        return None
    end = found.end()
    while found[0].startswith("\\") and text[end : end + 1] == "{":
        content = group(text, end)
        if content is None:
            break
        end += len(content) + 2
    return text[start:end]


def without_delimiters(text: str) -> str:
    r"""An answer without its \( \), \[ \] or $ $, a box around all of it, and a full stop at its end."""
    text = text.strip()
    if text.isalnum():
        return text
    text = END.sub("", without_looks(text))
    inner = group(text, 0) if text.startswith("{") else None
    if inner is not None and len(inner) + 2 == len(text):
        text = inner.strip()
    for opening, closing in DELIMITERS:
        if len(text) >= len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)].strip()
            return text if opening in inner else inner
    box = BOX.match(text)
    if box and text[box.end() : box.end() + 1] == "{":
        content = group(text, box.end())
        if content is not None and box.end() + len(content) + 2 == len(text):
            return content.strip()
    return text
