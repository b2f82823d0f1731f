"""Gold answers that stand for none: words such as "proof" or "n/a" that rows repeat in place of an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from kascade.task import Task

# Environments whose answer is a value: of choices and labels, few different ones are the rule.
OF_VALUES = ("math_with_judge", "ns_tools", "math_with_code", "equivalence_llm_judge", "lc_judge")
STAND_INS = frozenset(
    {"none", "null", "nan", "n/a", "na", "nil", "-", "--", "?", "unknown", "undefined", "tbd", "todo"}
    | {"proof", "see solution", "no answer", "not found"}
)
ANSWERS = frozenset(["yes", "no", "true", "false"])
MOST_SHARE, LEAST_ROWS = 0.05, 5  # of rows that give one wordy answer, from which on it is a stand-in
SHOWN = 3  # places of each


def stand_ins(placed: Iterable[tuple[str, Task]]) -> list[str]:
    """A line for each gold answer that looks like a stand-in: what it is, how often, and where first."""
    rows: dict[str, list[str]] = defaultdict(list)
    total = 0
    for place, task in placed:
        gold = task.fields.get("expected_answer")
        if task.environment in OF_VALUES and isinstance(gold, str):
            total += 1
            rows[" ".join(gold.split()).lower()].append(place)
    found = []
    for gold, places in rows.items():
        wordy = sum(map(str.isalpha, gold)) > 2 and not any(map(str.isdigit, gold)) and "\\" not in gold
        repeated = len(places) >= max(LEAST_ROWS, MOST_SHARE * total) and len(rows) > 1
        if gold in STAND_INS or (wordy and repeated and gold not in ANSWERS):
            first = ", ".join(places[:SHOWN])
            found.append(
                f"the gold answer {gold!r} stands in {len(places)} of {total} rows ({first}): is it one?"
            )
    return found
