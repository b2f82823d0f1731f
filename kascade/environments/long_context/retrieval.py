"""Long context: find values in a long listing. Rows and reward: NeMo-Gym `lc_niah`."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from kascade.data.shapes import is_blank
from kascade.environments.base import Environment
from kascade.environments.long_context.copying import METRICS, normalized
from kascade.environments.options import Options
from kascade.environments.rows.nemo_gym import row_messages
from kascade.environments.small_world.words import NOUNS
from kascade.task import THINK_END, THINK_START, Grade, Message, Task, visible_answer

SHORTEST, LONGEST = 6, 40  # pairs in a listing at level 0 and 1
LISTED = re.compile(r"Final Answer:\s*\[(.*)\]", re.IGNORECASE)  # as NeMo-Gym: Markdown around it or not
COMBINED: dict[str, Callable[[float, float], float]] = {
    "base": lambda score, overlap: score,
    "multiply": lambda score, overlap: score * (1 - overlap),
    "minus": lambda score, overlap: score - overlap,
}


class RetrievalOptions(Options):
    """How copying the context into the reasoning is held against an answer: NeMo-Gym's names and defaults."""

    overlap_metric_rule: Literal["lcs", "ngram16", "seq_match"] = Field(
        "lcs",
        description="of reasoning and prompt; lcs: longest common substring / reasoning; ngram16: share of "
        "the reasoning's 16-word runs; seq_match: difflib's ratio [NeMo-Gym lc_niah]",
    )
    overlap_grading_rule: Literal["multiply", "minus", "base"] = Field(
        "multiply",
        description="multiply: score (1 - overlap); minus: score - overlap, which may fall below 0; base: "
        "score [NeMo-Gym lc_niah]",
    )


class Retrieval(Environment):
    """Key-value pairs in a listing; the values of one or three keys are asked for, in order.

    Rows whose expected answer is a list are graded by F1 of the list on the last line
    ("Final Answer: [...]").
    Options: `overlap_metric_rule`, `overlap_grading_rule`.
    """

    name = "lc_niah"
    domain = "long_context"
    options_type = RetrievalOptions

    def gold(self, task: Task) -> str | None:
        expected = str(task.fields["expected_answer"])
        return f"Final Answer: {expected}" if expected.startswith("[") else expected

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
            fields={
                "expected_answer": expected,
                "problem_type": f"recall-{len(keys)}",
                "question": question,
                **self.graded_with,
            },
            reference=expected,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        prompt = normalized("\n".join(message["content"] for message in task.messages))
        return [self._grade(task, prompt, answer) for answer in answers]

    @staticmethod
    def _grade(task: Task, prompt: str, answer: str) -> Grade:
        options = RetrievalOptions.of_task(task.fields)
        expected, given = str(task.fields["expected_answer"]), visible_answer(task, answer)
        nodes = expected_list(expected)
        if nodes is not None:
            score = listed_f1(nodes, given)
        else:
            score = float(bool(given) and _values(given) == _values(expected))
        reasoning = answer.rpartition(THINK_END)[0].removeprefix(THINK_START)
        overlap = METRICS[options.overlap_metric_rule](normalized(reasoning), prompt)
        reward = COMBINED[options.overlap_grading_rule](score, overlap)
        return Grade(reward, {"answer_score": score, "overlap": overlap})

    def from_row(self, row: Mapping[str, Any]) -> Task:
        if not isinstance(expected := row.get("expected_answer"), str) or is_blank(expected):
            raise ValueError("expected_answer: text is needed; an empty list is written []")
        fields = {key: row.get(key) for key in ("expected_answer", "problem_type", "question")}
        return Task(self.name, "long_context", row_messages(row), {**fields, **self.graded_with})


def expected_list(text: str) -> list[str] | None:
    """The values of an expected answer that is a JSON list, as rows have it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [str(value) for value in found] if isinstance(found, list) else None


def listed_f1(expected: Sequence[str], answer: str) -> float:
    """F1 of the values on the last line, which must be the list; an empty list answers an empty set."""
    lines = [line for line in answer.splitlines() if line.strip()]
    match = LISTED.search(lines[-1]) if lines else None
    if match is None:
        return 0.0
    given = {value.strip().strip("\"'").casefold() for value in match[1].split(",")} - {""}
    wanted = {value.casefold() for value in expected}
    if not given and not wanted:
        return 1.0
    return 2 * len(given & wanted) / (len(given) + len(wanted))


def _values(text: str) -> list[str]:
    """What is listed: on the last line, inside the last brackets if any, split at commas and spaces."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    inside = re.findall(r"\[([^\[\]]*)\]", last)
    return [v for v in re.split(r"[,\s]+", inside[-1] if inside else last) if v and v != "and"]
