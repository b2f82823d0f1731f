"""Procedural reasoning tasks: any generator of the reasoning-gym library, graded by its own scorer.

Rows and the reading of answers: NeMo-Gym `reasoning_gym`. Difficulty: the library's own curricula. Some of
its scorers evaluate the answer as Python; those are only shown answers that a strict grammar admits.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from kascade.environments.base import Environment
from kascade.environments.rows.nemo_gym import row_messages
from kascade.task import Grade, Message, Task, visible_answer

ASK = "\n\nGive the final answer between <answer> and </answer>."
MOST = 2**31 - 1  # tasks of one generator and level that an index can choose from
STEPS = 10  # levels in [0, 1] are rounded to tenths, so that generators can be kept
LONGEST, LONGEST_EVALUATED = 200_000, 2_000  # characters of an answer that a scorer is shown
DEFAULT = ("chain_sum", "knights_knaves", "number_sorting", "word_sorting", "calendar_arithmetic")

# Scorers that call eval() on the answer, and fields of rows that are evaluated: literals only.
LITERAL_ANSWERS = frozenset({"string_insertion", "spiral_matrix", "binary_matrix", "n_queens"})
# Scorers that call sympy's parse_expr(), which evaluates, on the answer: arithmetic only.
EXPRESSION_ANSWERS = frozenset(
    {"puzzle24", "countdown", "polynomial_multiplication", "simple_integration", "intermediate_integration"}
)
# Names, numbers, + - * /, brackets, small powers; no other dots, commas, underscores, or chained powers.
_NAME = r"(?:sin|cos|tan|exp|log|ln|sqrt|asin|acos|atan|pi|[A-Za-z])(?![A-Za-z0-9_])"
_EXPRESSION = re.compile(
    rf"(?:{_NAME}|\d{{1,15}}(?:\.\d{{1,15}})?|\*\*\s*\d{{1,2}}(?![\d.])(?!\s*\*\*)|[-+/()\s]|\*(?!\*))+"
)
_BITS = re.compile(r"[0-9a-fA-FxX\s()&|^~+*-]+|<<|>>")
MOST_GROUP_POWERS = 2  # of whole brackets: towers of them could not be worked out


class ReasoningGym(Environment):
    """Tasks of one or several generators by name (option `dataset`), with a level on their curricula."""

    name = "reasoning_gym"
    domain = "math"

    def __init__(self, datasets: Sequence[str] = DEFAULT) -> None:
        self.datasets = tuple(datasets)

    def with_options(self, options: Mapping[str, Any]) -> ReasoningGym:
        """`dataset`: a generator's name, or a list of them."""
        if unknown := [name for name in options if name != "dataset"]:
            raise ValueError(f"{unknown[0]}: there is no such option; there is `dataset`")
        chosen = options.get("dataset", list(DEFAULT))
        names = [chosen] if isinstance(chosen, str) else chosen
        if not isinstance(names, list) or not names:
            raise ValueError("dataset: a generator's name or a list of names is needed")
        for name in names:
            _check_name(name, "dataset")
        return ReasoningGym(names)

    def gold(self, task: Task) -> str | None:
        answer = task.fields.get("answer")
        return None if answer is None else f"<answer>{answer}</answer>"

    def pose(self, rng: random.Random, level: float) -> Task:
        name = rng.choice(self.datasets)
        entry = _generator(name, round(level * STEPS))[rng.randrange(MOST)]
        return _task(entry, (Message(role="user", content=f"{entry['question']}{ASK}"),))

    def from_row(self, row: Mapping[str, Any]) -> Task:
        metadata = row.get("metadata")
        if not isinstance(metadata, Mapping):
            raise ValueError("metadata: an object with source_dataset is needed")
        _check_name(metadata.get("source_dataset"), "metadata.source_dataset")
        if not isinstance(row.get("question"), str):
            raise ValueError("question: text is needed")
        _check_evaluated(row)
        return _task(row, row_messages(row))

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """The library's own score in [0, 1]; an answer that its scorer cannot read has 0."""
        return [self._grade(task, answer) for answer in answers]

    def _grade(self, task: Task, answer: str) -> Grade:
        given = extract(visible_answer(task, answer))
        if not given or len(given) > LONGEST:
            return Grade(0.0, {"readable": 0.0})
        name = str(task.fields["metadata"]["source_dataset"])
        if not _may_be_evaluated(name, given):
            return Grade(float(_is_gold(task, given)), {"readable": 1.0})
        try:
            return Grade(_score(name, given, task.fields), {"readable": 1.0})
        except Exception as error:
            return _blame(name, task, error)


