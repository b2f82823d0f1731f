"""Chat: which of two answers is preferred. Rows and scales: NeMo-Gym `genrm_compare`.

The judge here is a rule of our own, open to read: a good answer speaks to the person, names the
matter, is polite, is a whole sentence, and does not ramble. An exam scores an answer by whether
the judge prefers it to a fixed, middling one. Demonstrations are of mixed quality, as people's are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from kascade.environments.base import Environment, Grade, Message, Task, final_answer
from kascade.environments.words import NAMES, NOUNS

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


class PairwiseChat(Environment):
    """A line to say to somebody; the preferred of two answers wins."""

    name = "genrm_compare"
    domain = "chat"

    def pose(self, rng: random.Random, level: float) -> Task:
        kind = rng.randrange(len(REQUESTS))
        name, matter = rng.choice(NAMES), rng.choice(NOUNS)
        more = (
            f" It is {rng.choice(('early', 'late', 'cold', 'warm'))} today." if rng.random() < level else ""
        )
        fill = {"n": name, "m": matter}
        return Task(
            environment=self.name,
            domain="chat",
            messages=(Message(role="user", content=REQUESTS[kind].format(**fill) + more),),
            fields={"name": name, "matter": matter, "baseline": MIDDLING[kind].format(**fill)},
            reference=(GOOD if rng.random() < DEMONSTRATED_GOOD else MIDDLING)[kind].format(**fill),
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """1 when preferred to the middling answer, 0.5 for a tie, 0 when the other is preferred."""
        return [self._grade(task, answer) for answer in answers]

    def _grade(self, task: Task, answer: str) -> Grade:
        mine, other, _ = self.compare(task, answer, task.fields["baseline"])
        return Grade(0.5 if mine == other else float(mine > other), {"score": mine})

    def compare(self, task: Task, first: str, second: str) -> tuple[float, float, float]:
        """(score of first, score of second, ranking): scores 1 to 5; ranking 1 (first far better) to 6."""
        a, b = (quality(task, final_answer(answer)) for answer in (first, second))
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
