"""Conversations to imitate, and preference pairs to learn a judge from: rows without a grader."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from kascade.environments.base import Environment
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.task import Grade, Task, final_answer, visible_answer


class Demonstrations(Environment):
    """What SFT learns from OpenAI-style `messages`. An answer is right when it says what the row says."""

    name = "demonstrations"
    domain = "chat"

    def pose(self, rng: random.Random, level: float) -> Task:
        raise ValueError("demonstrations are read from rows: give the data source a `path`")

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """1 for the reference's words (thinking and spacing aside), else 0; an error where there is none."""
        if task.reference is None:
            return [Grade.failed("the row has no answer to compare with") for _ in answers]
        wanted = final_answer(task.reference).split()
        return [
            Grade(float(bool(wanted) and visible_answer(task, answer).split() == wanted))
            for answer in answers
        ]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        task = Task(self.name, self.domain, row_messages(row), {}, tools=row_tools(row))
        if row.get("reference") is None and row.get("chosen") is None:
            raise ValueError(
                "reference: missing, so there is nothing to learn; end the messages with the assistant's turn"
            )
        return task
