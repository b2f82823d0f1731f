"""Long context: find values in a long listing. Rows and reward: NeMo-Gym `lc_niah`."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from kascade.environments.base import THINK_END, Environment, Grade, Message, Task, final_answer
from kascade.environments.rows import row_messages
from kascade.environments.words import NOUNS

SHORTEST, LONGEST = 6, 40  # pairs in a listing at level 0 and 1


class Retrieval(Environment):
    """Key-value pairs in a listing; the values of one or three keys are asked for, in order."""

    name = "lc_niah"
    domain = "long_context"

    def pose(self, rng: random.Random, level: float) -> Task:
        num_pairs = SHORTEST + round(level * (LONGEST - SHORTEST))
        pairs = {key: f"{rng.randint(10, 99)}" for key in rng.sample(NOUNS, num_pairs)}
        keys = rng.sample(list(pairs), 3 if rng.random() < level else 1)
        listing = ", ".join(f"{key} {value}" for key, value in pairs.items())
        question = f"What is {' and '.join(keys)}?"
        expected = " ".join(pairs[key] for key in keys)
        return Task(
            environment=self.name,
            domain="long_context",
            messages=(Message(role="user", content=f"{listing}. {question}"),),
            fields={"expected_answer": expected, "problem_type": f"recall-{len(keys)}", "question": question},
            reference=expected,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        prompt = task.messages[-1]["content"]
        return [self._grade(prompt, str(task.fields["expected_answer"]), answer) for answer in answers]

    @staticmethod
    def _grade(prompt: str, expected: str, answer: str) -> Grade:
        final = final_answer(answer)
        right = float(bool(final) and _values(final) == _values(expected))
        reasoning = answer.rpartition(THINK_END)[0].removeprefix("<think>").strip()
        overlap = copied_share(reasoning, prompt)
        return Grade(right * (1 - overlap), {"right": right, "overlap": overlap})

    def from_row(self, row: Mapping[str, Any]) -> Task:
        if not isinstance(row.get("expected_answer"), str):
            raise ValueError("expected_answer: text is needed")
        fields = {key: row.get(key) for key in ("expected_answer", "problem_type", "question")}
        return Task(self.name, "long_context", row_messages(row), fields)


def copied_share(reasoning: str, prompt: str) -> float:
    """Longest stretch of the reasoning that is copied from the prompt, as a share of the reasoning."""
    if not reasoning:
        return 0.0
    match = SequenceMatcher(None, reasoning, prompt, autojunk=False).find_longest_match()
    return match.size / len(reasoning)


def _values(text: str) -> list[str]:
    """What is listed: on the last line, inside the last brackets if any, split at commas and spaces."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    inside = re.findall(r"\[([^\[\]]*)\]", last)
    return [v for v in re.split(r"[,\s]+", inside[-1] if inside else last) if v and v != "and"]
