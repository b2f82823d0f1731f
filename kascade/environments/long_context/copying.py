"""How much of a text is copied from another: the overlap terms of NeMo-Gym's `lc_niah`, each in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from difflib import SequenceMatcher

NGRAM = 16  # words; NeMo-Gym's metric is named for it


def normalized(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.lower().split())


def longest_share(text: str, source: str) -> float:
    """The longest stretch of characters that stands in both, as a share of the text."""
    return longest_common(text, source) / len(text) if text else 0.0


def ngram_share(text: str, source: str, words: int = NGRAM) -> float:
    """The share of the text's different runs of that many words that the source holds too."""
    ours = _runs(text, words)
    return len(ours & _runs(source, words)) / len(ours) if ours else 0.0


def likeness(text: str, source: str) -> float:
    """difflib's ratio of the two, as it comes: in texts over 200 characters it ignores frequent ones."""
    return SequenceMatcher(None, text, source).ratio() if text else 0.0


METRICS: dict[str, Callable[[str, str], float]] = {
    "lcs": longest_share,
    "ngram16": ngram_share,
    "seq_match": likeness,
}


def _runs(text: str, words: int) -> set[tuple[str, ...]]:
    split = text.split()
    return {tuple(split[start : start + words]) for start in range(len(split) - words + 1)}


def longest_common(text: str, source: str) -> int:
    """Characters of the longest common substring, in time linear in both.

    The source is read through the suffix automaton of the text (Blumer et al. 1985): difflib's search takes
    the product of both lengths, minutes for a long context.
    """
    length, link, step = _suffix_automaton(text)
    state = matched = longest = 0
    for character in source:
        while state and character not in step[state]:
            state = link[state]
            matched = length[state]
        if character in step[state]:
            state = step[state][character]
            matched += 1
        longest = max(longest, matched)
    return longest


def _suffix_automaton(text: str) -> tuple[list[int], list[int], list[dict[str, int]]]:
    """Per state: length of its longest word, the state of its longest other suffix, where letters lead."""
    length, link, step = [0], [-1], [dict[str, int]()]
    last = 0
    for character in text:
        new = len(length)
        length.append(length[last] + 1)
        link.append(0)
        step.append({})
        state = last
        while state >= 0 and character not in step[state]:
            step[state][character] = new
            state = link[state]
        if state >= 0:
            target = step[state][character]
            if length[target] == length[state] + 1:
                link[new] = target
            else:
                split = len(length)
                length.append(length[state] + 1)
                link.append(link[target])
                step.append(dict(step[target]))
                while state >= 0 and step[state].get(character) == target:
                    step[state][character] = split
                    state = link[state]
                link[target] = link[new] = split
        last = new
    return length, link, step
