"""Chat: which of two answers is preferred. Rows and scales: NeMo-Gym `genrm_compare`.

The judge here is a rule of our own, open to read: a good answer speaks to the person, names the
matter, is polite, is a whole sentence, and does not ramble. An exam scores an answer by whether
the judge prefers it to a fixed, middling one. Demonstrations are of mixed quality, as people's are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from kascade.environments.base import Environment
from kascade.environments.judging.genrm import GenRM, against_baselines
from kascade.environments.judging.judge import current_judge
from kascade.environments.options import Options
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.environments.small_world.words import NAMES, NOUNS
from kascade.errors import Fault, UserError
from kascade.task import Grade, Message, Task, visible_answer

POLITE = ("please", "thank", "kind", "glad", "happy", "welcome")
REQUESTS = (
    "Greet {n} at the {m}.",
    "Thank {n} for the {m}.",
    "Ask {n} about the {m}.",
    "Invite {n} to the {m}.",
)
GOOD = (
    "Dear {n}, welcome to the {m}!",
    "Dear {n}, thank you for the {m}.",
    "Dear {n}, would you kindly say more about the {m}?",
    "Dear {n}, please come to the {m}!",
)
MIDDLING = ("Hello {n}.", "Thanks for the {m}.", "{n}, what about the {m}?", "{n}, come to the {m}.")
DEMONSTRATED_GOOD = 0.25  # share of demonstrations that show the preferred manner; the rest are middling
LONG = 16  # words an answer may have before it rambles


class ChatOptions(Options):
    """What generated tasks carry."""

    pairs: bool = Field(False, description="also a preference pair, as rows with `chosen` and `rejected` do")


class PairwiseChat(Environment):
    """A line to say to somebody; the preferred of two answers wins."""

    name = "genrm_compare"
    domain = "chat"
    options_type = ChatOptions

    def pose(self, rng: random.Random, level: float) -> Task:
        kind = rng.randrange(len(REQUESTS))
        name, matter = rng.choice(NAMES), rng.choice(NOUNS)
        more = (
            f" It is {rng.choice(('early', 'late', 'cold', 'warm'))} today." if rng.random() < level else ""
        )
        fill = {"n": name, "m": matter}
        good, middling = (answers[kind].format(**fill) for answers in (GOOD, MIDDLING))
        pair = {"chosen": good, "rejected": middling} if self.options.get("pairs") else {}
        return Task(
            environment=self.name,
            domain="chat",
            messages=(Message(role="user", content=REQUESTS[kind].format(**fill) + more),),
            fields={"name": name, "matter": matter, "baseline": middling, **pair},
            reference=good if rng.random() < DEMONSTRATED_GOOD else middling,
        )

    def needs_judge(self, *, rows: bool) -> bool:
        return rows

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """A conversation; `baseline` (an answer to beat) and `principle` are optional."""
        messages = row_messages(row)
        if messages[-1]["role"] != "user":
            raise ValueError("responses_create_params.input: must end with the user's turn")
        fields: dict[str, Any] = {"judged_by": "model"}
        for name in ("baseline", "principle"):
            value = row.get(name)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name}: text is needed")
            fields[name] = value
        return Task(self.name, self.domain, messages, fields, tools=row_tools(row))

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """1 when preferred to the baseline, 0.5 for a tie, 0 when the baseline is preferred.

        The baseline is the middling answer here, a row's `baseline` there, which the recipe's judge compares
        in both positions (Arena-Hard's protocol). No baseline or no verdict is an error.
        """
        return self.grade_all([(task, answers)])[0]

    def grade_all(self, groups: Sequence[tuple[Task, Sequence[str]]]) -> list[list[Grade]]:
        cases = [(task, answer) for task, answers in groups for answer in answers]
        by_model = [case for case in cases if case[0].fields.get("judged_by") == "model"]
        judged = iter(against_baselines(GenRM(current_judge()), by_model))
        return [
            [
                next(judged) if task.fields.get("judged_by") == "model" else self._grade(task, answer)
                for answer in answers
            ]
            for task, answers in groups
        ]

    def _grade(self, task: Task, answer: str) -> Grade:
        mine, other, _ = self.compare(task, answer, task.fields["baseline"])
        return Grade(0.5 if mine == other else float(mine > other), {"score": mine})

    def compare(self, task: Task, first: str, second: str) -> tuple[float, float, float]:
        """(score of first, score of second, ranking): scores 1 to 5; ranking 1 (first far better) to 6."""
        if task.fields.get("judged_by") == "model":
            what = "a row of genrm_compare has no rule to compare answers by"
            remedy = "set judge.kind: genrm, or reward_model with preference pairs, and name a `judge`"
            raise UserError(Fault(f"environment {self.name!r}", what, remedy=remedy))
        a, b = (quality(task, visible_answer(task, answer)) for answer in (first, second))
        return a, b, min(6.0, max(1.0, 3.5 - (a - b)))


def quality(task: Task, answer: str) -> float:
    """1 to 5: one point each for the person, the matter, politeness and a whole sentence; rambling costs."""
    said = answer.split()
    points = [
        task.fields["name"] in answer,
        task.fields["matter"] in answer,
        any(word in answer.lower() for word in POLITE),
        bool(answer) and answer[0].isupper() and answer[-1] in ".!?",
    ]
    rambling = max(0, len(said) - LONG) / 4 + (len(said) - len(set(said))) / 4
    return max(1.0, 1.0 + sum(points) - rambling)
