"""IFEval's published code, as lm-eval carries it, gives the same verdicts.

It needs NLTK's Punkt model for two instructions (number_sentences, capital_word_frequency), which has to be
downloaded. The same Punkt code runs here on our list of abbreviations instead: the algorithm is checked, the
trained model is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from answers import near_miss

from kascade.environments.instructions import INSTRUCTIONS
from kascade.environments.instructions.environment import grade_instructions
from kascade.environments.instructions.text import ABBREVIATIONS, OPENERS, sentences, tokens

NUM_ANSWERS = 4000
RELATIONS = ("less than", "at least")
WORDS = ["crash", "river", "tea", "the", "END", "hello there", "a", "I"]
LANGUAGES = ["en", "fr", "de", "ja"]

Arguments = Callable[[random.Random, str], dict[str, Any]]


def counted(name: str, most: int, relation: str | None = "relation") -> Arguments:
    def make(rng: random.Random, answer: str) -> dict[str, Any]:
        chosen: dict[str, Any] = {name: rng.randint(1, most)}
        return chosen | ({relation: rng.choice(RELATIONS)} if relation else {})

    return make


def quoting(name: str) -> Arguments:
    """A stretch of the answer itself, often in another case, or something else."""

    def make(rng: random.Random, answer: str) -> dict[str, Any]:
        stretch = rng.choice((answer[: rng.randint(1, 30)], answer[-rng.randint(1, 30) :], "The end"))
        return {name: rng.choice((stretch, stretch.upper())).strip() or "x"}

    return make


ARGUMENTS: dict[str, Arguments] = {
    "keywords:existence": lambda rng, _: {"keywords": rng.sample(WORDS, rng.randint(1, 2))},
    "keywords:frequency": lambda rng, a: {
        "keyword": rng.choice(WORDS),
        **counted("frequency", 3)(rng, a),
    },
    "keywords:forbidden_words": lambda rng, _: {"forbidden_words": rng.sample(WORDS, rng.randint(1, 2))},
    "keywords:letter_frequency": lambda rng, a: {
        "letter": rng.choice("aEtxz"),
        **counted("let_frequency", 6, "let_relation")(rng, a),
    },
    "language:response_language": lambda rng, _: {"language": rng.choice(LANGUAGES)},
    "length_constraints:number_sentences": counted("num_sentences", 6),
    "length_constraints:number_paragraphs": counted("num_paragraphs", 3, None),
    "length_constraints:number_words": counted("num_words", 20),
    "length_constraints:nth_paragraph_first_word": lambda rng, _: {
        "num_paragraphs": rng.choice((2, 3)),
        "nth_paragraph": rng.choice((1, 2)),
        "first_word": rng.choice(("crash", "I", "He", "a")),
    },
    "detectable_content:number_placeholders": counted("num_placeholders", 3, None),
    "detectable_content:postscript": lambda rng, _: {"postscript_marker": rng.choice(("P.S.", "P.P.S"))},
    "detectable_format:number_bullet_lists": counted("num_bullets", 3, None),
    "detectable_format:number_highlighted_sections": counted("num_highlights", 3, None),
    "detectable_format:multiple_sections": lambda rng, a: {
        "section_spliter": rng.choice(("Section", "SECTION")),
        **counted("num_sections", 2, None)(rng, a),
    },
    "combination:repeat_prompt": quoting("prompt_to_repeat"),
    "startend:end_checker": quoting("end_phrase"),
    "change_case:capital_word_frequency": counted("capital_frequency", 6, "capital_relation"),
}
PLAIN = (
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "detectable_format:title",
    "combination:two_responses",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "punctuation:no_comma",
    "startend:quotation",
)
SHAPED = {  # answers that random pieces rarely make
    "detectable_format:json_format": (
        '{"a": [1]}',
        '```json\n{"a": 1}\n```',
        "```\n[1]",
        '{"a": 1} x',
        "NaN",
    ),
    "change_case:english_capital": ("THE DOG RUNS TO THE OLD RIVER", "LE CHAT EST SUR LA TABLE", "123", "A"),
    "change_case:english_lowercase": ("the dog runs to the old river", "le chat est sur la table", "x1", "!"),
    "combination:two_responses": (
        "a******b",
        "a******a",
        "******a******b",
        "a************b",
        "a******b******",
    ),
    "length_constraints:nth_paragraph_first_word": (
        "Crash.\n\nI am",
        "'I' x\n\n\n\na",
        'He\n\n"a"\n\nI',
        "a\n\ncrash",
    ),
    "language:response_language": (
        "The weather is good today and we walk.",
        "Il fait beau aujourd'hui",
        "123",
    ),
}


@pytest.fixture(scope="module")
def registry() -> Iterator[dict[str, Any]]:
    """The published instructions by id, on a Punkt model without a download."""
    import nltk
    from langdetect import DetectorFactory
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    for word in OPENERS:
        parameters.ortho_context[word] = 1 << 5  # seen in lower case inside sentences
    punkt, treebank = PunktSentenceTokenizer(parameters), NLTKWordTokenizer()

    def word_tokenize(text: str) -> list[str]:
        return [token for sentence in punkt.tokenize(text) for token in treebank.tokenize(sentence)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "find", lambda *_, **__: True)  # importing it would start a download
        from lm_eval.tasks.ifeval import instructions_registry, instructions_util

        patch.setattr(instructions_util, "_get_sentence_tokenizer", lambda: punkt)
        patch.setattr(nltk, "word_tokenize", word_tokenize)
        patch.setattr(DetectorFactory, "seed", 0)
        yield dict(instructions_registry.INSTRUCTION_DICT, sentences=punkt.tokenize, tokens=word_tokenize)


def published(registry: dict[str, Any], name: str, arguments: dict[str, Any], answer: str) -> bool:
    checker = registry[name](name)
    checker.build_description(**arguments)
    return bool(answer.strip()) and bool(checker.check_following(answer))


def test_there_is_every_instruction_of_the_published_code(registry: dict[str, Any]) -> None:
    names = {name for name in registry if ":" in name}
    assert len(names) == 25
    assert names == {*ARGUMENTS, *PLAIN}
    assert names <= set(INSTRUCTIONS)


def test_verdicts_are_those_of_the_published_code(registry: dict[str, Any]) -> None:
    rng = random.Random(0)
    verdicts: dict[str, list[bool]] = {name: [] for name in (*ARGUMENTS, *PLAIN)}
    for turn in range(NUM_ANSWERS):
        name = list(verdicts)[turn % len(verdicts)]
        answer = rng.choice(SHAPED[name]) if name in SHAPED and rng.random() < 0.4 else near_miss(rng)
        arguments = ARGUMENTS[name](rng, answer) if name in ARGUMENTS else {}
        expected = published(registry, name, arguments, answer)
        assert INSTRUCTIONS[name].follows(answer, arguments) is expected, (name, arguments, answer)
        verdicts[name].append(expected)
    one_sided = [name for name, given in verdicts.items() if len(set(given)) == 1]
    assert not one_sided, "the answers never followed, or always did"


def test_loose_grading_is_that_of_the_published_code(registry: dict[str, Any]) -> None:
    from lm_eval.tasks.ifeval.utils import InputExample, test_instruction_following_loose

    rng = random.Random(1)
    names = [
        name for name in (*ARGUMENTS, *PLAIN) if not name.startswith(("language", "change_case:english"))
    ]
    strict_and_loose = []
    for _ in range(600):
        answer = rng.choice(("Sure:\n", "**", "")) + near_miss(rng)
        chosen = rng.sample(names, 2)
        kwargs = [ARGUMENTS[name](rng, answer) if name in ARGUMENTS else {} for name in chosen]
        expected = test_instruction_following_loose(InputExample(0, chosen, "", kwargs), answer)
        fields = {"instruction_id_list": chosen, "kwargs": kwargs, "grading_mode": "fraction"}
        loose = grade_instructions({**fields, "strictness": "loose"}, answer)
        assert loose.reward == sum(expected.follow_instruction_list) / 2, (chosen, kwargs, answer)
        strict_and_loose.append((grade_instructions(fields, answer).reward, loose.reward))
    assert any(strict < loose for strict, loose in strict_and_loose)
    assert all(strict <= loose for strict, loose in strict_and_loose)


def test_sentences_and_tokens_are_those_of_nltk(registry: dict[str, Any]) -> None:
    rng = random.Random(2)
    for _ in range(800):
        answer = near_miss(rng)
        assert sentences(answer) == registry["sentences"](answer), repr(answer)
        assert tokens(answer) == registry["tokens"](answer), repr(answer)
