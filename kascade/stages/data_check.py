"""The data doctor: what is in rows, what is wrong with them, and what a loss or a grader makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kascade.data.contamination import NGRAM, find_contamination
from kascade.data.duplicates import SHINGLE, find_duplicates
from kascade.data.lengths import Lengths, measure_lengths
from kascade.data.rows import BadRows, field_fault, read_rows
from kascade.data.shapes import SHAPES
from kascade.environments import get_environment
from kascade.environments.base import GRADING, Grade, Task, final_answer
from kascade.environments.crashes import graded as graded_by
from kascade.environments.gold import gold_answer
from kascade.environments.judge import judge_is_named
from kascade.environments.loading import nothing_loaded, row_task
from kascade.environments.routing import environment_of, named_environment
from kascade.errors import Fault, UserError
from kascade.recipe.parts import DataSource
from kascade.rollout.pools import configured
from kascade.stages.recipe_data import Reading

if TYPE_CHECKING:
    from kascade.data.chat import ChatFormat

RIGHT, WRONG = 1 - 1e-6, 1e-6
EXAMPLES = 5  # of duplicates and contaminated tasks that are shown
AS_CHARACTERS = "characters"


@dataclass(frozen=True, slots=True)
class Placed:
    """A task and where its row lies."""

    place: str
    task: Task


@dataclass(slots=True)
class DataReport:
    """Everything the doctor found.

    faults: rows that do not load, graders that misjudge gold answers, splits that lack rows. skipped: rows at
    fault that the recipe leaves out. read_by: stages and benchmarks, of a recipe's rows.
    """

    path: str
    num_rows: int
    environments: dict[str, int]
    faults: list[Fault]
    unit: str = AS_CHARACTERS
    lengths: dict[str, Lengths] = field(default_factory=dict)
    skipped: list[Fault] = field(default_factory=list)
    read_by: str | None = None
    duplicates: dict[str, Any] = field(default_factory=dict)
    contamination: dict[str, Any] = field(default_factory=dict)
    smoke: dict[str, dict[str, int]] = field(default_factory=dict)
    view: list[dict[str, Any]] = field(default_factory=list)
    viewed: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "read_by": self.read_by,
            "rows": self.num_rows,
            "environments": self.environments,
            "faults": UserError(self.faults).as_json(),
            "skipped": UserError(self.skipped).as_json(),
            "lengths": {"unit": self.unit, **{name: found.as_json() for name, found in self.lengths.items()}},
            "duplicates": self.duplicates,
            "contamination": self.contamination,
            "gold_and_empty_answers": self.smoke,
            "view": {"row": self.viewed, "parts": self.view},
        }


def check_data(
    source: DataSource,
    *,
    exams: Mapping[str, Sequence[Task]],
    chat: ChatFormat | None = None,
    graded: int = 20,
    viewed: int = 1,
    similarity: float = 0.8,
    min_share: float = 0.5,
    reading: Reading | None = None,
) -> DataReport:
    """Look at every row of a source. An environment `any` lets each row say which one it belongs to.

    exams: tasks that training data must not show. chat: counts lengths in its tokens; characters without.
    graded: rows of each environment whose gold and empty answers are graded. viewed: which good row is shown
    as the loss sees it, from 1. reading: the recipe's use of the source, where it is a recipe's; what cannot
    be read is then a fault of the report. Else raises UserError when there is nothing to read.
    """
    try:
        rows = load_rows(source, of_one=reading is not None)
    except UserError as error:
        if reading is None:
            raise
        return DataReport(str(source.path), 0, {}, list(error.faults), read_by=str(reading))
    tasks = [one.task for one in rows.placed]
    smoke, misjudged = grade_gold(rows.placed, graded)
    learnt = reading.learnt(tasks) if reading else tasks
    report = DataReport(
        path=str(source.path),
        num_rows=rows.num_rows,
        environments=dict(Counter(task.environment for task in tasks).most_common()),
        faults=[*rows.faults, *(reading.split_faults(tasks) if reading else ()), *misjudged],
        unit="tokens" if chat else AS_CHARACTERS,
        lengths=task_lengths(tasks, chat),
        duplicates=_duplicates(rows.placed, similarity),
        contamination=_contamination(learnt, exams if learnt else {}, min_share),
        smoke=smoke,
        skipped=rows.skipped,
        read_by=str(reading) if reading else None,
    )
    if rows.placed:
        shown = rows.placed[min(viewed, len(rows.placed)) - 1]
        report.view, report.viewed = loss_view(shown.task, chat), shown.place
    return report


@dataclass(frozen=True, slots=True)
class Rows:
    """What a source holds: rows that load, faults of the others, those of them that are skipped."""

    placed: list[Placed]
    faults: list[Fault]
    skipped: list[Fault]
    num_rows: int


def load_rows(source: DataSource, *, of_one: bool = False) -> Rows:
    """Read every row. of_one: rows that name another environment are passed over, as a run does it.

    Raises UserError when the source cannot be read at all.
    """
    placed: list[Placed] = []
    bad = BadRows(source)
    elsewhere: Counter[str] = Counter()
    num_rows = 0
    own = None if source.environment == "any" else configured(source)
    for place, row in read_rows(source):
        num_rows += 1
        if isinstance(row, Fault):
            bad.faults.append(row)
            continue
        try:
            name = named_environment(row) or (own.name if own else environment_of(row))
            if of_one and own and own.name != name:
                elsewhere[name] += 1
                continue
            environment = own if own and own.name == name else get_environment(name)
            placed.append(Placed(place, row_task(environment, row, source)))
        except ValueError as error:
            known = "responses_create_params" in row
            remedy = "see the row format of its environment" if known else SHAPES
            bad.faults.append(field_fault(place, error, remedy))
        except UserError as error:  # an environment that cannot be loaded
            bad.faults += [replace(fault, where=f"{place} {fault.where}") for fault in error.faults]
    if not placed:
        return Rows([], nothing_loaded(source, elsewhere, bad.faults), [], num_rows)
    try:
        bad.raise_if_too_many()
    except UserError as error:
        return Rows(placed, list(error.faults), [], num_rows)
    return Rows(placed, [], bad.faults, num_rows)


def task_text(task: Task) -> str:
    """What is asked, all turns."""
    return "\n\n".join(message["content"] for message in task.messages)


def task_lengths(tasks: Sequence[Task], chat: ChatFormat | None) -> dict[str, Lengths]:
    """Lengths of prompts (with template and tools, where tokens are counted) and of reference answers."""
    prompt: Callable[[Task], int] = lambda task: len(chat.prompt_ids(task) if chat else task_text(task))  # noqa: E731
    answered = [task for task in tasks if task.reference is not None]
    found = {
        "prompt": measure_lengths([prompt(task) for task in tasks]),
        "answer": measure_lengths(
            [
                len(chat.completion_ids(task, task.reference) if chat else task.reference)
                for task in answered
                if task.reference is not None
            ]
        ),
    }
    return {name: lengths for name, lengths in found.items() if lengths is not None}


def loss_view(task: Task, chat: ChatFormat | None) -> list[dict[str, Any]]:
    """The row as training sees it: stretches of text that carry loss, and those that do not.

    With a tokenizer the very tokens (prompt and answer are tokenised apart and never joined as text); without
    one the turns and the answer.
    """
    answer = task.reference
    if chat is None:
        parts = [
            {"text": f"[{message['role']}] {message['content']}\n", "loss": False}
            for message in task.messages
        ]
        return parts + ([{"text": answer, "loss": True}] if answer is not None else [])
    tokens = [(token, False) for token in chat.prompt_ids(task)]
    if answer is not None:
        tokens += [(token, True) for token in chat.completion_ids(task, answer)]
    return [
        {"text": chat.text(ids), "loss": loss, "tokens": len(ids)}
        for loss, group in groupby(tokens, key=lambda pair: pair[1])
        for ids in [[token for token, _ in group]]
    ]


def grade_gold(placed: Sequence[Placed], most: int) -> tuple[dict[str, dict[str, int]], list[Fault]]:
    """Gold answers must grade 1 and empty ones 0 (chat grades preferences: there gold must beat empty).

    Of an environment without gold answers, empty ones are graded. One that needs a judge is not tried where
    none is named.
    """
    counts: dict[str, dict[str, int]] = {}
    faults: list[Fault] = []
    by_environment: dict[str, list[Placed]] = {}
    for one in placed:
        by_environment.setdefault(one.task.environment, []).append(one)
    for name, rows in by_environment.items():
        answers = [(one, gold_answer(one.task)) for one in rows]
        golden = [(one, gold) for one, gold in answers if gold is not None and final_answer(gold)][:most]
        without = sum(gold is None for _, gold in answers)
        count = counts[name] = {"graded": len(golden), "wrong": 0, "without_gold": without}
        environment = get_environment(name).with_options(rows[0].task.fields.get(GRADING) or {})
        if environment.needs_judge(rows=True) and not judge_is_named():
            count |= {"graded": 0, "without_judge": len(rows)}
            continue
        tried: list[tuple[Placed, list[str]]] = [(one, [gold, ""]) for one, gold in golden]
        tried = tried or [(one, [""]) for one in rows[:most]]
        grades = graded_by(environment, [(one.task, given) for one, given in tried])
        for (one, _), found in zip(tried, grades, strict=True):
            if what := _misjudged(one.task, found):
                count["wrong"] += 1
                remedy = "check the expected answer, and what the grader needs (judge, programs, sandbox)"
                faults.append(Fault(f"{one.place} {name}", what, "1 for gold, 0 for empty", remedy))
    return counts, faults


def _misjudged(task: Task, grades: Sequence[Grade]) -> str | None:
    """What is wrong with the grades of a gold answer, if there is one, and an empty one."""
    *golden, empty = grades
    if error := next((grade.error for grade in grades if grade.error), None):
        return f"the grader failed: {error}"
    beaten = task.domain == "chat" and all(gold.reward > empty.reward for gold in golden)
    if beaten or (empty.reward <= WRONG and all(gold.reward >= RIGHT for gold in golden)):
        return None
    told = "".join(f"the gold answer grades {gold.reward:.3g}, " for gold in golden)
    return f"{told}an empty one {empty.reward:.3g}"


def _duplicates(placed: Sequence[Placed], similarity: float) -> dict[str, Any]:
    found = find_duplicates([task_text(one.task) for one in placed], similarity=similarity)
    return {
        "method": f"prompts: same words; Jaccard of {SHINGLE}-word shingles of at least {similarity:g}",
        "exact_groups": len(found.exact),
        "exact_surplus": found.num_surplus,
        "near_pairs": len(found.near),
        "examples": [
            *([placed[index].place for index in group[:EXAMPLES]] for group in found.exact[:EXAMPLES]),
            *([placed[i].place, placed[j].place, round(share, 3)] for i, j, share in found.near[:EXAMPLES]),
        ],
    }


def _contamination(
    tasks: Sequence[Task], exams: Mapping[str, Sequence[Task]], min_share: float
) -> dict[str, Any]:
    training = [f"{task_text(task)}\n\n{task.reference or ''}" for task in tasks]
    asked = {name: [task_text(task) for task in exam] for name, exam in exams.items()}
    found = find_contamination(training, asked, min_share=min_share)
    counts = Counter(one.benchmark for one in found)
    return {
        "method": f"exam tasks at least {min_share:g} of whose {NGRAM}-word runs the rows show",
        "benchmarks": {name: {"tasks": len(exam), "seen": counts[name]} for name, exam in asked.items()},
        "examples": [
            {
                "benchmark": one.benchmark,
                "share": round(one.share, 3),
                "task_id": exams[one.benchmark][one.task].id,
                "text": asked[one.benchmark][one.task][:200],
            }
            for one in found[:EXAMPLES]
        ],
    }
