"""The instructions that NeMo-Gym's `instruction_following` adds to IFEval's (IFTrain, arXiv 2507.02833).

Verdicts are those of its published code, save that punctuation is never a word here (the published code
counts "." among a sentence's words and calls a second comma a repeated word), and that in
`copy:repeat_phrase` every repetition must change one word, not only the last.
"""

from __future__ import annotations

import re
from itertools import pairwise

from kascade.environments.instructions.ifeval import (
    STARS,
    divided,
    keyword_frequency,
    letter_frequency,
    occurrences,
)
from kascade.environments.instructions.registry import Arguments, compare, instruction, number, text_of
from kascade.environments.instructions.text import sentences, word_tokens

instruction("letters:letter_counting2", "letter", "let_frequency")(letter_frequency)
instruction("keywords:word_count_different_numbers", "keyword", "frequency")(keyword_frequency)


def same(text: str, wanted: str) -> bool:
    return text.strip().lower() == wanted.strip().lower()


@instruction("copy:copy", "prompt_to_repeat")
@instruction("copy:copying_simple", "prompt_to_repeat")
def copied(text: str, arguments: Arguments) -> bool:
    return same(text, text_of(arguments, "prompt_to_repeat"))


@instruction("copy:copying_multiple", "prompt_to_repeat", "N")
def copied_times(text: str, arguments: Arguments) -> bool:
    copies, prompt = text.split("******"), text_of(arguments, "prompt_to_repeat")
    return len(copies) == number(arguments, "N") and all(same(copy, prompt) for copy in copies)


@instruction("new:copy_span_idx", "prompt_to_repeat", "n_start", "n_end")
def copied_span(text: str, arguments: Arguments) -> bool:
    span = slice(number(arguments, "n_start"), number(arguments, "n_end"))
    return same(text, text_of(arguments, "prompt_to_repeat")[span])


@instruction("copy:repeat_phrase", "phrase", "small_n")
def repeat_phrase(text: str, arguments: Arguments) -> bool:
    phrase = text_of(arguments, "phrase").split()
    found = [part for line in text.split("\n") for part in _spans(line, f"{phrase[0]} ", f" {phrase[-1]}")]
    changed = [
        sum(ours != theirs for ours, theirs in zip(part, phrase, strict=True))
        for part in map(str.split, found)
        if len(part) == len(phrase)
    ]
    return len(found) == len(changed) == number(arguments, "small_n") and all(n == 1 for n in changed)


def _spans(line: str, opening: str, closing: str) -> list[str]:
    """The shortest stretches from an opening to a closing, left to right."""
    spans, at = [], line.find(opening)
    while at >= 0 and (end := line.find(closing, at + len(opening))) >= 0:
        end += len(closing)
        spans.append(line[at:end])
        at = line.find(opening, end)
    return spans


@instruction("detectable_format:sentence_hyphens")
def sentence_hyphens(text: str, arguments: Arguments) -> bool:
    return text.split("-") == sentences(text.replace("-", " "))


@instruction("detectable_format:square_brackets")
def square_brackets(text: str, arguments: Arguments) -> bool:
    return all(word.startswith("[") and word.endswith("]") for word in text.split())


@instruction("detectable_format:bigram_wrapping")
def bigram_wrapping(text: str, arguments: Arguments) -> bool:
    parts = text.split()
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return all(first.startswith("<<") and second.endswith(">>") for first, second in pairs)


@instruction("keywords:no_adjacent_consecutive")
def no_adjacent_consecutive(text: str, arguments: Arguments) -> bool:
    letters = [word[0].lower()[0] for word in text.split()]
    return not any(ord(b) - ord(a) == 1 for a, b in pairwise(letters))


@instruction("keywords:word_once", "keyword")
def word_once(text: str, arguments: Arguments) -> bool:
    return occurrences(text_of(arguments, "keyword").strip(), text) == 1


@instruction("keywords:exclude_word_harder", "keyword")
def exclude_word(text: str, arguments: Arguments) -> bool:
    return f" {text_of(arguments, 'keyword').strip()} " not in text


