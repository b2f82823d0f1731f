"""Long contexts of any length in tokens: RULER's kinds of tasks, graph walks, and RULER's own rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from kascade.data.shapes import is_blank
from kascade.environments.base import Environment
from kascade.environments.long_context.haystacks import KINDS, Haystack
from kascade.environments.long_context.retrieval import listed_f1
from kascade.environments.options import Options
from kascade.environments.rows.nemo_gym import row_messages
from kascade.task import Grade, Message, Task, visible_answer

ASK = 'End with one line "Final Answer: [...]" that lists what is asked for, separated by commas.'


class RulerOptions(Options):
    """What is generated. Levels of difficulty are lengths."""

    kinds: tuple[str, ...] = Field(tuple(KINDS), strict=False, description=f"of {', '.join(KINDS)}")
    length: PositiveInt = Field(4096, description="tokens of the prompt at level 1")
    shortest: PositiveInt = Field(512, description="tokens of the prompt at level 0")
    tokens_per_word: PositiveFloat = Field(
        1.5, description="without a tokenizer: these texts in common ones, with a margin"
    )
    tokenizer: str | None = Field(None, description="a tokenizer.json, or its folder, that counts exactly")


class Ruler(Environment):
    """Something to find in a long text; the values must be listed, all of them and no others.

    Options: those of `RulerOptions`; a single kind may stand alone, and `shortest` is no more than `length`.
    """

    name = "ruler"
    domain = "long_context"
    options_type = RulerOptions

    def with_options(self, options: Mapping[str, Any]) -> Ruler:
        given = dict(options)
        if isinstance(given.get("kinds"), str):
            given["kinds"] = [given["kinds"]]
        length, usual = given.get("length"), RulerOptions().shortest
        if "shortest" not in given and type(length) is int and 0 < length < usual:
            given["shortest"] = length
        return super().with_options(given)

    def check_options(self, options: Mapping[str, Any]) -> None:
        shape = RulerOptions.of(options)
        if wrong := [kind for kind in shape.kinds if kind not in KINDS] or not shape.kinds:
            raise ValueError(f"options.kinds: {wrong or 'none'} is not of {', '.join(KINDS)}")
        if shape.shortest > shape.length:
            raise ValueError(f"options.length: {shape.length} is below shortest, {shape.shortest}")
        _counter(shape)  # tells at once when the tokenizer is not there

    @property
    def shape(self) -> RulerOptions:
        return RulerOptions.of(self.options)

    def pose(self, rng: random.Random, level: float) -> Task:
        shape = self.shape
        kind, seed = rng.choice(shape.kinds), rng.getrandbits(64)
        tokens = round(shape.shortest + level * (shape.length - shape.shortest))
        found = fitted(kind, seed, tokens, _counter(shape))
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=(Message(role="user", content=_prompt(found)),),
            fields={"expected_values": list(found.expected), "metric": "f1", "problem_type": kind},
            reference=f"Final Answer: [{', '.join(found.expected)}]",
        )

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """A row with `expected_values`; `metric`: all (RULER's share of texts found), any (its QA), f1."""
        expected = row.get("expected_values")
        if not isinstance(expected, list) or not expected:
            raise ValueError("expected_values: a non-empty list of texts is needed")
        for index, one in enumerate(expected):
            if isinstance(one, bool) or not isinstance(one, str | int | float) or is_blank(str(one)):
                raise ValueError(f"expected_values[{index}]: {one!r} is no text to look for")
        metric = row.get("metric") or ("any" if str(row.get("task", "")).startswith("qa") else "all")
        if not isinstance(metric, str) or metric not in METRICS:
            raise ValueError(f"metric: {metric!r} is not one of {', '.join(METRICS)}")
        fields = {"expected_values": [str(one) for one in expected], "metric": metric}
        return Task(self.name, self.domain, row_messages(row), fields)

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        score = METRICS[task.fields["metric"]]
        expected = list(task.fields["expected_values"])
        return [Grade(score(expected, visible_answer(task, answer))) for answer in answers]


def fitted(kind: str, seed: int, tokens: int, count: Callable[[str], int]) -> Haystack:
    """The largest haystack whose prompt has at most `tokens` tokens (or the smallest there is)."""

    def made(size: int) -> Haystack:
        return KINDS[kind](random.Random(f"{kind}/{seed}"), size)

    def fits(size: int) -> bool:
        return count(_prompt(made(size))) <= tokens

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return made(low)


def _prompt(found: Haystack) -> str:
    return f"{found.text}\n\n{found.question}\n{ASK}"


@cache
def _counter(shape: RulerOptions) -> Callable[[str], int]:
    if shape.tokenizer is None:
        return lambda text: round(len(text.split()) * shape.tokens_per_word)
    from tokenizers import Tokenizer

    path = Path(shape.tokenizer)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"options.tokenizer: there is no {file}")
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def share_found(expected: Sequence[str], answer: str) -> float:
    """RULER's string_match_all: the share of the expected texts that the answer holds."""
    return sum(one.casefold() in answer.casefold() for one in expected) / len(expected)


def any_found(expected: Sequence[str], answer: str) -> float:
    """RULER's string_match_part, for questions with several right answers."""
    return float(any(one.casefold() in answer.casefold() for one in expected))


METRICS: dict[str, Callable[[Sequence[str], str], float]] = {
    "f1": listed_f1,
    "all": share_found,
    "any": any_found,
}
