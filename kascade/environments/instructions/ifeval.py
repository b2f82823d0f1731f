"""The 25 instructions of IFEval (arXiv 2311.07911), with the verdicts of its published code.

One difference: keywords and markers are literal text here; there they are read as regular expressions.
"""

from __future__ import annotations

import json
import re

from kascade.environments.instructions.registry import Arguments, compare, instruction, number, text_of
from kascade.environments.instructions.text import language, sentences, tokens, words

RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def occurrences(keyword: str, text: str) -> int:
    """How often a keyword appears in any case, inside words too."""
    return len(re.findall(re.escape(keyword), text, re.IGNORECASE))


def all_of(arguments: Arguments, name: str) -> list[str]:
    value = arguments[name]
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{name}: {value!r} is not a list of words")
    return value


@instruction("keywords:existence", "keywords")
def keywords_exist(text: str, arguments: Arguments) -> bool:
    return all(occurrences(word, text) for word in all_of(arguments, "keywords"))


@instruction("keywords:frequency", "keyword", "frequency")
def keyword_frequency(text: str, arguments: Arguments) -> bool:
    count = occurrences(text_of(arguments, "keyword").strip(), text)
    return compare(count, number(arguments, "frequency"), arguments.get("relation"))


@instruction("keywords:forbidden_words", "forbidden_words")
def forbidden_words(text: str, arguments: Arguments) -> bool:
    forbidden = all_of(arguments, "forbidden_words")
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden)


@instruction("keywords:letter_frequency", "letter", "let_frequency")
def letter_frequency(text: str, arguments: Arguments) -> bool:
    letter = text_of(arguments, "letter").strip().lower()
    if len(letter) != 1:
        raise ValueError(f"letter: {letter!r} is not a single character")
    return compare(
        text.lower().count(letter), number(arguments, "let_frequency"), arguments.get("let_relation")
    )


@instruction("language:response_language", "language")
def response_language(text: str, arguments: Arguments) -> bool:
    wanted = text_of(arguments, "language")
    return language(text) in (wanted, None)


@instruction("length_constraints:number_sentences", "num_sentences")
def number_sentences(text: str, arguments: Arguments) -> bool:
    return compare(len(sentences(text)), number(arguments, "num_sentences"), arguments.get("relation"))


def divided(text: str, separator: str) -> int | None:
    """How many paragraphs are between separators; None when one inside is empty."""
    parts = re.split(separator, text)
    if any(not part.strip() for part in parts[1:-1]):
        return None
    return len(parts) - sum(not part.strip() for part in {0: parts[0], len(parts) - 1: parts[-1]}.values())


STARS = r"\s?\*\*\*\s?"  # the markdown divider


@instruction("length_constraints:number_paragraphs", "num_paragraphs")
def number_paragraphs(text: str, arguments: Arguments) -> bool:
    return divided(text, STARS) == number(arguments, "num_paragraphs")


@instruction("length_constraints:number_words", "num_words")
def number_words(text: str, arguments: Arguments) -> bool:
    return compare(len(words(text)), number(arguments, "num_words"), arguments.get("relation"))


@instruction("length_constraints:nth_paragraph_first_word", "num_paragraphs", "nth_paragraph", "first_word")
def nth_paragraph_first_word(text: str, arguments: Arguments) -> bool:
    num_paragraphs, nth = number(arguments, "num_paragraphs"), number(arguments, "nth_paragraph")
    if not 1 <= nth <= num_paragraphs:
        raise ValueError(f"nth_paragraph: {nth} is not between 1 and num_paragraphs")
    first_word = text_of(arguments, "first_word").lower()
    parts = text.split("\n\n")
    if sum(bool(part.strip()) for part in parts) != num_paragraphs or not parts[nth - 1].strip():
        return False
    head = parts[nth - 1].split(maxsplit=1)[0].lstrip("'").lstrip('"')
    return re.split("[.,?!'\"]", head, maxsplit=1)[0].lower() == first_word


@instruction("detectable_content:number_placeholders", "num_placeholders")
def placeholders(text: str, arguments: Arguments) -> bool:
    count = 0
    for line in text.split("\n"):
        at = line.find("[")
        while at >= 0 and (end := line.find("]", at)) >= 0:
            count, at = count + 1, line.find("[", end)
    return count >= number(arguments, "num_placeholders")


@instruction("detectable_content:postscript")
def postscript(text: str, arguments: Arguments) -> bool:
    marker = str(arguments.get("postscript_marker") or "P.S.").strip()
    known = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    return re.search(known.get(marker, re.escape(marker.lower())), text.lower()) is not None


@instruction("detectable_format:number_bullet_lists", "num_bullets")
def bullet_lists(text: str, arguments: Arguments) -> bool:
    lines = [line.lstrip() for line in text.split("\n")]
    count = sum(line.startswith("-") for line in lines)
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if line == "*" and index < len(lines):  # an empty star takes the next line as its text
            count, index = count + 1, index + 1
        elif line.startswith("*") and line[1:2] not in ("", "*"):
            count += 1
    return count == number(arguments, "num_bullets")


@instruction("detectable_format:constrained_response")
def constrained_response(text: str, arguments: Arguments) -> bool:
    return any(response in text for response in RESPONSES)


@instruction("detectable_format:number_highlighted_sections", "num_highlights")
def highlighted_sections(text: str, arguments: Arguments) -> bool:
    single = re.findall(r"\*([^\n*]*)\*", text)
    double = re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(found.strip()) for found in single + double) >= number(arguments, "num_highlights")


@instruction("detectable_format:multiple_sections", "section_spliter", "num_sections")
def multiple_sections(text: str, arguments: Arguments) -> bool:
    splitter = re.escape(text_of(arguments, "section_spliter").strip())
    return len(re.findall(rf"\s?{splitter}\s?\d+\s?", text)) >= number(arguments, "num_sections")


@instruction("detectable_format:json_format")
def json_format(text: str, arguments: Arguments) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


@instruction("detectable_format:title")
def title(text: str, arguments: Arguments) -> bool:
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end >= start + 3 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


@instruction("combination:two_responses")
def two_responses(text: str, arguments: Arguments) -> bool:
    parts = [part.strip() for part in text.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


@instruction("combination:repeat_prompt", "prompt_to_repeat")
def repeat_prompt(text: str, arguments: Arguments) -> bool:
    return text.strip().lower().startswith(text_of(arguments, "prompt_to_repeat").strip().lower())


@instruction("startend:end_checker", "end_phrase")
def end_phrase(text: str, arguments: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(text_of(arguments, "end_phrase").strip().lower())


@instruction("startend:quotation")
def quotation(text: str, arguments: Arguments) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@instruction("change_case:capital_word_frequency", "capital_frequency")
def capital_words(text: str, arguments: Arguments) -> bool:
    count = sum(map(str.isupper, tokens(text)))
    return compare(count, number(arguments, "capital_frequency"), arguments.get("capital_relation"))


def in_english(text: str, arguments: Arguments) -> bool:
    """English, or of no language that can be known; `any_language` leaves the question out."""
    return bool(arguments.get("any_language")) or language(text) in ("en", None)


@instruction("change_case:english_capital")
def all_capital(text: str, arguments: Arguments) -> bool:
    return text.isupper() and in_english(text, arguments)


@instruction("change_case:english_lowercase")
def all_lowercase(text: str, arguments: Arguments) -> bool:
    return text.islower() and in_english(text, arguments)


@instruction("punctuation:no_comma")
def no_comma(text: str, arguments: Arguments) -> bool:
    return "," not in text
