"""Knowledge: multiple choice. Rows and grading modes: NeMo-Gym `mcqa`."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from kascade.environments.base import Environment
from kascade.environments.bounded import RegexTimeout, find_all, pattern_fault
from kascade.environments.long_context.copying import normalized
from kascade.environments.math.boxes import last_boxed
from kascade.environments.options import PatternOptions
from kascade.environments.rows.fields import one_of
from kascade.environments.rows.nemo_gym import row_messages
from kascade.environments.small_world.words import CAPITALS, COLOR_OF, KIND_OF, OPPOSITE_OF
from kascade.task import Grade, Message, Task, visible_answer

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FACTS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("Which city is the capital of {}?", CAPITALS),
    ("What color is {}?", COLOR_OF),
    ("What kind of thing is {}?", KIND_OF),
    ("What is the opposite of {}?", OPPOSITE_OF),
)


LETTER_ONLY = re.compile(r"[^A-Za-z]*([A-Z])[^A-Za-z]*")  # "E", "[C]", "(B)"
LETTER_LABEL = re.compile(r"\s*([A-Z])\s*[:).\-]")  # "E: the text", "C) the text"
ANSWER_COLON = re.compile(r"answer\s*:\s*(.+)", re.IGNORECASE)
MARKED_ANSWER_COLON = re.compile(r"[*_]{0,2}Answer[*_]{0,2}\s*:[*_\s]{0,2}(.+)", re.IGNORECASE)
LISTED = re.compile(r"\s*[/|&,;]\s*|\s+(?:or|and)\s+|\s+", re.IGNORECASE)  # between choices of a list
LONE_LETTER = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
# Option letters of Arabic and Bengali exams; full-width ones become plain by normalisation.
FOREIGN = str.maketrans(dict(zip("أبجدঅবডঢ", "ABCDABCD", strict=True)))

Options = Mapping[str, str]


def _unwrapped(text: str) -> str:
    r"""Without \text{...} around it."""
    text = text.strip()
    while text.startswith(r"\text{") and text.endswith("}"):
        text = text[len(r"\text{") : -1].strip()
    return text


def _named(text: str, options: Options) -> str | None:
    """The letter of the option with this text."""
    return next(
        (letter for letter, option in options.items() if normalized(option) == normalized(text)), None
    )


def _strict_boxed(answer: str, options: Options) -> str | None:
    """The letter in the last box: alone, or before its option's text."""
    box = _unwrapped(last_boxed(answer) or "")
    found = LETTER_ONLY.fullmatch(box) or LETTER_LABEL.match(box)
    return found[1] if found and found[1] in options else None


def _lenient_boxed(answer: str, options: Options) -> str | None:
    """As strict, or the only option whose text the last box holds."""
    letter = _strict_boxed(answer, options)
    if letter:
        return letter
    box = normalized(last_boxed(answer) or "")
    held = [letter for letter, option in options.items() if normalized(option) and normalized(option) in box]
    return held[0] if len(held) == 1 else None


def _answer_colon(answer: str, options: Options) -> str | None:
    """After the last "Answer:" a letter of any case or an option's text, and nothing else in the line."""
    found = ANSWER_COLON.findall(answer)
    candidate = _unwrapped(found[-1]) if found else ""
    return candidate.upper() if candidate.upper() in options else _named(candidate, options)


def _answer_colon_md(answer: str, options: Options) -> str | None:
    """After the last "Answer:" that can be read, Markdown around it or not, one letter."""
    for payload in reversed(MARKED_ANSWER_COLON.findall(answer)):
        letter = _choice(payload, options)
        if letter:
            return letter
    return None


def _choice(payload: str, options: Options) -> str | None:
    """The letter that a text opens with, or its last lone capital; none where it lists several."""
    text = _plain_letters(payload).strip().strip("*_` \t\n\r.,;:")
    letters = [found for found in LONE_LETTER.finditer(text) if found[0].upper() in options]
    for first, second in pairwise(letters):
        between = text[first.end() : second.start()]
        if first[0].upper() != second[0].upper() and LISTED.fullmatch(between):
            return None
    if re.match(r"[A-Za-z](?![A-Za-z0-9])", text):
        chosen = text[0].upper()
    else:
        capitals = re.findall(r"\b[A-Z]\b", text)
        chosen = capitals[-1] if capitals else ""
    return chosen if chosen in options else None


def _plain_letters(text: str) -> str:
    """Full-width and foreign option letters as plain ones."""
    return unicodedata.normalize("NFKC", text).translate(FOREIGN)


def _by_pattern(patterns: Sequence[str], answer: str, options: Options, seconds: float) -> str | None:
    """What the last match of the row's own pattern captures: a letter or an option's text.

    Raises RegexTimeout.
    """
    for pattern in patterns:
        found = find_all(pattern, answer, flags=re.IGNORECASE, seconds=seconds)
        if not found:
            continue
        whole, *groups = found[-1]
        captured = _plain_letters(next(filter(None, groups), whole)).strip()
        if len(captured) == 1 and captured.isalpha():
            return captured.upper()
        named = _named(captured, options)
        if named:
            return named
    return None


