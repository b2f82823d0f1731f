"""Long texts with something to find, count or follow in them, at any size.

The kinds are RULER's (Hsieh et al. 2024, arXiv 2404.06654, §3) and the graph walks of long-context exams;
the wording is our own. `size` counts filler: what is asked does not depend on it, so a text can be fitted
to a length by its size alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from kascade.environments.small_world.words import NAMES, NOUNS

Rng = random.Random
FILLER = (
    "The {a} stands next to the {b}, as it did last year.",
    "Nobody asked {n} about the {a} that day.",
    "{n} put the {a} behind the {b} and went on.",
    "In the morning the {b} was gone, but the {a} was still there.",
    "They say that the {a} is older than the {b}.",
)
NUM_VALUES = 4  # asked for at once by multi_value and multi_query
HOPS = 4  # links of a chain of variables
NUM_COMMON, NUM_FREQUENT = 10, 3
NODES_PER_UNIT = 0.5  # of a graph whose edges are the units


@dataclass(frozen=True, slots=True)
class Haystack:
    """A text, what is asked about it, and the values that answer it, in no order."""

    text: str
    question: str
    expected: tuple[str, ...]


def filler(rng: Rng) -> str:
    a, b = rng.sample(NOUNS, 2)
    return rng.choice(FILLER).format(a=a, b=b, n=rng.choice(NAMES))


def _hidden(rng: Rng, needles: list[str], size: int) -> str:
    """Filler with the needles at random places."""
    lines = [filler(rng) for _ in range(size)]
    places = sorted(rng.randint(0, size) for _ in needles)
    for offset, (place, needle) in enumerate(zip(places, needles, strict=True)):
        lines.insert(place + offset, needle)
    return " ".join(lines)


def _number(rng: Rng) -> str:
    return str(rng.randint(1_000_000, 9_999_999))


def _needle(key: str, value: str) -> str:
    return f"One of the special numbers of {key} is {value}."


def _keys(rng: Rng, count: int) -> list[str]:
    """Distinct two-word keys."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"{rng.choice(NAMES)}'s {rng.choice(NOUNS)}"] = None
    return list(found)


def single(rng: Rng, size: int) -> Haystack:
    """One needle."""
    (key,), value = _keys(rng, 1), _number(rng)
    return Haystack(
        _hidden(rng, [_needle(key, value)], size), f"What is the special number of {key}?", (value,)
    )


