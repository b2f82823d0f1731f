"""IFBench (arXiv 2507.02833): instructions that are whole tasks of their own, with its published verdicts."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from itertools import pairwise

from kascade.environments.instructions.lexicon import NORTHERN_CAPITALS
from kascade.environments.instructions.registry import Arguments, instruction
from kascade.environments.instructions.text import EDGES, sentences, strip_punctuation

QUESTION = re.compile(r"Question \d+[.|):;]?\s*")
OPTION = re.compile(r"[A-Ea-e][.|)]\s*\w")
AFRICAN_COUNTRIES = 52  # fewest that a list must have from Zimbabwe on


def ascii_only(text: str) -> str:
    """Without accents and without anything else beyond ASCII."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def records(text: str, delimiter: str = ",") -> list[list[str]]:
    """Rows of CSV; none where the text cannot be read."""
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return []


@instruction("custom:multiples")
def multiples_of_seven(text: str, arguments: Arguments) -> bool:
    return re.findall(r"\d+", text) == ["14", "21", "28", "35", "42", "49"]


@instruction("custom:mcq_count_length")
def growing_questions(text: str, arguments: Arguments) -> bool:
    """Four questions of five options each, every question longer than the one before."""
    if not text.startswith("Question"):
        return False
    questions = [part.strip() for part in QUESTION.split(text) if part.strip()]
    lengths = []
    for question in questions:
        lines = [line.strip() for line in question.split("\n")]
        options = [index for index, line in enumerate(lines) if OPTION.match(line)]
        if len(options) != 5:
            return False
        lengths.append(len(" ".join(lines[: options[0]]).strip()))
    return len(lengths) == 4 and all(a < b for a, b in pairwise(lengths))


@instruction("custom:reverse_newline")
def countries_backwards(text: str, arguments: Arguments) -> bool:
    lines = [line for line in (line.strip(EDGES) for line in text.split("\n")) if line]
    start = next((index for index, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    countries = [ascii_only(line) for line in lines[start:]]
    return len(countries) >= AFRICAN_COUNTRIES and countries == sorted(countries, reverse=True)


@instruction("custom:word_reverse")
def words_backwards(text: str, arguments: Arguments) -> bool:
    """One sentence, read from its end, names the bald eagle."""
    forward = " ".join(strip_punctuation(text.lower().strip()).split()[::-1])
    return "bald eagle" in forward and forward in sentences(forward)


@instruction("custom:character_reverse")
def letters_backwards(text: str, arguments: Arguments) -> bool:
    return "bald eagle"[::-1] in text.lower()


@instruction("custom:sentence_alphabet")
def sentences_by_alphabet(text: str, arguments: Arguments) -> bool:
    heads = [sentence.lstrip()[:1].lower() for sentence in sentences(text)]
    return "".join(heads) == "abcdefghijklmnopqrstuvwxyz"


@instruction("custom:european_capitals_sort")
def capitals_by_latitude(text: str, arguments: Arguments) -> bool:
    return tuple(filter(None, map(str.strip, ascii_only(text).split(",")))) == NORTHERN_CAPITALS


@instruction("custom:csv_city")
def csv_city(text: str, arguments: Arguments) -> bool:
    rows = records(text)
    return len(rows) == 8 and rows[0] == ["ID", "Country", "City", "Year", "Count"] and _wide(rows)


def _wide(rows: list[list[str]]) -> bool:
    return all(len(row) == 5 for row in rows)


def _headed(text: str, names: str, separator: str) -> bool:
    """Whether the first line is the header, each name quoted or not."""
    columns = separator.join(f'(?:{name}|"{name}")' for name in names.split())
    return re.fullmatch(columns, text.split("\n", maxsplit=1)[0].strip()) is not None


@instruction("custom:csv_special_character")
def csv_special_character(text: str, arguments: Arguments) -> bool:
    """14 rows; the first with a quoted special character decides, and no row before it may be broken."""
    rows = records(text.replace('"', '"""'))  # keeps the quotes in the fields
    if not _headed(text, "ProductID Category Brand Price Stock", r",[ \t]*") or len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(map(_special, row)):
            return True
    return False


def _special(field: str) -> bool:
    """Whether a field is quoted with something in it that is no letter, digit or space."""
    line = field.split("\n", maxsplit=1)[0]
    inside = line[1 : line.rfind('"')] if line.startswith('"') else ""
    return re.search(r"[^\w\s]", inside) is not None


@instruction("custom:csv_quotes")
def csv_quotes(text: str, arguments: Arguments) -> bool:
    rows = records(text.replace('"', '"""'), delimiter="\t")
    if (
        not _headed(text, "StudentID Subject Grade Semester Score", r"\t *")
        or len(rows) != 4
        or not _wide(rows)
    ):
        return False
    fields = [field.strip() for row in rows for field in row]
    return all(field[:1] == field[-1:] == '"' for field in fields)


@instruction("custom:date_format_list")
def napoleonic_dates(text: str, arguments: Arguments) -> bool:
    for date in text.strip().split(","):
        found = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})", date.strip())
        if not found:
            return False
        year, month, day = map(int, found.groups())
        longest = 29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31
        if not 1769 <= year <= 1821 or month > 12 or (month and day > longest):
            return False
    return True
