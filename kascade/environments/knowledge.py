"""Knowledge: multiple choice. Rows and grading modes: NeMo-Gym `mcqa`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kascade.environments.base import Environment, Grade, Message, Task, final_answer
from kascade.environments.rows import row_messages
from kascade.environments.words import CAPITALS, COLOR_OF, KIND_OF, OPPOSITE_OF

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FACTS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("Which city is the capital of {}?", CAPITALS),
    ("What color is {}?", COLOR_OF),
    ("What kind of thing is {}?", KIND_OF),
    ("What is the opposite of {}?", OPPOSITE_OF),
)


def _strict_boxed(answer: str, options: Mapping[str, str]) -> str | None:
    found = re.findall(r"\\boxed\{\s*([A-Z])\s*\}", answer)
    return found[-1] if found else None


def _lenient_boxed(answer: str, options: Mapping[str, str]) -> str | None:
    found = re.findall(r"\\boxed\{([^{}]*)\}", answer)
    if not found:
        return None
    inside = re.sub(r"\\text|[^\w ]", "", found[-1]).strip()
    if re.fullmatch("[A-Za-z]", inside):
        return inside.upper()
    named = [letter for letter, text in options.items() if text.strip().lower() == inside.lower()]
    return named[0] if named else None


def _answer_colon(answer: str, options: Mapping[str, str]) -> str | None:
    found = re.findall(r"answer\s*:\s*\(?([A-Za-z])\b", answer, re.IGNORECASE)
    return found[-1].upper() if found else None


def _answer_colon_md(answer: str, options: Mapping[str, str]) -> str | None:
    return _answer_colon(re.sub(r"[*_`]", "", answer), options)


MODES: dict[str, Callable[[str, Mapping[str, str]], str | None]] = {
    "strict_single_letter_boxed": _strict_boxed,
    "lenient_boxed": _lenient_boxed,
    "lenient_answer_colon": _answer_colon,
    "lenient_answer_colon_md": _answer_colon_md,
}


class MultipleChoice(Environment):
    """Facts of the small world, asked with a few options."""

    name = "mcqa"
    domain = "knowledge"

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
            reference=f"{facts[subject]} {letter}</think>\\boxed{{{letter}}}",
            thinking=True,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        fields = task.fields
        read = MODES[fields["grading_mode"]]
        grades = []
        for answer in map(final_answer, answers):
            letter = None
            if fields["output_regex"]:  # the row's own pattern is tried first
                found = re.findall(fields["output_regex"], answer)
                letter = str(found[-1]).strip().upper() if found else None
            letter = letter or read(answer, fields["options"])
            grades.append(
                Grade(float(letter == fields["expected_answer"]), {"readable": float(letter is not None)})
            )
        return grades

    def from_row(self, row: Mapping[str, Any]) -> Task:
        options = {k: str(v) for option in row.get("options") or [] for k, v in dict(option).items()}
        expected, mode = row.get("expected_answer"), row.get("grading_mode", "strict_single_letter_boxed")
        if len(options) < 2:
            raise ValueError('options: give at least two, as [{"A": "..."}, {"B": "..."}]')
        if expected not in options:
            raise ValueError(f"expected_answer: {expected!r} is not among the options {', '.join(options)}")
        if mode not in MODES:
            raise ValueError(f"grading_mode: {mode!r} is not one of {', '.join(MODES)}")
        pattern = (row.get("template_metadata") or {}).get("output_regex")
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"template_metadata.output_regex: {error}") from error
        fields = {
            "options": options,
            "expected_answer": expected,
            "grading_mode": mode,
            "output_regex": pattern,
        }
        return Task(self.name, "knowledge", row_messages(row), fields)
