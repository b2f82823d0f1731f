"""Words, sentences, tokens and language of an answer, as the published checks count them.

The references use NLTK with a downloaded Punkt model and its Treebank tokenizer. This is the same reading of
a text without a download: Punkt's rules (Kiss & Strunk 2006, section 4) on a fixed list of abbreviations.
Every function takes time linear in the text.
"""

from __future__ import annotations

import re
import string
from functools import cache, lru_cache
from itertools import pairwise
from threading import Lock


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ABBREVIATIONS = _set(
    "a.d a.k.a a.m adm al ala apr approx apt ariz ark asst assn assoc aug ave b.a b.c b.c.e b.s bldg blvd "
    "brig bros c.e calif capt cf cmdr co col colo conn corp cpl d.c dec del dept dist div dr e.g ed eds "
    "eq esq est etc feb fig figs fla fri ft ga gal gen gov hon hrs i.e ill inc ind jan jr kan ky l.a lb "
    "lbs lt ltd m.a m.d m.s maj mar mass messrs mfg mich min minn miss mme mlle mo mon mr mrs ms msgr mt "
    "n.c n.d n.h n.j n.m n.y neb nev no nos nov oct okla ont ore oz p.m p.o p.s pa ph.d pl pp pres prof "
    "pvt rd rep reps rev s.c s.d sat sec sen sens sep sept sgt sq sr st ste supt tel tenn tex thurs tr "
    "treas tue tues u.k u.n u.s u.s.a univ va viz vol vols vs vt wash wed wis yr yrs"
)
# Words that are capitalised only where a sentence begins: "at 5 p.m. The train", but "Dr. Smith".
OPENERS = _set(
    "a after all although an and another any as at because before both but by each even every few for "
    "from he her here hers his how however i if in instead it its later many meanwhile more most much my "
    "no nobody not nothing now of on once one only or other our out over she since so some still such "
    "that the their them then there therefore these they this those though through thus to today two "
    "under unless until us we what when where whether which while who whom whose why with without yet you "
    "your"
)
CLOSING = "\"')]}‘’“”«»"  # goes with the sentence that it ends  # noqa: RUF001
BREAKING = ")\";}]*:@'({[‘’“”«»?!"  # ends a word  # noqa: RUF001
_BREAK = rf"[{re.escape(BREAKING)}]"
_END = re.compile(rf"[.?!](?=({_BREAK})|\s+(\S+))")
_REALIGN = re.compile(rf"[{re.escape(CLOSING)}]+?(?:\s+|(?=--)|$)", re.MULTILINE)
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*\.?")
_TOKEN = re.compile(
    r"-{2,}|\.{2,}|"
    rf"[^(\"`{{\[:;&#*@)}}\]\-,\s]\S*?(?=\s|$|{_BREAK}|-{{2,}}|\.{{2,}}|,(?:$|\s|{_BREAK}|-{{2,}}|\.{{2,}}))|\S"
)


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return re.findall(r"\w+", text)


def strip_punctuation(text: str) -> str:
    """Without any ASCII punctuation."""
    return text.translate(_NO_PUNCTUATION)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
EDGES = string.punctuation + " "  # what the published checks strip from words


def sentences(text: str) -> list[str]:
    """The sentences of a text, closing quotes and brackets included."""
    return list(_sentences(text))


@lru_cache(maxsize=16)  # several instructions, and the loose readings, ask for those of one answer
def _sentences(text: str) -> tuple[str, ...]:
    slices, start = [], 0
    for end, after in _sentence_ends(text):
        slices.append((start, end))
        start = after
    slices.append((start, len(text.rstrip())))
    return tuple(text[a:b] for a, b in _realigned(text, slices) if b > a)


