"""The exact value of a text that is a plain number, and whether two plain answers are the same."""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST_NUMBER = 100  # characters; a longer text is no short answer
LARGEST_EXPONENT = 400  # of ten: Fraction("1e999999999") fills the memory
MINUS = {ord(sign): "-" for sign in "\u2212\u2013\u2010\u2011\ufe63\uff0d"}
PLAIN = MINUS | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code != 0xFF0D}
PLAIN |= {0x2044: "/", 0x2215: "/", 0x00A0: " ", 0x202F: " ", 0x2009: " ", 0x00D7: r"\times "}
GAP = r"(?:,|\{,\}|,?\\[,!; ]|[ ~'])"  # what may set thousands apart: commas, TeX's thin spaces, blanks
WHOLE = rf"(?:[1-9]\d{{0,2}}(?P<gap>{GAP})\d{{3}}(?:(?P=gap)\d{{3}})*|\d+)"
SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
DIGITS = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
SIGNS = str.maketrans(
    {"\u03c0": r"\pi ", "\u221e": r"\infty ", "\u00d7": r"\times ", "\u00f7": r"\div ", "\u2264": r"\le "}
    | {"\u2265": r"\ge ", "\u2260": r"\ne ", "\u00b7": r"\cdot ", "\u222a": r"\cup ", "\u00b1": r"\pm "}
    | {"\u221a": r"\sqrt ", "\u00b0": r"^\circ ", "\u2212": "-", "\u00bd": r"\frac{1}{2}"}
)
CURRENCIES = {"\u20ac": "euro", "\u00a3": "pound", "\u00a5": "yen", "\u20b9": "rupee"}
SIGN, SUM = f"([{''.join(CURRENCIES)}])", r"(\d[\d.,]*)"
MONEY = re.compile(rf"{SIGN}\s*{SUM}|{SUM}\s*{SIGN}", re.ASCII)
INTEGER = re.compile(r"-?\d{1,50}", re.ASCII)
DECIMAL = re.compile(rf"(?P<sign>[-+]?) ?(?P<whole>{WHOLE})?(?:\.(?P<part>\d*))?", re.ASCII)
POWER = re.compile(
    r"(?P<number>.*?) ?(?:[eE]|(?:\\times|\\cdot|\*) ?10 ?(?:\^|\*\*) ?)(?P<power>\{ ?[-+]?\d+ ?\}|[-+]?\d+)",
    re.ASCII,
)
TEN = re.compile(r"(?P<sign>-?)10 ?\^ ?(?P<power>\{ ?[-+]?\d+ ?\}|\d)", re.ASCII)
REPEATED = re.compile(
    r"(?P<sign>-?)(?P<whole>\d*)\.(?P<part>\d*)(?:\\overline|\\dot|\\bar)\{?(?P<again>\d+)\}?", re.ASCII
)
MIXED = re.compile(
    r"(?P<sign>-?)(?P<whole>\d{1,20}) ?(?: |\\[dt]?frac ?\{)"
    r"(?P<above>\d{1,20})(?: ?/ ?|\} ?\{)(?P<below>\d{1,20})\}?",
    re.ASCII,
)
TEX_FRACTION = re.compile(r"(?P<sign>[-+]?) ?\\[dt]?frac ?(?:\{(.+?)\}|(\d)) ?(?:\{(.+?)\}|(\d))")


def as_number(text: str) -> Fraction | None:
    """The number that a text is: a whole one, a decimal, a fraction, a power of ten times one of these.

    A comma sets thousands apart only before groups of exactly three digits; else the text lists numbers and
    is none itself.
    """
    clean = " ".join(text.translate(PLAIN).replace("$", " ").split()).replace("- ", "-")
    if not clean or len(clean) > LONGEST_NUMBER:
        return None
    try:
        return _read(clean)
    except (ValueError, ZeroDivisionError):
        return None


def _read(text: str) -> Fraction | None:
    if found := TEX_FRACTION.fullmatch(text):
        above, below = _decimal(found[2] or found[3]), _decimal(found[4] or found[5])
        quotient = None if above is None or below is None else above / below
        return -quotient if quotient is not None and found["sign"] == "-" else quotient
    if (found := MIXED.fullmatch(text)) and int(found["above"]) < int(found["below"]):
        value = int(found["whole"]) + Fraction(int(found["above"]), int(found["below"]))
        return -value if found["sign"] else value
    if found := REPEATED.fullmatch(text):
        return _repeated(found)
    if found := TEN.fullmatch(text):
        power = int(found["power"].strip("{} "))
        ten = None if abs(power) > LARGEST_EXPONENT else Fraction(10) ** power
        return -ten if ten is not None and found["sign"] else ten
    if found := POWER.fullmatch(text):
        number, power = _decimal(found["number"]), int(found["power"].strip("{} "))
        return None if number is None or abs(power) > LARGEST_EXPONENT else number * Fraction(10) ** power
    above_text, slash, below_text = text.partition("/")
    above, below = _decimal(above_text.strip()), _decimal(below_text.strip()) if slash else Fraction(1)
    return None if above is None or below is None else above / below


def _decimal(text: str) -> Fraction | None:
    found = DECIMAL.fullmatch(text.removesuffix("."))
    if found is None or not (found["whole"] or found["part"]):
        return None
    whole = re.sub(r"\D", "", found["whole"] or "0")
    return Fraction(f"{found['sign']}{whole}.{found['part'] or '0'}")


def _repeated(found: re.Match[str]) -> Fraction:
    """0.1\\overline{6}: digits that come again and again."""
    part, again = found["part"], found["again"]
    value = Fraction(f"{found['whole'] or '0'}.{part or '0'}")
    value += Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(part))
    return -value if found["sign"] else value


def as_tex(text: str) -> str:
    """Signs that keyboards and phones write as one character, as TeX has them; money with its unit."""
    if text.isascii():
        return text
    text = MONEY.sub(_in_words, text)
    raised = SUPERSCRIPT.sub(lambda found: f"^{{{found[0].translate(DIGITS)}}}", text)
    return raised.translate(SIGNS)


def _in_words(money: re.Match[str]) -> str:
    return f"{money[2] or money[3]}\\text{{ {CURRENCIES[money[1] or money[4]]} }}"


def same_value(given: str, expected: str) -> bool | None:
    """Equal as numbers or letter by letter; None where that does not settle it."""
    if given == expected:
        return True
    if INTEGER.fullmatch(given) and INTEGER.fullmatch(expected):
        return int(given) == int(expected)
    if _letters(given) == _letters(expected):
        return True
    numbers = as_number(given), as_number(expected)
    if numbers[0] is None or numbers[1] is None:
        return None
    return numbers[0] == numbers[1]


def _letters(text: str) -> str:
    """Without dollars, and without blanks but between two digits: "1 2" is not 12."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", " ".join(text.replace("$", " ").split()))
