"""Verifiable instructions by IFEval's names (arXiv 2311.07911): each a check of an answer's text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[str, Mapping[str, Any]], bool]
CHECKS: dict[str, Check] = {}


def check(name: str) -> Callable[[Check], Check]:
    """Register a check under its instruction id."""

    def register(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return register


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def paragraphs(text: str, separator: str = r"\n\n") -> list[str]:
    return [part.strip() for part in re.split(separator, text) if part.strip()]


def occurrences(word: str, text: str) -> int:
    return len(re.findall(rf"\b{re.escape(word)}\b", text, re.IGNORECASE))


def compare(count: int, bound: int, relation: str | None) -> bool:
    """IFEval's two relations; "at least" is the default."""
    return count < bound if relation == "less than" else count >= bound


@check("length_constraints:number_words")
def number_words(text: str, kwargs: Mapping[str, Any]) -> bool:
    return compare(len(words(text)), int(kwargs["num_words"]), kwargs.get("relation"))


@check("length_constraints:number_sentences")
def number_sentences(text: str, kwargs: Mapping[str, Any]) -> bool:
    return compare(len(sentences(text)), int(kwargs["num_sentences"]), kwargs.get("relation"))


@check("length_constraints:number_paragraphs")
def number_paragraphs(text: str, kwargs: Mapping[str, Any]) -> bool:
    return len(paragraphs(text, r"\s?\*\*\*\s?")) == int(kwargs["num_paragraphs"])


@check("length_constraints:nth_paragraph_first_word")
def nth_paragraph_first_word(text: str, kwargs: Mapping[str, Any]) -> bool:
    parts, nth = paragraphs(text), int(kwargs["nth_paragraph"])
    if len(parts) != int(kwargs["num_paragraphs"]) or nth > len(parts):
        return False
    first = words(parts[nth - 1])[:1]
    return [word.lower() for word in first] == [str(kwargs["first_word"]).lower()]


@check("paragraphs:paragraphs")
def two_paragraphs(text: str, kwargs: Mapping[str, Any]) -> bool:
    return len(paragraphs(text, r"\s?\*\*\*\s?")) == 2


@check("keywords:existence")
def keywords_exist(text: str, kwargs: Mapping[str, Any]) -> bool:
    return all(occurrences(word, text) for word in kwargs["keywords"])


@check("keywords:frequency")
def keyword_frequency(text: str, kwargs: Mapping[str, Any]) -> bool:
    return compare(occurrences(kwargs["keyword"], text), int(kwargs["frequency"]), kwargs.get("relation"))


@check("keywords:forbidden_words")
def forbidden_words(text: str, kwargs: Mapping[str, Any]) -> bool:
    return not any(occurrences(word, text) for word in kwargs["forbidden_words"])


@check("keywords:letter_frequency")
def letter_frequency(text: str, kwargs: Mapping[str, Any]) -> bool:
    count = text.lower().count(str(kwargs["letter"]).lower())
    return compare(count, int(kwargs["let_frequency"]), kwargs.get("let_relation"))


@check("letters:letter_counting")
def letter_counting(text: str, kwargs: Mapping[str, Any]) -> bool:
    return compare(len(re.findall(r"[A-Za-z]", text)), int(kwargs["N"]), kwargs.get("relation"))


@check("count:lowercase_counting")
def lowercase_counting(text: str, kwargs: Mapping[str, Any]) -> bool:
    return len(re.findall(r"\b[a-z]+\b", text)) <= int(kwargs["N"])


@check("change_case:english_lowercase")
def all_lowercase(text: str, kwargs: Mapping[str, Any]) -> bool:
    return text.islower()


@check("change_case:english_capital")
def all_capital(text: str, kwargs: Mapping[str, Any]) -> bool:
    return text.isupper()


@check("startend:end_checker")
def end_phrase(text: str, kwargs: Mapping[str, Any]) -> bool:
    return text.strip().strip('"').lower().endswith(str(kwargs["end_phrase"]).strip().lower())


@check("startend:quotation")
def quotation(text: str, kwargs: Mapping[str, Any]) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@check("first_word:first_word_sent")
@check("first_word:first_word_answer")
def first_word(text: str, kwargs: Mapping[str, Any]) -> bool:
    return [word.lower() for word in words(text)[:1]] == [str(kwargs["first_word"]).lower()]


@check("last_word:last_word_sent")
@check("last_word:last_word_answer")
def last_word(text: str, kwargs: Mapping[str, Any]) -> bool:
    return [word.lower() for word in words(text)[-1:]] == [str(kwargs["last_word"]).lower()]


@check("punctuation:no_comma")
def no_comma(text: str, kwargs: Mapping[str, Any]) -> bool:
    return "," not in text


@check("detectable_format:number_bullet_lists")
def bullet_lists(text: str, kwargs: Mapping[str, Any]) -> bool:
    return len(re.findall(r"^\s*[*-](?!\*)\s*\S", text, re.MULTILINE)) == int(kwargs["num_bullets"])


@check("detectable_format:title")
def title(text: str, kwargs: Mapping[str, Any]) -> bool:
    return any(found.strip() for found in re.findall(r"<<([^\n]+?)>>", text))


@check("detectable_content:number_placeholders")
def placeholders(text: str, kwargs: Mapping[str, Any]) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= int(kwargs["num_placeholders"])


@check("detectable_content:postscript")
def postscript(text: str, kwargs: Mapping[str, Any]) -> bool:
    marker = str(kwargs.get("postscript_marker") or "P.S.").lower()
    return re.search(rf"^\s*{re.escape(marker)}", text.lower(), re.MULTILINE) is not None
