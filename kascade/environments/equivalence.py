"""Free answers judged against the expected one. Rows and rule: NeMo-Gym `equivalence_llm_judge`.

`lc_judge` is the same with long documents in the prompt (multi-document questions, AA-LCR).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from kascade.environments.base import Environment
from kascade.environments.bounded import RegexTimeout, find_all, pattern_fault
from kascade.environments.judging.equality import Pair, found_equal
from kascade.environments.judging.judge import JudgeError, UnreadableVerdict
from kascade.environments.options import PatternOptions
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.recipe.parts import Share
from kascade.task import Domain, Grade, Task, visible_answer


class EquivalenceOptions(PatternOptions):
    """NeMo-Gym's settings of this server, with its defaults."""

    partial_reward: Share = Field(
        0.5,
        description="for a right answer in which output_regex finds nothing "
        "[NeMo-Gym: reward_if_full_generation_succeeds]",
    )
    longest_extracted: PositiveInt = Field(
        120,
        description="characters of an expected answer up to which output_regex cuts answers out "
        "[NeMo-Gym: extraction_length_threshold]",
    )


class EquivalenceJudge(Environment):
    """An answer is right when the judge finds it equal to the expected one, in both orders of the two.

    Options: `partial_reward`, `longest_extracted`, `regex_seconds`.
    """

    name = "equivalence_llm_judge"
    domain: ClassVar[Domain] = "knowledge"
    options_type = EquivalenceOptions

    def needs_judge(self, *, rows: bool) -> bool:
        return True

    def pose(self, rng: random.Random, level: float) -> Task:
        raise ValueError(f"{self.name} reads rows: give the data source a `path`")

    def from_row(self, row: Mapping[str, Any]) -> Task:
        expected = row.get("expected_answer")
        if not isinstance(expected, str) or not expected.strip():
            raise ValueError("expected_answer: text is needed")
        pattern = _pattern(row.get("template_metadata"))
        messages = row_messages(row)
        question = row.get("question") or messages[-1]["content"]
        fields = {"question": question, "expected_answer": expected, "output_regex": pattern}
        fields |= self.graded_with
        return Task(self.name, self.domain, messages, fields, tools=row_tools(row))

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return self.grade_all([(task, answers)])[0]

    def grade_all(self, groups: Sequence[tuple[Task, Sequence[str]]]) -> list[list[Grade]]:
        """All groups at once, as many questions under way as the judge takes."""
        grades = iter(_judged([_case(task, answer) for task, answers in groups for answer in answers]))
        return [[next(grades) for _ in answers] for _, answers in groups]


class DocumentQuestions(EquivalenceJudge):
    """Questions that need several long documents, and a judge for the answer."""

    name = "lc_judge"
    domain: ClassVar[Domain] = "long_context"


def _pattern(template: Any) -> str | None:
    """The row's own pattern, if it has one. Raises ValueError where it cannot be used."""
    if template is not None and not isinstance(template, Mapping):
        raise ValueError("template_metadata: an object is needed")
    pattern = (template or {}).get("output_regex")
    if pattern is None:
        return None
    if fault := pattern_fault(pattern) if isinstance(pattern, str) else "is not text":
        raise ValueError(f"template_metadata.output_regex: {fault}")
    return str(pattern)


def _case(task: Task, answer: str) -> _Case | Grade:
    try:
        return _Case(task, answer)
    except RegexTimeout as error:
        return Grade.failed(f"template_metadata.output_regex: {error}")


class _Case:
    """One answer: what is judged, and what it earns when it is found equal."""

    def __init__(self, task: Task, answer: str) -> None:
        """Raises RegexTimeout."""
        fields, options = task.fields, EquivalenceOptions.of_task(task.fields)
        expected, whole = str(fields["expected_answer"]), visible_answer(task, answer)
        pattern = str(fields.get("output_regex") or "")
        by_pattern = bool(pattern) and len(expected) <= options.longest_extracted
        found = _found(pattern, whole, options.regex_seconds) if by_pattern else []
        given = next(filter(str.strip, [*found[-1][1:], found[-1][0]]), "").strip() if found else whole
        self.pair = Pair(str(fields["question"]), expected, given)
        self.reward = 1.0 if found or not by_pattern else options.partial_reward


def _found(pattern: str, text: str, seconds: float) -> list[list[str]]:
    return find_all(pattern, text, flags=re.DOTALL | re.MULTILINE, seconds=seconds)


def _judged(cases: Sequence[_Case | Grade]) -> list[Grade]:
    """Empty answers are wrong unasked; the others must be found equal in both orders."""
    asked = [case for case in cases if isinstance(case, _Case) and case.pair.given]
    verdicts = iter(found_equal([case.pair for case in asked]))
    return [
        case
        if isinstance(case, Grade)
        else _grade(next(verdicts), case.reward)
        if case.pair.given
        else Grade(0.0, {"equal": 0.0})
        for case in cases
    ]


def _grade(verdict: bool | JudgeError, reward: float) -> Grade:
    if isinstance(verdict, UnreadableVerdict):  # right answers are asked twice: masking would lower the mean
        return Grade(0.0, {"equal": 0.0, "unreadable_verdict": 1.0})
    if isinstance(verdict, JudgeError):
        return Grade.failed(str(verdict))
    return Grade(reward if verdict else 0.0, {"equal": float(verdict)})