def _realigned(text: str, slices: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Closing punctuation that a split left at the head of a sentence goes back to the one before."""
    moved, shift = [], 0
    for index, (head, tail) in enumerate(slices):
        start, end, shift = head + shift, tail, 0
        if index + 1 < len(slices):
            following, stop = slices[index + 1]
            found = _REALIGN.match(text, following, max(following, stop))
            if found:
                end = following + len(found[0].rstrip())
                shift = found.end() - following
        moved.append((start, end))
    return moved


def _sentence_ends(text: str) -> list[tuple[int, int]]:
    """Where sentences end and where the next ones begin."""
    ends: list[tuple[int, int]] = []
    candidates = list(_END.finditer(text))
    word_start = 0
    for index, found in enumerate(candidates):
        space = _last_space(text, candidates[index - 1].end() if index else 0, found.start())
        word_start = word_start if space is None else space + 1
        following = candidates[index + 1] if index + 1 < len(candidates) else None
        spaced = following and _last_space(text, found.end(), following.start()) is not None
        if following and not spaced and word_start < found.start():
            continue  # the last mark of a word decides
        if _ends_sentence(text[word_start : found.end(1 if found[1] else 2)]):
            ends.append((found.end(), found.start(2) if found[2] else found.end()))
    return ends


def _last_space(text: str, start: int, end: int) -> int | None:
    last = max(text.rfind(space, start, end) for space in string.whitespace)
    return last if last >= 0 else None


def _ends_sentence(context: str) -> bool:
    """Whether a sentence ends before the last token of a word and what follows it."""
    parts = _TOKEN.findall(context)
    return any(_ends_after(token, following) for token, following in pairwise(parts))


def _without_period(word: str) -> str:
    bare = word.removesuffix(".")
    return word if bare in ABBREVIATIONS else bare


def _ends_after(token: str, following: str) -> bool:
    if token in (".", "?", "!"):
        return True
    if not token.endswith("."):
        return False
    upper = following[0].isupper()
    opener = upper and _without_period(following.lower()) in OPENERS
    core = token[:-1].lower()
    if core.endswith(".") and not core.strip("."):  # an ellipsis
        return opener
    if core in ABBREVIATIONS or core.rpartition("-")[2] in ABBREVIATIONS:
        return opener
    inside = following[0].islower() or following in (";", ":", ",", ".", "!", "?")
    if len(core) == 1 and (core.isalpha() or core == "_"):  # an initial
        return opener or not (upper or inside)
    return not (inside and _NUMBER.fullmatch(token))


_ALONE = re.compile(r"\.{2,}|--|''|[«“‘„»”’;@#$%&‒–—―?!*\]\[(){}<>]|``|`")  # noqa: RUF001
_OPENING_QUOTE = re.compile(r'^""?|(?<=[ (\[{<`«“‘„])(?:"|\'\')')  # noqa: RUF001
_COLON_COMMA = re.compile(r"[:,](?!\d)")
_FINAL_PERIOD = re.compile(r"(?<=[^.])\.(?=[\])}>\"'»”’ ]*+$)")  # noqa: RUF001
_LEADING_APOSTROPHE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_SHORT_CLITIC = re.compile(r"(?<=[^' ])('[sSmMdD]?)(?= )")
_LONG_CLITIC = re.compile(r"(?<=[^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T)(?= )")
_CONTRACTIONS = re.compile(
    r"\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n)|(wan)(na)(?=\s))\b",
    re.IGNORECASE,
)
_TIS = re.compile(r"(?<= )('t)(is|was)\b", re.IGNORECASE)


def tokens(text: str) -> list[str]:
    """Penn Treebank tokens: punctuation apart, "don't" as "do" and "n't"."""
    return list(_tokens(text))


@lru_cache(maxsize=16)
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(token for sentence in _sentences(text) for token in _sentence_tokens(sentence))


def word_tokens(text: str) -> list[str]:
    """The tokens that hold a letter or digit."""
    return [token for token in tokens(text) if any(map(str.isalnum, token))]


def _sentence_tokens(sentence: str) -> list[str]:
    text = _OPENING_QUOTE.sub(lambda found: " `` " * (2 if found[0] == '""' else 1), sentence)
    text = _LEADING_APOSTROPHE.sub("' ", text)
    text = _COLON_COMMA.sub(r" \g<0> ", text)
    text = _FINAL_PERIOD.sub(" . ", text.rstrip())
    text = _ALONE.sub(r" \g<0> ", text)
    text = re.sub(r"\s+", " ", f" {text} ".replace('"', " '' "))
    text = _LONG_CLITIC.sub(r" \1", _SHORT_CLITIC.sub(r" \1", text))
    text = _CONTRACTIONS.sub(lambda found: f" {' '.join(filter(None, found.groups()))} ", text)
    return _TIS.sub(r"\1 \2 ", text).split()


_LANGUAGE_LOCK = Lock()


@cache
def _detectors() -> object:
    from langdetect import detector_factory  # type: ignore[import-untyped]

    with _LANGUAGE_LOCK:
        detector_factory.init_factory()
    return detector_factory._factory


def language(text: str) -> str | None:
    """ISO 639-1 code of a text's language by langdetect, the same every time; None where it has none."""
    from langdetect import LangDetectException

    detector = _detectors().create()  # type: ignore[attr-defined]
    detector.seed = 0  # langdetect samples n-grams; unseeded, its verdict changes from call to call
    detector.append(text)
    try:
        return str(detector.detect())
    except LangDetectException:
        return None
