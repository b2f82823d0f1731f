"""The prose of README, CONTRIBUTING and docs is short: sentences by their words, semicolons by 1,000 words.

A sentence is what a reader reads in one go: of a paragraph, a heading, an item of a list or a cell of a
table. Blocks of code and HTML comments are no prose. A piece of code within a line counts as one word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
MOST_WORDS = 24  # of a sentence
SHORT_SHARE = 0.9  # of all sentences, at least
MOST_SEMICOLONS = 6.0  # per 1,000 words
SHOWN = 20  # long sentences in the message of a failure

NO_PROSE = re.compile(r"^```.*?^```$|<!--.*?-->", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
ITEM = re.compile(r"(?:[-*]|\d+\.)\s+")
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z\"(])")
WORD = re.compile(r"[A-Za-z0-9][\w'.,/%-]*")
FEWEST_WORDS = 3  # fewer are a label or a number


def passages(text: str) -> Iterator[str]:
    """Paragraphs, headings, items of lists and cells of tables of a page in Markdown."""
    for block in re.split(r"\n\s*\n", NO_PROSE.sub("\n\n", text)):
        open_passage = ""
        for line in map(str.strip, block.splitlines()):
            item = ITEM.match(line)
            if line.startswith(("|", "#")) or item:
                yield open_passage
                open_passage = line[item.end() :] if item else ""
            if line.startswith("|"):
                yield from line.strip("|").split("|")
            elif line.startswith("#"):
                yield line.lstrip("# ")
            elif not item:
                open_passage += f" {line}"
        yield open_passage


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page, code in them written as CODE and links as their words."""
    for passage in passages(text):
        plain = LINK.sub(r"\1", CODE.sub("CODE", passage)).replace("**", "")
        yield from (one.strip() for one in SENTENCE_END.split(plain) if length(one) >= FEWEST_WORDS)


def length(sentence: str) -> int:
    """Words of a sentence."""
    return len(WORD.findall(sentence))


def test_nine_of_ten_sentences_are_short() -> None:
    found = [(length(one), page.name, one) for page in PAGES for one in sentences(page.read_text("utf-8"))]
    long = sorted((one for one in found if one[0] > MOST_WORDS), reverse=True)
    share = 1 - len(long) / len(found)
    listed = "\n".join(f"{words} words, {page}: {text}" for words, page, text in long[:SHOWN])
    assert len(found) > 500
    assert share >= SHORT_SHARE, f"{share:.1%} have at most {MOST_WORDS} words. The longest:\n{listed}"


def test_there_are_few_semicolons() -> None:
    prose = {page.name: CODE.sub("CODE", NO_PROSE.sub("", page.read_text("utf-8"))) for page in PAGES}
    words = sum(map(length, prose.values()))
    semicolons = {name: text.count(";") for name, text in prose.items()}
    per_thousand = 1000 * sum(semicolons.values()) / words
    most = sorted(semicolons.items(), key=lambda one: -one[1])[:5]
    assert per_thousand <= MOST_SEMICOLONS, f"{per_thousand:.1f} per 1,000 words, most of them in {most}"


def test_sentences_are_found_in_paragraphs_lists_tables_and_headings() -> None:
    page = """# A heading of words

One sentence is here. Another `one; with code` follows
on the next line: "It is quoted."

- First item of a list
  that continues.
1. Second [item of](https://example.org/a.b) a list.

| a cell of a table | 12 |
|---|---|

```
Code is no prose. It is left out.
```
<!-- A comment is no prose. -->
"""
    assert list(sentences(page)) == [
        "A heading of words",
        "One sentence is here.",
        "Another CODE follows on the next line:",
        '"It is quoted."',
        "First item of a list that continues.",
        "Second item of a list.",
        "a cell of a table",
    ]


def test_words_are_counted_and_signs_are_not() -> None:
    assert length("The guard's 95% interval, +0.1 to +0.2 (CODE) · end-to-end") == 9
