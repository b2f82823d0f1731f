"""Answers that come close to following instructions, made of pieces that trip checks up."""

from __future__ import annotations

import random

PIECES = (
    "I like tea", "the Dr. Smith case", 'He said "hello there"', "It's 5 p.m. The train left", "crash into",
    "NASA and the U.S. Army", "don't can't WON'T", "* item one", "- item two", "** bold **", "*high light*",
    "[name]", "[a] [b]", "<<Title>>", "<< >>", "<<<>>", "P.S. bye", "P.P.S more", "p. s. hm", "***", "******",
    "Section 1", "SECTION 2 text", '{"a": 1}', "```json", "```", "My answer is yes.", "Hello, world!", "a",
    "What now?", "Wait... what", "Wait... The end", "J. K. Rowling wrote", "1. First point", "etc. But no",
    "e.g. apples", "(see fig. 3)", '"Quoted." Next one', "I", "END", "the end", "Is there anything else?",
    "\n", "\n\n", " ", "'single'", "rock 'n' roll", "cannot gonna wanna", "A/B testing", "R&D 50%", "12:30",
    "3.14 and 1,000", "well-known -- dash—em", "Crash, boom", '"crash" test', "こんにちは", "日本 の", "x",
    "ünïcode", "naïve?!", "!!!", "?!", "\u2018curly\u2019 “quotes”", "tab\there", "\r\n", "river", "RIVER",
    "rivers",
    "le chat est sur la table et il mange", "der Hund läuft schnell durch den Wald", "THE DOG RUNS", "'s",
    "ALL CAPS HERE NOW", "all lower case words here now", "Mr. Jones vs. Mrs. Brown", "No. 5 is alive",
    "at 3 a.m. we slept", "Ph.D. holders", "A. Then B.", "end of line.", 'end!" she said', "(Done.) Next",
    "o'clock", "he'll I'd we've", "'tis 'twas", "...", ". . .", "a.b.c", "email@x.org.", "“Done.” He left",
    "good.Bad", "Yes.No", ":)", ";", "* ", "*", "-", "**", "a*b*c", "<<a>> <<b>>", "My Answer:", "great 😀.",
    "Emma and Liam", "level radar civic", "((((()))))", "SEPARATOR", "!?!?", "<i>t</i> x", "Write", "Running",
)  # fmt: skip
SEPARATORS = (" ", " ", ". ", "\n", "\n\n", "")
ENDS = ("", "", ".", '"', "!", " ")


def near_miss(rng: random.Random) -> str:
    pieces = [rng.choice(PIECES) for _ in range(rng.choice((1, 2, 3, 5, 8, 13)))]
    return rng.choice(("", "", '"')) + rng.choice(SEPARATORS).join(pieces) + rng.choice(ENDS)