def extract(text: str) -> str:
    """What stands in the last <answer> tags, else in the last box, else the whole text."""
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    boxed = re.findall(r"\\boxed\{([^{}]+)\}", text)
    return str((tagged or boxed or [text])[-1]).strip()


def _task(entry: Mapping[str, Any], messages: tuple[Message, ...]) -> Task:
    answer = entry.get("answer")
    fields = {name: entry.get(name) for name in ("question", "answer", "metadata")}
    reference = None if answer is None else f"<answer>{answer}</answer>"
    return Task("reasoning_gym", "math", messages, fields, reference)


def _check_name(name: Any, field: str) -> None:
    from reasoning_gym.factory import DATASETS

    if isinstance(name, str) and name in DATASETS:
        return
    near = get_close_matches(str(name), DATASETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(DATASETS))}"
    raise ValueError(f"{field}: {name!r} is no generator of reasoning-gym{hint}")


@lru_cache(maxsize=256)
def _generator(name: str, step: int) -> Any:
    """A generator at a level, as far as it has a curriculum; else as the library sets it."""
    from reasoning_gym.factory import CURRICULA, DATASETS, create_curriculum

    dataset, config = DATASETS[name]
    if name not in CURRICULA:
        return dataset(config=config(seed=0, size=MOST))
    curriculum = create_curriculum(name)
    for attribute in curriculum.attributes.values():
        highest = len(attribute.levels) - 1
        curriculum.set_attr_level(attribute.name, round(step / STEPS * highest))
    return dataset(config=curriculum.generate_configuration({"seed": 0, "size": MOST}))


@lru_cache(maxsize=256)
def _scorer(name: str) -> Any:
    from reasoning_gym.factory import get_score_answer_fn

    return get_score_answer_fn(name)


def _score(name: str, given: str, fields: Mapping[str, Any]) -> float:
    entry = {key: fields[key] for key in ("question", "answer", "metadata")}
    return min(1.0, max(0.0, float(_scorer(name)(answer=given, entry=entry))))


def _blame(name: str, task: Task, error: Exception) -> Grade:
    """A scorer that fails on an answer but not on the gold one could not read the answer."""
    gold = task.fields["answer"]
    try:
        if gold is not None and _score(name, str(gold), task.fields) > 0:
            return Grade(0.0, {"readable": 0.0})
    except Exception as again:
        error = again
    return Grade.failed(f"reasoning-gym's scorer of {name} failed: {type(error).__name__}: {error}")


def _may_be_evaluated(name: str, text: str) -> bool:
    if name in LITERAL_ANSWERS:
        return _is_literal(text)
    return name not in EXPRESSION_ANSWERS or is_plain_expression(text)


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return True


def is_plain_expression(text: str) -> bool:
    """Whether a text is arithmetic that can be evaluated without running or exhausting anything."""
    powers = len(re.findall(r"\)\s*\*\*", text))
    return (
        len(text) <= LONGEST_EVALUATED and bool(_EXPRESSION.fullmatch(text)) and powers <= MOST_GROUP_POWERS
    )


def _is_gold(task: Task, given: str) -> bool:
    """An answer that is not evaluated can still be the expected text."""
    valid = task.fields["metadata"].get("valid_answers") or []
    return given in [str(task.fields["answer"]).strip(), *(str(one).strip() for one in valid)]


def _check_evaluated(row: Mapping[str, Any]) -> None:
    """Refuse rows with code where the library evaluates a field."""
    metadata, answer = row["metadata"], row.get("answer")
    name = metadata["source_dataset"]
    if name in EXPRESSION_ANSWERS:
        for field, text in (("answer", answer), ("metadata.integrand", metadata.get("integrand"))):
            if isinstance(text, str) and not is_plain_expression(text):
                raise ValueError(f"{field}: {text[:80]!r} is not plain arithmetic, and would be evaluated")
    if name == "number_sorting" and not (isinstance(answer, str) and _is_literal(answer)):
        raise ValueError("answer: a list of numbers is needed, as text")
    if name == "bitwise_arithmetic" and not _BITS.fullmatch(
        str(metadata.get("problem")).replace("<<", "").replace(">>", "")
    ):
        raise ValueError("metadata.problem: is not plain arithmetic, and would be evaluated")
