"""Choosing the right of several patches: NeMo-Gym's `swerl_llm_judge`, and choices of our own."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from kascade.environments.base import Environment
from kascade.environments.rows.nemo_gym import row_messages
from kascade.environments.small_world.programs import behaviour, candidate_inputs, slips
from kascade.environments.software_engineering.diffs import diff_of
from kascade.environments.software_engineering.generator import KINDS
from kascade.task import Domain, Grade, Task, visible_answer

Grading = Literal["strict", "lenient"]
STRICT = re.compile(r"<solution>\s*\[?([A-Za-z])\]?\s*</solution>")
BLOCK = re.compile(r"<solution>\s*(.*?)\s*</solution>", re.DOTALL | re.IGNORECASE)
LETTER = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")


class PatchChoice(Environment):
    """One letter in `<solution>`; strict takes nothing else there, lenient the first letter on its own.

    Two different letters in an answer are no choice: the last block alone would let a policy list them all.
    """

    name = "swerl_llm_judge"
    domain: ClassVar[Domain] = "software_engineering"

    def pose(self, rng: random.Random, level: float) -> Task:
        """A function with a slip, and two patches (up to four at level 1), one of them right."""
        while True:
            program = rng.choice(KINDS)(rng, rng.choice("fgh"))
            pool = candidate_inputs(rng, program)
            right = behaviour(program, pool)
            wrong = [slip for slip in slips(program) if behaviour(slip, pool) != right]
            count = 2 + round(2 * level)
            if len(wrong) >= count:
                break
        broken, *others = rng.sample(wrong, count)
        file = f"{program.name}.py"
        options = [program, *others]
        rng.shuffle(options)
        letters = "ABCDEFGH"[: len(options)]
        patches = [diff_of({file: broken.source + "\n"}, {file: option.source + "\n"}) for option in options]
        shown = [f"{letter}:\n{patch}" for letter, patch in zip(letters, patches, strict=True)]
        listed = "\n\n".join(shown)
        wish = f"{program.name} should {program.intent}.\n\n{broken.source}\n\nWhich patch repairs it?"
        prompt = f"{wish}\n\n{listed}\n\nEnd with <solution>LETTER</solution>."
        answer = letters[options.index(program)]
        fields = {
            "options": [{letter: patch} for letter, patch in zip(letters, patches, strict=True)],
            "expected_answer": answer,
            "grading_mode": "strict",
        }
        message: Any = {"role": "user", "content": prompt}
        return Task(self.name, self.domain, (message,), fields, f"<solution>{answer}</solution>")

    def from_row(self, row: Mapping[str, Any]) -> Task:
        options, expected = row.get("options"), row.get("expected_answer")
        letters = _letters(options)
        if not letters:
            raise ValueError("options: a list of {letter: patch} is needed")
        if twice := next((letter for letter in letters if letters.count(letter) > 1), None):
            raise ValueError(f"options.{twice}: two options have this letter; give each one of its own")
        golds = [expected] if isinstance(expected, str) else expected
        known = isinstance(golds, list) and all(str(gold).strip().upper() in letters for gold in golds)
        if not golds or not known:
            raise ValueError(f"expected_answer: {expected!r} is not among the options {', '.join(letters)}")
        mode = row.get("grading_mode", "lenient")
        if mode not in ("strict", "lenient"):
            raise ValueError(f"grading_mode: {mode!r} is not one of strict, lenient")
        fields = {"options": options, "expected_answer": expected, "grading_mode": mode}
        reference = f"<solution>{str(golds[0]).strip().upper()}</solution>"
        return Task(self.name, self.domain, row_messages(row), fields, reference)

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        letters, expected = _letters(task.fields["options"]), task.fields["expected_answer"]
        golds = {str(g).strip().upper() for g in ([expected] if isinstance(expected, str) else expected)}
        right, mode = golds.intersection(letters), task.fields["grading_mode"]
        return [Grade(float(choice(visible_answer(task, answer), mode) in right)) for answer in answers]


def _letters(options: Any) -> list[str]:
    if not isinstance(options, list):
        return []
    keys = [str(key).upper() for option in options if isinstance(option, Mapping) for key in option]
    return [key for key in keys if len(key) == 1 and key.isalpha()]


def choice(text: str, mode: Grading) -> str | None:
    """The letter that an answer chooses; None when it chooses none, or more than one."""
    if mode == "strict":
        found = {letter.upper() for letter in STRICT.findall(text)}
    else:
        blocks = [LETTER.search(block) for block in BLOCK.findall(text)]
        found = {match[0].upper() for match in blocks if match}
    return found.pop() if len(found) == 1 else None