MODES: dict[str, Callable[[str, Options], str | None]] = {
    "strict_single_letter_boxed": _strict_boxed,
    "lenient_boxed": _lenient_boxed,
    "lenient_answer_colon": _answer_colon,
    "lenient_answer_colon_md": _answer_colon_md,
}


def scanned(fact: str, options: Mapping[str, str]) -> str:
    """The fact, then the options read aloud up to the one that states it: what a small model can follow."""
    read = [f"{fact}:"]
    for letter, text in options.items():
        read += [letter, text]
        if text == fact:
            break
    return " ".join(read)


class MultipleChoice(Environment):
    """Facts of the small world, asked with a few options. Option: `regex_seconds` of a row's own pattern."""

    name = "mcqa"
    domain = "knowledge"
    options_type = PatternOptions

    def gold(self, task: Task) -> str | None:
        letter, mode = task.fields["expected_answer"], task.fields.get("grading_mode", "")
        pattern = task.fields.get("output_regex")
        if pattern and "boxed" not in pattern:
            return None  # a pattern cannot be run backwards
        return f"Answer: {letter}" if "colon" in mode else f"\\boxed{{{letter}}}"

    def pose(self, rng: random.Random, level: float) -> Task:
        question, facts = rng.choice(FACTS)
        subject = rng.choice(list(facts))
        others = sorted(set(facts.values()) - {facts[subject]})
        num_wrong = min(2 + int(level * 3), len(others))
        texts = [facts[subject], *rng.sample(others, num_wrong)]
        rng.shuffle(texts)
        options = dict(zip(LETTERS, texts, strict=False))
        letter = next(key for key, text in options.items() if text == facts[subject])
        asked = question.format(subject) + "".join(f"\n{key}: {text}" for key, text in options.items())
        return Task(
            environment=self.name,
            domain="knowledge",
            messages=(Message(role="user", content=asked),),
            fields={
                "options": options,
                "expected_answer": letter,
                "grading_mode": "strict_single_letter_boxed",
                "output_regex": None,
            },
            reference=f"{scanned(facts[subject], options)}</think>\\boxed{{{letter}}}",
            thinking=True,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [_grade(task.fields, visible_answer(task, answer)) for answer in answers]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        options = _options(row.get("options"))
        expected = str(row.get("expected_answer") or "").strip().upper()
        mode = one_of("grading_mode", row.get("grading_mode") or "strict_single_letter_boxed", MODES)
        template = row.get("template_metadata") or {}
        if not isinstance(template, Mapping):
            raise ValueError("template_metadata: an object is needed")
        own = template.get("output_regex")
        _patterns(own)
        if len(options) < 2:
            raise ValueError('options: give at least two, as [{"A": "..."}, {"B": "..."}]')
        if expected not in options:
            raise ValueError(f"expected_answer: {expected!r} is not among the options {', '.join(options)}")
        fields = {
            "options": options,
            "expected_answer": expected,
            "grading_mode": mode,
            "output_regex": own,
            **self.graded_with,
        }
        return Task(self.name, "knowledge", row_messages(row), fields)


def _grade(fields: Mapping[str, Any], answer: str) -> Grade:
    """1 for the expected letter: by the row's own pattern where it finds one, else by the grading mode."""
    options = fields["options"]
    try:
        seconds = PatternOptions.of_task(fields).regex_seconds
        letter = _by_pattern(_patterns(fields["output_regex"]), answer, options, seconds)
    except RegexTimeout as error:
        return Grade.failed(f"template_metadata.output_regex: {error}")
    letter = letter or MODES[fields["grading_mode"]](answer, options)
    return Grade(float(letter == fields["expected_answer"]), {"readable": float(letter is not None)})


def _options(value: Any) -> dict[str, str]:
    """Letter → text, from a list of objects or one object; options without a text are left out."""
    entries = [value] if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError('options: give them as [{"A": "..."}, {"B": "..."}]')
    options: dict[str, str] = {}
    for key, text in ((str(key).upper(), text) for entry in entries for key, text in entry.items()):
        if text is None:
            continue
        if isinstance(text, list | dict):
            raise ValueError(f"options.{key}: is a {type(text).__name__}; text is needed")
        if key in options:
            raise ValueError(f"options.{key}: two options have this letter, and one of them would be lost")
        options[key] = str(text)
    return options


def _patterns(value: Any) -> list[str]:
    """The row's own patterns; one may stand alone. Raises ValueError where one cannot be used."""
    patterns = [value] if isinstance(value, str) else value or []
    if not isinstance(patterns, list):
        raise ValueError("template_metadata.output_regex: a pattern or a list of them is needed")
    for pattern in patterns:
        fault = pattern_fault(pattern) if isinstance(pattern, str) else "is not text"
        if fault:
            raise ValueError(f"template_metadata.output_regex: {fault}")
    return list(patterns)
