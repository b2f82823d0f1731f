"""Exam tasks that the training data already shows, by shared runs of words.

Method (after Brown et al. 2020, arXiv 2005.14165, App. C, who count 13-grams): texts are cut into words; of
each exam task the share of its 13-word runs is measured that occur anywhere in the training texts. Runs that
many tasks of a benchmark have are its wording, not its contents, and do not count. A task shorter than
that is shown only by a training text of exactly its words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kascade.data.words import ngram_hashes, words_of

NGRAM = 13
COMMON_SHARE = 0.1  # runs that more than this share of a benchmark's tasks (and more than two) have


@dataclass(frozen=True, slots=True)
class Contamination:
    """One exam task that was seen. share: of its runs of words that the training texts hold."""

    benchmark: str
    task: int
    share: float


def find_contamination(
    training: Sequence[str], benchmarks: Mapping[str, Sequence[str]], *, min_share: float = 0.5
) -> list[Contamination]:
    """Exam tasks at least `min_share` of which the training texts show, the most first."""
    words = [words_of(text) for text in training]
    whole = {" ".join(found) for found in words}
    runs = [ngram_hashes(found, NGRAM) for found in words]
    seen = np.unique(np.concatenate(runs)) if runs else np.zeros(0, dtype=np.uint64)
    found = []
    for name, texts in benchmarks.items():
        asked = [words_of(text) for text in texts]
        common = _common([set(ngram_hashes(one, NGRAM).tolist()) for one in asked])
        for index, one in enumerate(asked):
            hashes = ngram_hashes(one, NGRAM)
            own = hashes[~np.isin(hashes, common)]
            if len(own):
                share = float(np.isin(own, seen).mean())
            else:
                share = float(bool(one) and " ".join(one) in whole)
            if share >= min_share:
                found.append(Contamination(name, index, share))
    return sorted(found, key=lambda one: -one.share)


def _common(tasks: Sequence[set[int]]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    counts = Counter(hash_ for task in tasks for hash_ in task)
    limit = max(2, COMMON_SHARE * len(tasks))
    return np.array([hash_ for hash_, count in counts.items() if count > limit], dtype=np.uint64)
