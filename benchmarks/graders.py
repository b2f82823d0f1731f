"""Answers graded per CPU second: each environment's own tasks, and harder material beside its peers.

To each generated task its reference, another's, and none are graded. The peers are the published code of
IFEval (as lm-eval carries it) and math-verify called directly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure import Measurement, compare, median_cpu_time
from kascade.environments import BUILTIN, get_environment
from kascade.environments.base import generate_tasks
from kascade.environments.instructions import INSTRUCTIONS
from kascade.environments.instructions.text import ABBREVIATIONS
from kascade.task import Task

INSTRUCTION_CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("keywords:existence", {"keywords": ["river", "castle"]}),
    ("keywords:frequency", {"keyword": "river", "frequency": 2, "relation": "at least"}),
    ("keywords:forbidden_words", {"forbidden_words": ["tea", "gold"]}),
    ("length_constraints:number_words", {"num_words": 100, "relation": "at least"}),
    ("length_constraints:number_sentences", {"num_sentences": 5, "relation": "at least"}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}),
    ("change_case:capital_word_frequency", {"capital_frequency": 3, "capital_relation": "less than"}),
    ("startend:end_checker", {"end_phrase": "the end"}),
    ("punctuation:no_comma", {}),
)
VOCABULARY = (
    "the",
    "river",
    "runs",
    "by",
    "NASA",
    "Dr.",
    "Smith",
    "[name],",
    "*yes*",
    "castle",
    "and",
    "saw",
)
LATEX = (  # expected, given
    (r"\frac{333}{1997}", r"\frac{666}{3994}"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"x^2+1", r"1+x^2"),
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    (r"[1,2)", r"[1,2]"),
)


def run(quick: bool) -> list[Measurement]:
    count, rounds = (16, 1) if quick else (100, 5)
    return [
        *(measure(name, count, rounds) for name in BUILTIN),
        instructions(rounds),
        formulas(2 if quick else 40, rounds),
    ]


def measure(name: str, count: int, rounds: int) -> Measurement:
    environment = get_environment(name)
    groups = answered(generate_tasks(environment, split="test", count=count, seed=0))
    seconds = median_cpu_time(lambda: environment.grade_all(groups), rounds)
    return Measurement(f"grader, {name}", 3 * count / seconds, "answers / CPU s")


def answered(tasks: Sequence[Task]) -> list[tuple[Task, list[str]]]:
    references = [str(task.reference) for task in tasks]
    others = references[1:] + references[:1]
    return [(task, [own, other, ""]) for task, own, other in zip(tasks, references, others, strict=True)]


def instructions(rounds: int) -> Measurement:
    """Eleven of IFEval's instructions on answers of about 200 words, none seen twice in a row."""
    peer = ifeval_peer()
    texts = essays(40)

    def ours() -> None:
        for text in texts:
            for name, arguments in INSTRUCTION_CASES:
                INSTRUCTIONS[name].follows(text, arguments)

    def theirs() -> None:
        for text in texts:
            for name, arguments in INSTRUCTION_CASES:
                peer(name, arguments, text)

    own, other = compare(ours, theirs, rounds)
    checks = len(texts) * len(INSTRUCTION_CASES)
    return Measurement(
        "IFEval instructions", checks / own, "checks / CPU s", checks / other, "lm-eval's IFEval"
    )


def essays(count: int) -> list[str]:
    rng = random.Random(0)
    return [
        "\n".join(" ".join(rng.choices(VOCABULARY, k=20)).capitalize() + rng.choice(".!?") for _ in range(10))
        for _ in range(count)
    ]


def ifeval_peer() -> Callable[[str, dict[str, Any], str], bool]:
    """The published check by id, on the same list of abbreviations (its own model is a download)."""
    import nltk
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    punkt, treebank = PunktSentenceTokenizer(parameters), NLTKWordTokenizer()
    find, nltk.data.find = nltk.data.find, lambda *_, **__: True  # importing it would start a download
    try:
        from lm_eval.tasks.ifeval import instructions_registry, instructions_util
    finally:
        nltk.data.find = find
    instructions_util._get_sentence_tokenizer = lambda: punkt
    nltk.word_tokenize = lambda text: [t for s in punkt.tokenize(text) for t in treebank.tokenize(s)]

    def check(name: str, arguments: dict[str, Any], text: str) -> bool:
        checker = instructions_registry.INSTRUCTION_DICT[name](name)
        checker.build_description(**arguments)
        return bool(checker.check_following(text))

    return check


def formulas(times: int, rounds: int) -> Measurement:
    """LaTeX answers through a process of their own, and by math-verify in this one without a time limit."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    environment = get_environment("math_with_judge")
    groups = [(formula_task(expected), [rf"\boxed{{{given}}}"] * times) for expected, given in LATEX]
    configs = [ExprExtractionConfig(), LatexExtractionConfig()]

    def ours() -> None:
        environment.grade_all(groups)

    def theirs() -> None:
        for expected, given in LATEX:
            for _ in range(times):
                gold = parse(rf"\boxed{{{expected}}}", [LatexExtractionConfig()], parsing_timeout=None)
                verify(
                    gold, parse(rf"\boxed{{{given}}}", configs, parsing_timeout=None), timeout_seconds=None
                )

    own, other = compare(ours, theirs, rounds)
    count = times * len(LATEX)
    return Measurement("math, LaTeX", count / own, "answers / CPU s", count / other, "math-verify alone")


def formula_task(expected: str) -> Task:
    row = {"responses_create_params": {"input": "Solve it."}, "expected_answer": expected}
    return get_environment("math_with_judge").from_row(row)
