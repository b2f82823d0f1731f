"""Instruction following under IFBench's constraints. Rows: NeMo-Gym `ifbench`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from kascade.environments.instructions.environment import InstructionFollowing
from kascade.environments.small_world.sentences import sentence
from kascade.environments.small_world.words import ADJECTIVES, NOUNS
from kascade.task import Message, Task

Constraint = tuple[str, str, dict[str, Any], str]  # what is asked, id, arguments, a gold answer


def _numbers(rng: random.Random, topic: str) -> Constraint:
    count = rng.randint(1, 4)
    listed = " ".join(str(rng.randint(2, 99)) for _ in range(count))
    text = f"include exactly {count} numbers"
    return text, "count:numbers", {"N": count}, f"{sentence(rng, topic)} {listed}."


def _conjunctions(rng: random.Random, topic: str) -> Constraint:
    chosen = rng.sample(("and", "but", "or", "so", "yet"), rng.randint(2, 3))
    listed = " ".join(f"{word} the {rng.choice(NOUNS)}" for word in chosen)
    text = f"use at least {len(chosen)} conjunctions"
    return text, "count:conjunctions", {"small_n": len(chosen)}, f"the {topic} {listed}."


def _no_whitespace(rng: random.Random, topic: str) -> Constraint:
    gold = "-".join((rng.choice(ADJECTIVES), topic, rng.choice(NOUNS)))
    return "use no whitespace", "format:no_whitespace", {}, gold


def _lines(rng: random.Random, topic: str) -> Constraint:
    gold = "\n".join(sentence(rng, topic).split())
    return "write each word on a new line", "format:newline", {}, gold


def _title_case(rng: random.Random, topic: str) -> Constraint:
    return "use title case", "format:title_case", {}, sentence(rng, topic).title()


def _template(rng: random.Random, topic: str) -> Constraint:
    text = "use the template My Answer: My Conclusion: Future Outlook:"
    parts = zip(
        ("My Answer:", "My Conclusion:", "Future Outlook:"), (topic, *rng.sample(NOUNS, 2)), strict=True
    )
    return text, "format:output_template", {}, " ".join(f"{label} the {word}." for label, word in parts)


def _verb(rng: random.Random, topic: str) -> Constraint:
    gold = f"{rng.choice(('Find', 'Follow', 'Keep', 'Leave', 'See'))} the {topic}."
    return "start with a verb", "words:start_verb", {}, gold


CONSTRAINTS: tuple[Callable[[random.Random, str], Constraint], ...] = (
    _numbers,
    _conjunctions,
    _no_whitespace,
    _lines,
    _title_case,
    _template,
    _verb,
)


class IFBench(InstructionFollowing):
    """Write about a topic, naming it, under a constraint of IFBench; sometimes within a number of words."""

    name = "ifbench"
    default_mode = "fraction"

    def pose(self, rng: random.Random, level: float) -> Task:
        topic = rng.choice(NOUNS)
        text, instruction, arguments, gold = rng.choice(CONSTRAINTS)(rng, topic)
        asked = [text]
        chosen: list[tuple[str, dict[str, Any]]] = [
            ("keywords:existence", {"keywords": [topic]}),
            (instruction, arguments),
        ]
        if rng.random() < level:
            most = rng.randint(15, 20)
            asked.append(f"use 1 to {most} words")
            chosen.append(("count:word_count_range", {"min_words": 1, "max_words": most}))
        return Task(
            environment=self.name,
            domain="instruction_following",
            messages=(
                Message(role="user", content=f"Write about the {topic}, name it: {'; '.join(asked)}."),
            ),
            fields={
                "instruction_id_list": [name for name, _ in chosen],
                "kwargs": [kwargs for _, kwargs in chosen],
                "grading_mode": "binary",
            },
            reference=gold,
        )
