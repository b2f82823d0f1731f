"""Text as words and their n-grams, hashed: what finding duplicates and contamination rests on."""

from __future__ import annotations

import re
import unicodedata
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it permutes 64-bit numbers (Knuth, TAOCP 3, 6.4)


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers, compatibility forms unified, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def ngram_hashes(words: list[str], n: int) -> Hashes:
    """One 64-bit hash for each run of n words, [max(0, W - n + 1)]."""
    if len(words) < n:
        return np.zeros(0, dtype=np.uint64)
    codes = np.array([word_hash(word) for word in words], dtype=np.uint64)
    found = np.zeros(len(words) - n + 1, dtype=np.uint64)
    for offset in range(n):
        found = found * _MULTIPLIER + codes[offset : offset + len(found)]
    return mix(found)


@lru_cache(maxsize=2**18)  # texts use few different words, again and again
def word_hash(word: str) -> int:
    """A 64-bit number for a word, the same on every machine."""
    data = word.encode("utf-8", "surrogatepass")
    return zlib.crc32(data) | zlib.adler32(data) << 32


def mix(values: Hashes) -> Hashes:
    """Spread differences over all bits (the finaliser of MurmurHash3)."""
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(33))
