r"""Answers without what TeX and Markdown only show them with: colours, weights, gaps."""

from __future__ import annotations

import re

NAME = r"(?:\\(?:text)?color\s*\{[^{}]*\}|\\(?:bm|boldsymbol|pmb|underline|uline|emph)(?=\s*\{))"
GAP = r"\\[hv]?(?:space|phantom)\*?\s*\{[^{}]*\}"
SHOWN = re.compile(f"{NAME}|{GAP}")
AROUND = r"(?:\\\\|\\[ ,;:!]|\\q?quad(?![A-Za-z])|~|\\$|\s)+"
EDGES = re.compile(f"^{AROUND}|{AROUND}$")
MARKED = re.compile(r"(\*\*|`)([^*`]+)\1")  # Markdown: bold, or code


def without_looks(text: str) -> str:
    r"""The answer that \textcolor{red}{5}, \bm{5}, **5**, `5` and 5\\ show: 5 (in braces, perhaps)."""
    if "\\" not in text and "~" not in text and "*" not in text and "`" not in text:
        return text
    marked = MARKED.fullmatch(text)
    return EDGES.sub("", SHOWN.sub("", marked[2] if marked else text))
