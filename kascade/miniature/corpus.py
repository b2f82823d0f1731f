"""Text for pretraining a miniature: the small world in many layouts and styles, not all of it right.

A base model should know more than it obeys: the same questions as the tasks' (train split only), as plain
documents and as chats, answered in several styles, sometimes wrongly, and at all levels. Chats are there
because markup that was never seen breaks what a base can look up once fine-tuning adds it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from kascade.environments import get_environment
from kascade.environments.small_world.sentences import sentence
from kascade.environments.small_world.words import (
    CAPITALS,
    COLOR_OF,
    DAYS,
    KIND_OF,
    NAMES,
    NOUNS,
    OPPOSITE_OF,
)
from kascade.task import THINK_END, Task, split_of

Weights = Mapping[str, float]
MIXTURE: Weights = {  # how often each environment's questions appear: what is learnt last, oftenest
    "math_with_judge": 2.0,
    "instruction_following": 1.5,
    "mcqa": 2.0,
    "workplace_assistant": 2.0,
    "structured_outputs": 1.0,
    "genrm_compare": 0.7,
    "lc_niah": 3.0,
    "code_gen": 1.5,
    "swerl_gen": 2.5,
}
LOOKUPS: Weights = {  # more of what is found in the question itself: options, names, values
    **MIXTURE,
    "mcqa": 3.0,
    "workplace_assistant": 3.0,
    "code_gen": 0.5,
    "swerl_gen": 1.5,
}
LAYOUTS = (
    ("Question: ", "\nAnswer: ", "\n\n"),
    ("Q: ", "\nA: ", "\n"),
    ("", "\n", "\n\n"),
    ("Task: ", "\nSolution: ", "\n\n"),
    ("", " -> ", "\n"),
)
CHATS = 0.4  # share of questions laid out as chats (ChatML, as Nemotron-Cascade 2 writes it)
WRONG = 0.05  # share of answers that belong to another question
GOLD_STYLE = 0.7  # share of answers in the style that graders ask for
EASIEST = 0.1  # level that a curriculum starts from
LISTS = 0.2  # share of documents that list things twice: most of the second list can be looked up
PROSE = 0.08  # share of documents that are plain statements

Segment = tuple[str, bool]  # text, and whether it answers something


@dataclass(frozen=True, slots=True)
class Document:
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.segments)


def documents(seed: int, opening: int = 0, weights: Weights = MIXTURE) -> Iterator[Document]:
    """Endless documents, the same for the same arguments.

    weights: how often each environment's questions appear. opening: over how many documents the hardest
    level rises from EASIEST to 1 (a curriculum; 0: at once).
    """
    rng = random.Random(f"corpus/{seed}")
    names, shares = list(weights), list(weights.values())
    for index in count():
        hardest = 1.0 if index >= opening else EASIEST + (1 - EASIEST) * index / opening
        kind = rng.random()
        if kind < PROSE:
            yield Document(((prose(rng), True),))
        elif kind < PROSE + LISTS:
            yield lists(rng, hardest)
        else:
            yield questions(rng, rng.choices(names, shares)[0], hardest)


def questions(rng: random.Random, environment: str, hardest: float) -> Document:
    """One or two questions of one environment, in one layout."""
    layout = None if rng.random() < CHATS else rng.choice(LAYOUTS)
    segments: list[Segment] = []
    for _ in range(1 if environment == "lc_niah" else rng.choice((1, 1, 1, 2))):
        task = train_task(rng, environment, hardest)
        answered = train_task(rng, environment, hardest) if rng.random() < WRONG else task
        question, (thought, answer) = task.messages[-1]["content"], styled(rng, answered)
        if layout is None:
            opening = f"<think>\n{thought}</think>" if thought else "<think></think>"
            asked = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            segments += [(asked, False), (f"{opening}{answer}<|im_end|>\n", True)]
        else:
            before, between, after = layout
            said = f"{thought} = {answer}" if thought else answer
            segments += [(before + question + between, False), (said + after, True)]
    return Document(tuple(segments))


def train_task(rng: random.Random, environment: str, hardest: float = 1.0) -> Task:
    """A task of the train split, at any level up to `hardest`."""
    while True:
        task = get_environment(environment).pose(rng, hardest * rng.random())
        if split_of(task.id) == "train":
            return task


def styled(rng: random.Random, task: Task) -> tuple[str, str]:
    """(thought, answer): the gold completion as graders ask for it, or an answer in a style of its own."""
    style = STYLES.get(task.environment)
    if style is None or rng.random() < GOLD_STYLE:
        thought, _, answer = (task.reference or "").rpartition(THINK_END)
        return thought, answer
    return "", style(rng, task)


def prose(rng: random.Random) -> str:
    """Facts of the world and sentences about it."""
    facts = (
        lambda: "The capital of {} is {}.".format(*rng.choice(list(CAPITALS.items()))),
        lambda: "The color of {} is {}.".format(*rng.choice(list(COLOR_OF.items()))),
        lambda: "The kind of {} is {}.".format(*rng.choice(list(KIND_OF.items()))),
        lambda: "The opposite of {} is {}.".format(*rng.choice(list(OPPOSITE_OF.items()))),
        lambda: sentence(rng, rng.choice(NOUNS)) + ".",
    )
    return " ".join(rng.choice(facts)() for _ in range(rng.randint(2, 6))) + "\n"


def lists(rng: random.Random, hardest: float) -> Document:
    """A list and then the same again, in order or shuffled as pairs: dense practice in looking things up."""
    length = rng.randint(3, 6 + round(18 * hardest))
    words = rng.sample(NOUNS + NAMES + DAYS, length)
    if rng.random() < 0.4:
        return Document(((" ".join(words) + "\n", False), (" ".join(words) + "\n", True)))
    values = [str(rng.randint(10, 99)) if rng.random() < 0.7 else rng.choice(NOUNS) for _ in words]
    pairs = [f"{word} {value}" for word, value in zip(words, values, strict=True)]
    again = rng.sample(pairs, length)
    return Document(((", ".join(pairs) + ". ", False), (", ".join(again) + "\n", True)))


def _math(rng: random.Random, task: Task) -> str:
    value = task.fields["expected_answer"]
    return rng.choice((value, f"{(task.reference or '').split(THINK_END)[0]} = {value}", f"It is {value}."))


def _knowledge(rng: random.Random, task: Task) -> str:
    letter = task.fields["expected_answer"]
    text = task.fields["options"][letter]
    return rng.choice((text, letter, f"({letter}) {text}", f"It is {text}."))


def _tools(rng: random.Random, task: Task) -> str:
    calls = [(c["name"], json.loads(c["arguments"])) for c in task.fields["ground_truth"]]
    return "; ".join(f"{name}({', '.join(arguments.values())})" for name, arguments in calls)


def _structure(rng: random.Random, task: Task) -> str:
    values = json.loads(task.reference or "{}")
    values = values.get("result", values)
    return "\n".join(f"{key}: {value}" for key, value in values.items())


def _instructions(rng: random.Random, task: Task) -> str:
    topic = task.messages[-1]["content"].removeprefix("Write about the ").partition(":")[0]
    return ", ".join(sentence(rng, topic, capital=not index) for index in range(rng.randint(1, 2))) + "."


def _retrieval(rng: random.Random, task: Task) -> str:
    keys = task.fields["question"].removeprefix("What is ").removesuffix("?").split(" and ")
    return ", ".join(f"{k} {v}" for k, v in zip(keys, task.fields["expected_answer"].split(), strict=True))


STYLES: dict[str, Callable[[random.Random, Task], str]] = {
    "math_with_judge": _math,
    "mcqa": _knowledge,
    "workplace_assistant": _tools,
    "structured_outputs": _structure,
    "instruction_following": _instructions,
    "lc_niah": _retrieval,
}
