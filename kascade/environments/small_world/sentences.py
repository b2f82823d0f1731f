"""Plain sentences of the small world, for constraints to act on."""

from __future__ import annotations

import random

from kascade.environments.small_world.words import ADJECTIVES, NOUNS, PLACES, VERBS


def sentence(rng: random.Random, topic: str, *, must: tuple[str, ...] = (), capital: bool = True) -> str:
    """One sentence about `topic` that holds every word of `must`, without a full stop.

    Words of `must` fill the places of nouns; more words than places are joined by "and".
    """
    nouns = [*must, *rng.sample(NOUNS, 2)]
    words = ["the", topic, rng.choice(VERBS), "the"]
    if rng.random() < 0.5:
        words.insert(1, rng.choice(ADJECTIVES))
    words += nouns[:1] if len(must) < 2 else [must[0], "and", "the", must[1]]
    if rng.random() < 0.4:
        words += [rng.choice(PLACES), nouns[-1]]
    text = " ".join(words)
    return text[0].upper() + text[1:] if capital else text


def exactly(rng: random.Random, topic: str, count: int, must: tuple[str, ...] = ()) -> str:
    """A lower-case phrase about `topic` of exactly `count` (3 or more) words, holding those of `must`."""
    words = ["the", topic, rng.choice(VERBS), *must]
    while len(words) < count:
        words.append(rng.choice(ADJECTIVES) if (count - len(words)) % 2 else rng.choice(NOUNS))
    return " ".join(words[:count])
