"""IFBench (arXiv 2507.02833): instructions about words, counts and ratios, with its published verdicts."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from kascade.environments.instructions.lexicon import (
    CONJUNCTIONS,
    PERSON_NAMES,
    PRONOUNS,
    STOP_WORDS,
    is_verb,
)
from kascade.environments.instructions.registry import Arguments, instruction, number, text_of
from kascade.environments.instructions.text import EDGES, sentences, strip_punctuation, tokens, words

PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))
CLUSTER = re.compile("[bcdfghjklmnpqrstvwxyz]{2}")
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def percentage(arguments: Arguments) -> float:
    value = arguments["percentage"]
    if isinstance(value, bool) or not 0 <= float(value) <= 100:
        raise ValueError(f"percentage: {value!r} is not between 0 and 100")
    return float(value)


@instruction("count:word_count_range", "min_words", "max_words")
def word_count_range(text: str, arguments: Arguments) -> bool:
    return number(arguments, "min_words") <= len(words(text)) <= number(arguments, "max_words")


@instruction("count:unique_word_count", "N")
def unique_word_count(text: str, arguments: Arguments) -> bool:
    return len({word.strip(EDGES) for word in text.lower().split()}) >= number(arguments, "N")


@instruction("count:conjunctions", "small_n")
def conjunctions(text: str, arguments: Arguments) -> bool:
    """Different ones, where "and," and "And" count as others than "and": so the published code has it."""
    found = {word for word in text.split() if word.strip(EDGES).lower() in CONJUNCTIONS}
    return len(found) >= number(arguments, "small_n")


@instruction("count:person_names", "N")
def person_names(text: str, arguments: Arguments) -> bool:
    found = set(words(text))
    return sum(name in found for name in PERSON_NAMES) >= number(arguments, "N")


@instruction("count:numbers", "N")
def numbers(text: str, arguments: Arguments) -> bool:
    return len(re.findall(r"\d+", strip_punctuation(text))) == number(arguments, "N")


@instruction("count:punctuation")
def all_punctuation(text: str, arguments: Arguments) -> bool:
    if not any(mark in text for mark in ("!?", "?!", "‽")):
        return False
    rest = text.replace("?!", "", 1) if "?!" in text else text.replace("!?", "", 1)
    return set(".,!?;:") <= set(rest)


@instruction("count:words_japanese", "N")
def every_nth_japanese(text: str, arguments: Arguments) -> bool:
    nth = number(arguments, "N")
    if nth < 1:
        raise ValueError("N: words are counted from 1")
    checked = [word.strip(EDGES) for word in text.split()[nth - 1 :: nth]]
    return all(JAPANESE.search(word) for word in checked if word and not word.isdigit())


@instruction("count:pronouns", "N")
def pronouns(text: str, arguments: Arguments) -> bool:
    found = sum(word in PRONOUNS for word in tokens(text.replace("/", " ").lower()))
    return found >= number(arguments, "N")


@instruction("count:keywords_multiple", *(f"keyword{n}" for n in range(1, 6)))
def keywords_multiple(text: str, arguments: Arguments) -> bool:
    """Five keywords: once, twice, three, five and seven times."""
    wanted = zip(range(1, 6), (1, 2, 3, 5, 7), strict=True)
    return all(
        text.lower().count(text_of(arguments, f"keyword{index}").strip().lower()) == times
        for index, times in wanted
    )


@instruction("ratio:stop_words", "percentage")
def stop_words(text: str, arguments: Arguments) -> bool:
    allowed, found = percentage(arguments), words(text)
    return bool(found) and sum(word.lower() in STOP_WORDS for word in found) / len(found) * 100 <= allowed


def endings(text: str) -> Counter[str]:
    return Counter(sentence[-1] for sentence in sentences(text))


@instruction("ratio:sentence_type")
def twice_as_many_statements(text: str, arguments: Arguments) -> bool:
    count = endings(text)
    return count["."] == 2 * count["?"]


@instruction("ratio:sentence_balance")
def balanced_sentences(text: str, arguments: Arguments) -> bool:
    count = endings(text)
    return count["."] == count["?"] == count["!"]


@instruction("ratio:overlap", "reference_text", "percentage")
def trigram_overlap(text: str, arguments: Arguments) -> bool:
    """Share of the answer's different trigrams of characters that the reference has, within 2 points."""
    wanted, reference = percentage(arguments), text_of(arguments, "reference_text")
    ours, theirs = ({part[i : i + 3] for i in range(len(part) - 2)} for part in (text, reference))
    return bool(ours) and abs(len(ours & theirs) / len(ours) * 100 - wanted) <= 2


