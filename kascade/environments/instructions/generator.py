"""Toy tasks of instruction following: short texts under constraints that a program can verify."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kascade.environments.small_world.sentences import exactly, sentence
from kascade.environments.small_world.words import NOUNS


@dataclass(slots=True)
class Draft:
    """A task in the making: what is asked so far, and how its gold answer must look."""

    topic: str
    must: list[str] = field(default_factory=list)
    count: int | None = None
    bullets: int = 1
    end: str | None = None
    lower: bool = False
    quoted: bool = False
    instructions: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)  # text, id, kwargs

    def answer(self, rng: random.Random) -> str:
        """A gold answer to everything asked."""
        if self.count is not None:
            text = exactly(rng, self.topic, self.count, tuple(self.must))
            text = text if self.lower else text[0].upper() + text[1:]
        elif self.bullets > 1:
            lines = [sentence(rng, self.topic, must=tuple(self.must), capital=not self.lower)]
            lines += [
                sentence(rng, rng.choice(NOUNS), capital=not self.lower) for _ in range(self.bullets - 1)
            ]
            text = "\n".join(f"- {line}" for line in lines)
        else:
            text = sentence(rng, self.topic, must=tuple(self.must), capital=not self.lower) + "."
        if self.end:
            text = f"{text.removesuffix('.')} {self.end}"
        return f'"{text}"' if self.quoted else text


def _words(draft: Draft, rng: random.Random) -> None:
    draft.count = rng.randint(5, 9)
    low, high = f"at least {draft.count} words", f"less than {draft.count + 1} words"
    number = "length_constraints:number_words"
    draft.instructions += [
        (f"use {low}", number, {"num_words": draft.count, "relation": "at least"}),
        (high, number, {"num_words": draft.count + 1, "relation": "less than"}),
    ]


def _keywords(draft: Draft, rng: random.Random) -> None:
    draft.must = rng.sample(NOUNS, rng.choice((1, 1, 2)))
    text = "include the word " + " and the word ".join(draft.must)
    draft.instructions.append((text, "keywords:existence", {"keywords": list(draft.must)}))


def _bullets(draft: Draft, rng: random.Random) -> None:
    draft.bullets = rng.choice((2, 3))
    draft.instructions.append(
        (
            f"give {draft.bullets} bullets",
            "detectable_format:number_bullet_lists",
            {"num_bullets": draft.bullets},
        )
    )


def _ending(draft: Draft, rng: random.Random) -> None:
    draft.end = rng.choice(("the end", "that is all", "good night"))
    draft.instructions.append((f"end with {draft.end}", "startend:end_checker", {"end_phrase": draft.end}))


def _lowercase(draft: Draft, rng: random.Random) -> None:
    draft.lower = True
    draft.instructions.append(("use only lowercase", "change_case:english_lowercase", {"any_language": True}))


def _quotation(draft: Draft, rng: random.Random) -> None:
    draft.quoted = True
    draft.instructions.append(("put it in quotes", "startend:quotation", {}))


Constraint = Callable[[Draft, random.Random], None]

SHAPES: tuple[Constraint, ...] = (_words, _bullets, _ending)  # at most one of these in a task

STYLES: tuple[Constraint, ...] = (_keywords, _lowercase, _quotation)
