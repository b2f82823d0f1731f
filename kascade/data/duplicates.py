"""Repeated texts: exact ones by their words, near ones by MinHash with banding, verified by Jaccard.

Broder, "On the resemblance and containment of documents" (1997); banding: Leskovec, Rajaraman, Ullman, Mining
of Massive Datasets, §3.4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kascade.data.words import Hashes, mix, ngram_hashes, words_of

SHINGLE = 5  # words
BANDS, ROWS = 32, 4  # a pair of Jaccard similarity s is found with probability 1 - (1 - s^4)^32: 0.8 surely
_SEEDS = mix(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64))


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of texts, by index. exact: same words. near: pairs (i, j, similarity), not exact ones."""

    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, int, float], ...]

    @property
    def num_surplus(self) -> int:
        """Texts that would go if one of each exact group stayed."""
        return sum(len(group) - 1 for group in self.exact)


def find_duplicates(texts: Sequence[str], *, similarity: float = 0.8) -> Duplicates:
    """Texts that say the same, or share at least `similarity` of their 5-word shingles."""
    words = [words_of(text) for text in texts]
    groups: dict[str, list[int]] = defaultdict(list)
    for index, found in enumerate(words):
        groups[" ".join(found)].append(index)
    exact = tuple(tuple(group) for key, group in groups.items() if len(group) > 1 and key)
    firsts = [group[0] for group in groups.values()]
    shingles = {index: np.unique(ngram_hashes(words[index], SHINGLE)) for index in firsts}
    near = []
    for i, j in sorted(_candidates({index: found for index, found in shingles.items() if found.size})):
        jaccard = _jaccard(shingles[i], shingles[j])
        if jaccard >= similarity:
            near.append((i, j, jaccard))
    return Duplicates(exact, tuple(near))


def _candidates(shingles: dict[int, Hashes]) -> set[tuple[int, int]]:
    """Pairs that agree in one band of their signatures."""
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, found in shingles.items():
        signature = mix(found[None, :] ^ _SEEDS[:, None]).min(axis=1).reshape(BANDS, ROWS)
        for band in range(BANDS):
            buckets[band, signature[band].tobytes()].append(index)
    pairs: set[tuple[int, int]] = set()
    for bucket in buckets.values():
        # each against the first: what is alike is then in one group, without a quadratic number of pairs
        pairs |= {(bucket[0], other) for other in bucket[1:]}
    return pairs


def _jaccard(one: Hashes, other: Hashes) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
