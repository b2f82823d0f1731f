"""The data doctor: what is in rows, what is wrong with them, and what a loss or a grader makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kascade.data.contamination import NGRAM, seen_tasks, task_text
from kascade.data.duplicates import SHINGLE, find_duplicates
from kascade.data.lengths import Lengths, measure_lengths
from kascade.data.rows import BadRows, field_fault, read_rows
from kascade.data.shapes import SHAPES
from kascade.doctor.golds import stand_ins
from kascade.doctor.graders import Placed, Trial, try_graders
from kascade.doctor.subject import Reading
from kascade.environments import get_environment
from kascade.environments.rows.loading import nothing_loaded, row_task
from kascade.environments.rows.routing import environment_of, named_environment
from kascade.errors import Fault, UserError
from kascade.recipe.parts import DataSource
from kascade.rollout.pools import configured
from kascade.task import Called, Task

if TYPE_CHECKING:
    from kascade.data.chat import ChatFormat

EXAMPLES = 5  # of duplicates and contaminated tasks that are shown
AS_CHARACTERS = "characters"


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
    smoke: dict[str, Trial] = field(default_factory=dict)
    view: list[dict[str, Any]] = field(default_factory=list)
    viewed: str | None = None
    calls: str | None = None
    stand_ins: list[str] = field(default_factory=list)

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
            "stand_ins": self.stand_ins,
            "contamination": self.contamination,
            "gold_and_empty_answers": {name: _trial_json(trial) for name, trial in self.smoke.items()},
            "view": {"row": self.viewed, "parts": self.view, "calls": self.calls},
        }


def _trial_json(trial: Trial) -> dict[str, int]:
    counts = {"graded": trial.num_graded, "wrong": trial.num_wrong, "without_gold": trial.num_without_gold}
    untried = {"without_judge": trial.num_without_judge, "without_server": trial.num_without_server}
    return counts | {name: number for name, number in untried.items() if number}


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
    rows.faults.extend(_refused(rows, chat) if chat else ())  # takes them out, so it comes first
    tasks = [one.task for one in rows.placed]
    trials = try_graders(rows.placed, graded)
    learnt = reading.learnt(tasks) if reading else tasks
    report = DataReport(
        path=str(source.path),
        num_rows=rows.num_rows,
        environments=dict(Counter(task.environment for task in tasks).most_common()),
        faults=[
            *rows.faults,
            *(reading.split_faults(tasks) if reading else ()),
            *(fault for trial in trials.values() for fault in trial.faults),
        ],
        unit="tokens" if chat else AS_CHARACTERS,
        lengths=task_lengths(tasks, chat),
        duplicates=_duplicates(rows.placed, similarity),
        contamination=_contamination(learnt, exams if learnt else {}, min_share),
        smoke=trials,
        stand_ins=stand_ins((one.place, one.task) for one in rows.placed),
        skipped=rows.skipped,
        read_by=str(reading) if reading else None,
    )
    report.faults += _no_such_row(viewed, len(rows.placed)) if reading is None else ()
    if rows.placed:
        _show_one(report, rows.placed[min(viewed, len(rows.placed)) - 1], chat)
    return report


def _no_such_row(number: int, held: int) -> list[Fault]:
    """Rows only: of a recipe's sources some hold fewer than the number that is given for all."""
    if number <= max(held, 1):
        return []
    allowed = f"1 to {held}" if held else "none: no row is good"
    what, remedy = "there is no such good row to show", "name another row, or leave --row out"
    return [Fault(f"--row {number}", what, allowed, remedy)]


@dataclass(frozen=True, slots=True)
class LoadedRows:
    """What a source holds: rows that load, faults of the others, those of them that are skipped."""

    placed: list[Placed]
    faults: list[Fault]
    skipped: list[Fault]
    num_rows: int


def load_rows(source: DataSource, *, of_one: bool = False) -> LoadedRows:
    """Read every row. of_one: rows that name another environment are passed over, as a run does it.

    Raises UserError when the source cannot be read at all.
    """
    placed: list[Placed] = []
    bad = BadRows(source)
    elsewhere: Counter[str] = Counter()
    num_rows = 0
    own = None if source.environment == "any" else configured(source)
    for place, row in read_rows(source):
        if bad.full:
            break
        num_rows += 1
        if isinstance(row, Fault):
            bad.faults.append(row)
            continue
        try:
            named = None if own and own.reads_all_rows else named_environment(row)
            name = named or (own.name if own else environment_of(row))
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
        return LoadedRows([], nothing_loaded(source, elsewhere, bad.faults), [], num_rows)
    try:
        bad.raise_if_too_many()
    except UserError as error:
        return LoadedRows(placed, list(error.faults), [], num_rows)
    return LoadedRows(placed, [], bad.faults, num_rows)


def _show_one(report: DataReport, shown: Placed, chat: ChatFormat | None) -> None:
    """One row as the loss sees it, and the calls in its answer as graders read them."""
    report.view, report.viewed = loss_view(shown.task, chat), shown.place
    answer = shown.task.reference
    report.calls = answer[len(answer.words) :] if isinstance(answer, Called) else None


def _refused(rows: LoadedRows, chat: ChatFormat) -> list[Fault]:
    """Takes out the rows that the chat template refuses; an error for each."""
    taken: list[Placed] = []
    faults: list[Fault] = []
    for one in rows.placed:
        try:
            chat.prompt_ids(one.task)
            chat.learnt_text(one.task.reference or "")
        except UserError as error:
            faults += [replace(fault, where=f"{one.place} {fault.where}") for fault in error.faults]
        else:
            taken.append(one)
    rows.placed[:] = taken
    return faults


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
    found = seen_tasks(tasks, exams, min_share=min_share)
    counts = Counter(one.benchmark for one in found)
    return {
        "method": f"benchmark tasks at least {min_share:g} of whose {NGRAM}-word runs the rows show",
        "benchmarks": {name: {"tasks": len(exam), "seen": counts[name]} for name, exam in exams.items()},
        "examples": [
            {
                "benchmark": one.benchmark,
                "share": round(one.share, 3),
                "task_id": exams[one.benchmark][one.task].id,
                "text": task_text(exams[one.benchmark][one.task])[:200],
            }
            for one in found[:EXAMPLES]
        ],
    }