@instruction("keywords:palindrome")
def some_palindrome(text: str, arguments: Arguments) -> bool:
    return any(word == word[::-1] for word in text.split())


@instruction("keywords:keyword_specific_position", "keyword", "n", "m")
@instruction("words:keywords_specific_position", "keyword", "n", "m")
def keyword_at(text: str, arguments: Arguments) -> bool:
    """The m-th word of the n-th sentence. The second id is IFBench's name for it."""
    nth, mth = number(arguments, "n"), number(arguments, "m")
    if nth < 1 or mth < 1:
        raise ValueError("n, m: sentences and words are counted from 1")
    parts = sentences(text)[nth - 1 : nth]
    found = word_tokens(parts[0])[mth - 1 : mth] if parts else []
    return [word.lower() for word in found] == [text_of(arguments, "keyword").strip().lower()]


@instruction("keywords:start_end")
def start_end(text: str, arguments: Arguments) -> bool:
    from kascade.environments.instructions.text import tokens

    parts = tokens(text)
    return len(parts) > 1 and parts[0].lower() == parts[-1].lower()


@instruction("paragraphs:paragraphs")
def two_paragraphs(text: str, arguments: Arguments) -> bool:
    return divided(text, STARS) == 2


@instruction("paragraphs:paragraphs2")
def two_paragraphs_by_lines(text: str, arguments: Arguments) -> bool:
    return divided(text, r"\n\n") == 2


@instruction("first_word:first_word_sent", "first_word")
def first_word_of_sentences(text: str, arguments: Arguments) -> bool:
    word = text_of(arguments, "first_word")
    return all(same(sentence.split(maxsplit=1)[0], word) for sentence in sentences(text))


@instruction("first_word:first_word_answer", "first_word")
def first_word_of_answer(text: str, arguments: Arguments) -> bool:
    return same(text.split(maxsplit=1)[0], text_of(arguments, "first_word"))


def last_word(text: str) -> str:
    return re.sub(r"[^\w\s]", "", text.rsplit(maxsplit=1)[-1])


@instruction("last_word:last_word_sent", "last_word")
def last_word_of_sentences(text: str, arguments: Arguments) -> bool:
    word = text_of(arguments, "last_word")
    return all(same(last_word(sentence), word) for sentence in sentences(text))


@instruction("last_word:last_word_answer", "last_word")
def last_word_of_answer(text: str, arguments: Arguments) -> bool:
    return same(last_word(text), text_of(arguments, "last_word"))


@instruction("punctuation:punctuation_dot")
def no_dot(text: str, arguments: Arguments) -> bool:
    return "." not in text


@instruction("punctuation:punctuation_exclamation")
def no_exclamation(text: str, arguments: Arguments) -> bool:
    return "!" not in text


@instruction("count:lowercase_counting", "N")
def lowercase_counting(text: str, arguments: Arguments) -> bool:
    return len(re.findall(r"\b[a-z]+\b", text)) <= number(arguments, "N")


@instruction("letters:letter_counting", "N")
def letter_counting(text: str, arguments: Arguments) -> bool:
    return compare(len(re.findall(r"[A-Za-z]", text)), number(arguments, "N"), arguments.get("relation"))


@instruction("count:counting_composition", "n_sent", "n_words")
def counting_composition(text: str, arguments: Arguments) -> bool:
    """Three paragraphs, each of so many sentences, each of so many words."""
    num_sentences, num_words = number(arguments, "n_sent"), number(arguments, "n_words")
    paragraphs = [sentences(part) for part in re.split(STARS, text)]
    return len(paragraphs) == 3 and all(
        len(part) == num_sentences and all(len(word_tokens(one)) == num_words for one in part)
        for part in paragraphs
    )


@instruction("count:count_unique")
def unique_words(text: str, arguments: Arguments) -> bool:
    parts = word_tokens(text)
    return len(parts) == len(set(parts))


@instruction("count:count_increment_word", "keyword1", "keyword2")
def increment_word(text: str, arguments: Arguments) -> bool:
    once, twice = (text_of(arguments, name).strip() for name in ("keyword1", "keyword2"))
    return occurrences(once, text) == 1 and occurrences(twice, text) == 2