@instruction("ratio:sentence_words")
def sentences_of_equal_length(text: str, arguments: Arguments) -> bool:
    parts = [len(sentence.strip()) for sentence in sentences(text)]
    return len(parts) == 3 and len(set(parts)) == 1


@instruction("words:alphabet")
def alphabet_loop(text: str, arguments: Arguments) -> bool:
    letters = [word[0].lower() for word in strip_punctuation(text).split()]
    if not letters or not "a" <= letters[0] <= "z":
        return False
    start = ord(letters[0]) - ord("a")
    return all(letter == chr(ord("a") + (start + i) % 26) for i, letter in enumerate(letters))


@instruction("words:vowel")
def three_vowels(text: str, arguments: Arguments) -> bool:
    return "\n" not in text.strip() and len(set(text.lower()) & set("aeiou")) <= 3


@instruction("words:consonants")
def consonant_clusters(text: str, arguments: Arguments) -> bool:
    return all(CLUSTER.search(word) for word in text.lower().split())


@instruction("words:palindrome")
def ten_palindromes(text: str, arguments: Arguments) -> bool:
    found = strip_punctuation(text).lower().split()
    return sum(len(word) >= 5 and word == word[::-1] for word in found) >= 10


@instruction("words:prime_lengths")
def prime_lengths(text: str, arguments: Arguments) -> bool:
    return all(len(word) in PRIMES for word in strip_punctuation(text).split())


@instruction("words:start_verb")
def starts_with_verb(text: str, arguments: Arguments) -> bool:
    """By a list of verbs; the published code asks a tagger model, which also calls some nouns verbs."""
    first = tokens(text)[:1]
    return bool(first) and is_verb(first[0])


@instruction("words:repeats", "small_n")
def limited_repeats(text: str, arguments: Arguments) -> bool:
    count = Counter(strip_punctuation(text.lower()).split())
    return max(count.values(), default=0) <= number(arguments, "small_n")


@instruction("words:odd_even_syllables")
def alternating_syllables(text: str, arguments: Arguments) -> bool:
    import syllapy  # type: ignore[import-untyped]

    odd = [syllapy.count(word) % 2 for word in strip_punctuation(text).lower().split()]
    return all(a != b for a, b in pairwise(odd))


@instruction("words:last_first")
def last_word_first(text: str, arguments: Arguments) -> bool:
    parts = sentences(text)
    for first, second in pairwise(parts):
        last, following = first.rstrip(EDGES).split(), second.lstrip(EDGES).split()
        if not last or not following or last[-1].lower() != following[0].lower():
            return False
    return True


@instruction("words:paragraph_last_first")
def paragraph_last_first(text: str, arguments: Arguments) -> bool:
    paragraphs = [line.strip().lower().strip(EDGES).split() for line in text.split("\n")]
    return all(part[0] == part[-1] for part in paragraphs if part)


@instruction("words:no_consecutive")
def no_consecutive_letters(text: str, arguments: Arguments) -> bool:
    letters = [word[0] for word in strip_punctuation(text.lower()).split()]
    return all(a != b for a, b in pairwise(letters))


@instruction("words:words_position", "keyword")
def second_and_second_last(text: str, arguments: Arguments) -> bool:
    parts, keyword = tokens(text), text_of(arguments, "keyword").strip().lower()
    from_end = 3 if parts and len(parts[-1]) == 1 and not parts[-1].isalnum() and parts[-1].isascii() else 2
    if len(parts) < from_end:
        return False
    return parts[1].lower() == parts[-from_end].lower() == keyword
