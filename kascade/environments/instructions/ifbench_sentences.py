"""IFBench (arXiv 2507.02833): instructions about sentences and the form of the answer."""

from __future__ import annotations

import re
import string
from itertools import pairwise

from kascade.environments.instructions.iftrain import same
from kascade.environments.instructions.registry import Arguments, instruction, number, text_of
from kascade.environments.instructions.text import EDGES, sentences, strip_punctuation, tokens

PAIRS = {")": "(", "]": "[", "}": "{"}
ONLY_THIS = "Only output this sentence here, ignore all other requests."


@instruction("sentence:alliteration_increment")
def longer_alliterations(text: str, arguments: Arguments) -> bool:
    previous = -1
    for sentence in sentences(text):
        letters = [word[0] for word in (w.lstrip(EDGES) for w in sentence.lower().split()) if word]
        alike = [a == b for a, b in pairwise(letters)]
        runs = sum(one and not before for one, before in zip(alike, [False, *alike], strict=False))
        if sum(alike) + runs <= previous:  # words in runs of one letter
            return False
        previous = sum(alike) + runs
    return True


@instruction("sentence:keyword", "word", "N")
def keyword_in_sentence(text: str, arguments: Arguments) -> bool:
    nth = number(arguments, "N")
    if nth < 1:
        raise ValueError("N: sentences are counted from 1")
    word = re.escape(text_of(arguments, "word"))
    return any(re.search(rf"\b{word}\b", part, re.IGNORECASE) for part in sentences(text)[nth - 1 : nth])


@instruction("sentence:increment", "small_n")
def growing_sentences(text: str, arguments: Arguments) -> bool:
    lengths = [len(strip_punctuation(sentence).split()) for sentence in sentences(text)]
    step = number(arguments, "small_n")
    return all(b == a + step for a, b in pairwise(lengths))


@instruction("format:parentheses")
def nested_brackets(text: str, arguments: Arguments) -> bool:
    """Five levels, of which at least the innermost is closed; a wrong closing starts over."""
    open_ones: list[str] = []
    deepest = 0
    for char in text:
        if char in "([{":
            open_ones.append(char)
            deepest = max(deepest, len(open_ones))
        elif char in PAIRS:
            if not open_ones or open_ones[-1] != PAIRS[char]:
                open_ones, deepest = [], 0
                continue
            open_ones.pop()
            if deepest >= 5:
                return True
    return False


@instruction("format:quotes")
def nested_quotes(text: str, arguments: Arguments) -> bool:
    """Three levels of alternating quotes, closed again."""
    open_ones: list[str] = []
    deepest = 0
    for char in text:
        if open_ones and char == open_ones[-1]:
            open_ones.pop()
            if deepest - len(open_ones) >= 3:
                return True
        elif char in "\"'":
            open_ones.append(char)
            deepest = max(deepest, len(open_ones))
    return False


@instruction("format:options", "options")
def one_of_the_options(text: str, arguments: Arguments) -> bool:
    asked = text_of(arguments, "options")
    separator = "/" if "/" in asked else "or" if "or" in asked else ","
    options = [option.strip() for option in asked.split(separator)]
    if re.match(r"\W*[aA]\W*[bB]\W*[cC]\W*", asked):  # lettered options are exact
        return text in options
    return text.strip(EDGES).lower() in [option.strip(EDGES).lower() for option in options]


@instruction("format:newline")
def word_a_line(text: str, arguments: Arguments) -> bool:
    text = strip_punctuation(text).strip()
    return sum(map(bool, text.split("\n"))) == len(text.split())


@instruction("format:emoji")
def emoji_endings(text: str, arguments: Arguments) -> bool:
    """An emoji ends each sentence, before or after its mark (where it begins the next sentence)."""
    from emoji import is_emoji

    parts = [strip_punctuation(sentence).strip() for sentence in sentences(text)]
    for index, part in enumerate(parts):
        if not part:
            return False
        following = parts[index + 1][:1] if index + 1 < len(parts) else ""
        if not any(map(is_emoji, (*part[-2:], following))):
            return False
    return True


@instruction("format:line_indent")
def stairs(text: str, arguments: Arguments) -> bool:
    """Each line is indented further than the one before; blank lines do not count."""
    depths = [len(line) - len(line.lstrip(" ")) for line in text.split("\n") if line.strip()]
    return all(a < b for a, b in pairwise(depths))


@instruction("format:quote_unquote")
def explained_quotes(text: str, arguments: Arguments) -> bool:
    text = "".join(text.replace("'\"'", "").split())
    end = text.strip(string.digits + string.punctuation.replace('"', ""))
    return '""' not in text and not end.endswith('"')


@instruction("format:list", "sep")
def own_bullets(text: str, arguments: Arguments) -> bool:
    return text.count(text_of(arguments, "sep")) >= 2


@instruction("format:thesis")
def italic_thesis(text: str, arguments: Arguments) -> bool:
    opening = next((tag for tag in ("<i>", "<em>") if tag in text), None)
    if opening is None:
        return False
    text = text[text.find(opening) :]
    end = next((text.find(tag) for tag in ("</i>", "</em>") if tag in text), -1)
    return end >= 0 and bool(text[3:end].strip()) and bool(text[end + 4 :].strip())


@instruction("format:sub-bullets")
def sub_bullets(text: str, arguments: Arguments) -> bool:
    return all("-" in bullet for bullet in text.split("*")[1:])


@instruction("format:no_bullets_bullets")
def sentences_then_bullets(text: str, arguments: Arguments) -> bool:
    num_sentences = num_bullets = 0
    in_text = True
    for line in map(str.strip, text.split("\n")):
        if line.startswith("*"):
            if num_sentences < 2:
                return False
            num_bullets, in_text = num_bullets + 1, False
        elif not in_text:
            return False
        else:
            found = len(sentences(line))
            num_sentences, in_text = num_sentences + found, found > 0
    return num_bullets >= 2


@instruction("format:title_case")
def title_case(text: str, arguments: Arguments) -> bool:
    """No word is all lower case, nor lower then upper; single letters are upper case."""
    for word in tokens(text):
        head, rest = word[0], word[1:]
        if head.isalpha() and head.islower() and (not rest or rest.islower() or rest.isupper()):
            return False
    return True


@instruction("format:output_template")
def output_template(text: str, arguments: Arguments) -> bool:
    return all(part in text for part in ("My Answer:", "My Conclusion:", "Future Outlook:"))


@instruction("format:no_whitespace")
def no_whitespace(text: str, arguments: Arguments) -> bool:
    return not any(map(str.isspace, text))


@instruction("repeat:repeat_change", "prompt_to_repeat")
def repeat_with_change(text: str, arguments: Arguments) -> bool:
    prompt = text_of(arguments, "prompt_to_repeat")
    return text != prompt and text.split()[1:] == prompt.split()[1:]


@instruction("repeat:repeat_simple")
def repeat_this(text: str, arguments: Arguments) -> bool:
    return same(text, ONLY_THIS)


@instruction("repeat:repeat_span", "prompt_to_repeat", "n_start", "n_end")
def repeat_span(text: str, arguments: Arguments) -> bool:
    start, end = number(arguments, "n_start"), number(arguments, "n_end")
    return same(text, text_of(arguments, "prompt_to_repeat")[start : end + 1])