def multi_key(rng: Rng, size: int) -> Haystack:
    """The one needle asked for among as many others as there is filler."""
    num_keys = min(2 + size, len(NAMES) * len(NOUNS) // 2)
    keys = _keys(rng, num_keys)
    values = [_number(rng) for _ in keys]
    needles = [_needle(key, value) for key, value in zip(keys, values, strict=True)]
    asked = rng.randrange(num_keys)
    rng.shuffle(needles)
    question = f"What is the special number of {keys[asked]}?"
    return Haystack(_hidden(rng, needles, size), question, (values[asked],))


def multi_value(rng: Rng, size: int) -> Haystack:
    """Several needles of one key."""
    (key,), values = _keys(rng, 1), sorted({_number(rng) for _ in range(NUM_VALUES)})
    needles = [_needle(key, value) for value in values]
    return Haystack(_hidden(rng, needles, size), f"What are all special numbers of {key}?", tuple(values))


def multi_query(rng: Rng, size: int) -> Haystack:
    """Several keys, all asked for."""
    keys = _keys(rng, NUM_VALUES)
    values = [_number(rng) for _ in keys]
    needles = [_needle(key, value) for key, value in zip(keys, values, strict=True)]
    return Haystack(
        _hidden(rng, needles, size), f"What are the special numbers of {', '.join(keys)}?", tuple(values)
    )


def variable_tracking(rng: Rng, size: int) -> Haystack:
    """Variables that are set to each other; all that hold one value, through several hops."""
    names = [f"X{number}" for number in rng.sample(range(100, 1000), 2 * (HOPS + 1))]
    chains = [names[: HOPS + 1], names[HOPS + 1 :]]
    start, other = _number(rng), _number(rng)
    lines: list[list[str]] = []
    for chain, value in zip(chains, (start, other), strict=True):
        lines.append([f"Set {name} to {was}." for name, was in zip(chain, [value, *chain], strict=False)])
    merged: list[str] = []
    while any(lines):  # each chain in its order, the chains mixed
        merged.append(rng.choice([chain for chain in lines if chain]).pop(0))
    question = f"Which variables hold the number {start} in the end?"
    return Haystack(_hidden(rng, merged, size), question, tuple(chains[0]))


def common_words(rng: Rng, size: int) -> Haystack:
    """A list of words, ten of which come far more often than the others."""
    words = rng.sample(NOUNS, len(NOUNS))
    common, rare = words[:NUM_COMMON], words[NUM_COMMON:]
    repeats = 4 + size // NUM_COMMON
    listed = [word for word in common for _ in range(repeats)]
    listed += [word for word in rare for _ in range(max(1, repeats // 4))]
    rng.shuffle(listed)
    text = " ".join(f"{number}. {word}" for number, word in enumerate(listed, start=1))
    return Haystack(text, f"Which {NUM_COMMON} words come most often in the list?", tuple(common))


def frequent_words(rng: Rng, size: int) -> Haystack:
    """Made-up words, the n-th of which comes about 1/n as often as the first; the three most frequent."""
    syllables = ("ba", "ki", "lo", "mu", "ne", "po", "ra", "su", "ti", "vo")
    words: dict[str, None] = {}
    while len(words) < 40:
        words["".join(rng.choice(syllables) for _ in range(3))] = None
    first = 12 + size
    listed = [word for rank, word in enumerate(words, start=1) for _ in range(max(1, first // rank))]
    rng.shuffle(listed)
    question = f"Which {NUM_FREQUENT} words come most often?"
    return Haystack(" ".join(listed), question, tuple(list(words)[:NUM_FREQUENT]))


def question_answering(rng: Rng, size: int) -> Haystack:
    """Documents about people; the answer takes two of them."""
    num_people = min(4 + size // 4, len(NAMES))
    people = rng.sample(NAMES, num_people)
    places = rng.sample(NOUNS, num_people)
    teachers = people[1:] + people[:1]
    documents = [
        f"Document {number}. {filler(rng)} {name} lives by the {place}. {name} was taught by {teacher}."
        for number, (name, place, teacher) in enumerate(zip(people, places, teachers, strict=True), start=1)
    ]
    rng.shuffle(documents)
    asked = rng.randrange(num_people)
    question = f"By what does the teacher of the one who lives by the {places[asked]} live?"
    answer = places[(asked + 1) % num_people]
    surplus = " ".join(filler(rng) for _ in range(max(0, size - num_people * 3)))
    return Haystack("\n".join([*documents, surplus]).strip(), question, (answer,))


def graph_walk(rng: Rng, size: int) -> Haystack:
    """A list of directed edges; the parents of a node, or all nodes at one breadth-first depth."""
    num_edges = 8 + size
    nodes = [f"{rng.getrandbits(40):010x}" for _ in range(max(4, round(num_edges * NODES_PER_UNIT)))]
    edges = sorted({(rng.choice(nodes), rng.choice(nodes)) for _ in range(num_edges)})
    edges = [edge for edge in edges if edge[0] != edge[1]] or [(nodes[0], nodes[1])]
    rng.shuffle(edges)
    start, end = rng.choice(edges)
    text = "\n".join(f"{one} -> {other}" for one, other in edges)
    if rng.random() < 0.5:
        parents = sorted({one for one, other in edges if other == end})
        return Haystack(text, f"Which nodes have an edge to {end}?", tuple(parents))
    depth = rng.randint(1, 3)
    level, seen = {start}, {start}
    for _ in range(depth):
        level = {other for one, other in edges if one in level} - seen
        seen |= level
    question = f"Which nodes does a breadth-first search from {start} meet at depth {depth}, and no earlier?"
    return Haystack(text, question, tuple(sorted(level)))


KINDS: dict[str, Callable[[Rng, int], Haystack]] = {
    "single": single,
    "multi_key": multi_key,
    "multi_value": multi_value,
    "multi_query": multi_query,
    "variable_tracking": variable_tracking,
    "common_words": common_words,
    "frequent_words": frequent_words,
    "qa": question_answering,
    "graph_walk": graph_walk,
}
