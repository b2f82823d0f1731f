"""Instruction following: answers under constraints that a program can check.

Rows: NeMo-Gym `instruction_following` (fields under `verifier_metadata` or at top level). The instructions
themselves are in `kascade.environments.instructions`.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kascade.environments.base import Environment
from kascade.environments.instructions import INSTRUCTIONS
from kascade.environments.instructions.generator import SHAPES, STYLES, Draft, _bullets, _quotation
from kascade.environments.rows.fields import one_of
from kascade.environments.rows.nemo_gym import row_messages, verifier_fields
from kascade.environments.small_world.words import NOUNS
from kascade.task import Grade, Message, Task, visible_answer

MODES = ("binary", "fraction")
STRICTNESS = ("strict", "loose")


class InstructionFollowing(Environment):
    """Write about a topic under one to three constraints."""

    name = "instruction_following"
    domain = "instruction_following"
    default_mode: ClassVar[str] = "binary"  # of rows that name none

    def pose(self, rng: random.Random, level: float) -> Task:
        draft = Draft(topic=rng.choice(NOUNS))
        chosen = [rng.choice(SHAPES)] if rng.random() < 0.7 else []
        num_styles = min(
            3 - len(chosen) - (_bullets in chosen),
            max(1 - len(chosen), round(level * 2 * rng.random() + 0.3)),
        )
        fitting = [style for style in STYLES if (_bullets, _quotation) != (*chosen, style)]
        chosen += rng.sample(fitting, num_styles)
        for constrain in chosen:
            constrain(draft, rng)
        asked = "; ".join(text for text, _, _ in draft.instructions)
        prompt = f"Write about the {draft.topic}: {asked}."
        return Task(
            environment=self.name,
            domain="instruction_following",
            messages=(Message(role="user", content=prompt),),
            fields={
                "instruction_id_list": [name for _, name, _ in draft.instructions],
                "kwargs": [kwargs for _, _, kwargs in draft.instructions],
                "grading_mode": "binary",
            },
            reference=draft.answer(rng),
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [grade_instructions(task.fields, visible_answer(task, answer)) for answer in answers]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        fields = verifier_fields(row)
        names, kwargs = fields.get("instruction_id_list"), fields.get("kwargs")
        mode = one_of("grading_mode", fields.get("grading_mode") or self.default_mode, MODES)
        strictness = one_of("strictness", fields.get("strictness") or "strict", STRICTNESS)
        if not isinstance(names, list) or not names:
            raise ValueError("instruction_id_list: a non-empty list of instruction ids is needed")
        if not isinstance(kwargs, list) or len(kwargs) != len(names):
            raise ValueError(f"kwargs: a list of {len(names)} entries is needed, one an instruction")
        clean = [_arguments(names[index], index, entry) for index, entry in enumerate(kwargs)]
        checked = {
            "instruction_id_list": names,
            "kwargs": clean,
            "grading_mode": mode,
            "strictness": strictness,
        }
        return Task(self.name, "instruction_following", row_messages(row), checked)


def _arguments(name: Any, index: int, entry: Any) -> dict[str, Any]:
    """The arguments of a row's instruction, without nulls: published rows write absent ones so."""
    if not isinstance(name, str) or name not in INSTRUCTIONS:
        near = difflib.get_close_matches(str(name), INSTRUCTIONS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"instruction_id_list: {name!r} is not known{hint}")
    if entry is not None and not isinstance(entry, Mapping):
        raise ValueError(f"kwargs[{index}]: an object or null is needed")
    arguments = {key: value for key, value in (entry or {}).items() if value is not None}
    fault = INSTRUCTIONS[name].fault(arguments)
    if fault:
        raise ValueError(f"kwargs[{index}].{fault}")
    return arguments


def loosened(answer: str) -> list[str]:
    """IFEval's loose readings: without the first line, the last, both; each with and without asterisks."""
    lines = answer.split("\n")
    cut = ("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))
    return [reading for text in (answer, *cut) for reading in (text, text.replace("*", ""))]


def grade_instructions(fields: Mapping[str, Any], answer: str) -> Grade:
    """Binary: all instructions followed. Fraction: the share followed. An empty answer follows none.

    strictness: "strict" takes the answer as it is; "loose" takes any of IFEval's loose readings.
    """
    readings = loosened(answer) if fields.get("strictness") == "loose" else [answer]
    followed: dict[str, float] = {}
    for index, (name, kwargs) in enumerate(zip(fields["instruction_id_list"], fields["kwargs"], strict=True)):
        try:
            follows = any(INSTRUCTIONS[name].follows(reading, kwargs) for reading in readings)
        except Exception as error:  # a check that fails is a fault of ours or of the row, not of the answer
            return Grade.failed(f"{name}: {type(error).__name__}: {error}")
        followed[f"{index}/{name}"] = float(follows)
    share = sum(followed.values()) / len(followed)
    return Grade(share if fields["grading_mode"] == "fraction" else float(share == 1), followed)
