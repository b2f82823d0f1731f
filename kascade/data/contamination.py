"""Benchmark tasks that the training data already shows, by shared runs of words: the one rule of the house.

Method (after Brown et al. 2020, arXiv 2005.14165, App. C, who count 13-grams): texts are cut into words. Of
each benchmark task the share of its 13-word runs is measured that occur anywhere in the training texts. Words
that all tasks of a benchmark begin or end with, and runs that many of them have, are its wording, not its
contents, and do not count. A task shorter than that is shown by a training text that holds all its words in
order. A very short one is shown only by a training text of exactly its words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kascade.data.words import Hashes, ngram_hashes, words_of
from kascade.task import Task

NGRAM = 13
SHORTEST_RUN = 6  # words; shorter questions are parts of other texts by chance
COMMON_SHARE = 0.1  # runs that more than this share of a benchmark's tasks (and more than two) have
MIN_SHARE = 0.5  # of a task's runs of words that training shows: from there on it counts as seen
FEW = 3  # tasks under which shared first and last words say nothing about a benchmark's wording


@dataclass(frozen=True, slots=True)
class Contamination:
    """One benchmark task that was seen. share: of its runs of words that the training texts hold."""

    benchmark: str
    task: int
    share: float


def task_text(task: Task) -> str:
    """What is asked, all turns."""
    return "\n\n".join(message["content"] for message in task.messages)


def seen_tasks(
    training: Iterable[Task], benchmarks: Mapping[str, Sequence[Task]], *, min_share: float = MIN_SHARE
) -> list[Contamination]:
    """Benchmark tasks that training on `training` shows: as what is asked, or with the answer behind it."""
    asked = [(task_text(task), task.reference) for task in training]
    answered = [f"{text}\n\n{answer}" for text, answer in asked if answer]
    texts = list(dict.fromkeys([*(text for text, _ in asked), *answered]))
    return find_contamination(
        texts,
        {name: [task_text(one) for one in tasks] for name, tasks in benchmarks.items()},
        min_share=min_share,
    )


def find_contamination(
    training: Sequence[str], benchmarks: Mapping[str, Sequence[str]], *, min_share: float = MIN_SHARE
) -> list[Contamination]:
    """Benchmark tasks at least `min_share` of which the training texts show, the most first."""
    shown = _Shown([words_of(text) for text in training])
    found = []
    for name, texts in benchmarks.items():
        asked = [words_of(text) for text in texts]
        first, last = _wrapper(asked)
        cores = [one[first : len(one) - last] for one in asked]
        common = _common([set(ngram_hashes(core, NGRAM).tolist()) for core in cores])
        for index, (one, core) in enumerate(zip(asked, cores, strict=True)):
            hashes = ngram_hashes(core, NGRAM)
            own = hashes[~_among(hashes, common)]
            if len(own):
                share = float(_among(own, shown.runs(NGRAM)).mean())
            else:
                share = float(shown.holds(one, core))
            if share >= min_share:
                found.append(Contamination(name, index, share))
    return sorted(found, key=lambda one: -one.share)


class _Shown:
    """The training texts as words, with their runs of any length, each computed once."""

    def __init__(self, texts: list[list[str]]) -> None:
        self._texts = texts
        self._whole = {" ".join(words) for words in texts}
        self._runs: dict[int, Hashes] = {}

    def runs(self, length: int) -> Hashes:
        """The sorted hashes of all runs of `length` words."""
        if length not in self._runs:
            hashes = [ngram_hashes(words, length) for words in self._texts]
            self._runs[length] = np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, dtype=np.uint64)
        return self._runs[length]

    def holds(self, words: list[str], core: list[str]) -> bool:
        """Whether a text is `words`, or holds the run `core` of a task with its wording taken off."""
        if words and " ".join(words) in self._whole:
            return True
        if not SHORTEST_RUN <= len(core) < NGRAM:
            return False
        return bool(_among(ngram_hashes(core, len(core)), self.runs(len(core))).any())


def _wrapper(tasks: Sequence[list[str]]) -> tuple[int, int]:
    """How many words all tasks of a benchmark begin with alike, and end with alike: its wording."""
    if len(tasks) < FEW:
        return 0, 0
    shortest = min(map(len, tasks))
    first = next((n for n in range(shortest) if len({one[n] for one in tasks}) > 1), shortest)
    last = next((n for n in range(shortest - first) if len({one[-1 - n] for one in tasks}) > 1), 0)
    return first, last


def _common(tasks: Sequence[set[int]]) -> Hashes:
    counts = Counter(hash_ for task in tasks for hash_ in task)
    limit = max(2, COMMON_SHARE * len(tasks))
    return np.array(sorted(hash_ for hash_, count in counts.items() if count > limit), dtype=np.uint64)


def _among(values: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Which values are among `known`, which are sorted: as np.isin, without sorting anew each time."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[places] == values, dtype=bool)
