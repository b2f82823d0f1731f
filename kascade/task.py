"""The words of tasks and grades: what an environment poses, and what a grader says of an answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

from pydantic import StringConstraints

# A skill. The list is open: an environment declares the domain that it teaches and tests.
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
SHIPPED_DOMAINS: tuple[Domain, ...] = (
    "math",
    "instruction_following",
    "knowledge",
    "tool_use",
    "structured_output",
    "chat",
    "long_context",
    "code",
    "software_engineering",
)


def in_order(domains: Iterable[Domain]) -> list[Domain]:
    """Shipped domains first, in their usual order, then others by name."""
    places = {domain: place for place, domain in enumerate(SHIPPED_DOMAINS)}
    return sorted(set(domains), key=lambda domain: (places.get(domain, len(places)), domain))


Split = Literal["train", "validation", "test"]
# Whether a prompt asks for thinking, for none, or leaves it to the model.
Mode = Literal["think", "no_think", "unasked"]

SPLITS: tuple[Split, ...] = get_args(Split)


class Message(TypedDict):
    """One turn. tool_calls: {"type": "function", "function": {"name", "arguments"}}, of an assistant only."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt with what is needed to grade an answer.

    environment: the registered name, spelt as the NeMo-Gym resource server where one exists.
    messages: the conversation, ending with a user turn or a tool's result.
    tools: OpenAI function definitions.
    thinking: whether the answer starts inside an open think block.
    reference: a full gold completion (what SFT imitates and preflight grades), where one is known.
    fields: what the grader needs (NeMo-Gym's environment fields).
    mode: what the data source asks of the model; None: thinking where `thinking` says so, else none.
    """

    environment: str
    domain: Domain
    messages: tuple[Message, ...]
    fields: Mapping[str, Any]
    reference: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool = False
    mode: Mode | None = None

    @property
    def asks_to_think(self) -> bool | None:
        """What the prompt asks for; None: the model decides."""
        return None if self.mode == "unasked" else self.thinking

    @property
    def id(self) -> str:
        """Content hash of what is asked: the same question always has the same id."""
        asked = json.dumps([self.environment, self.messages, self.tools], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(asked.encode()).hexdigest()[:16]


def preference_pair(task: Task) -> tuple[str, str] | None:
    """The preferred and the rejected answer that the task's row gives; None where it gives no such pair."""
    chosen, rejected = task.fields.get("chosen"), task.fields.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str) or chosen == rejected:
        return None
    return chosen, rejected


@dataclass(frozen=True, slots=True)
class Grade:
    """What a grader says of one answer. An error is not a zero: it masks the rollout and is counted.

    reward: meaningful only when error is None; in [0, 1] for verifiable domains.
    """

    reward: float
    components: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    @classmethod
    def failed(cls, error: str) -> Grade:
        return cls(reward=0.0, error=error)


class Called(str):
    """An answer with tool calls, as text in our own form that graders read.

    words: the text before them, thinking included; calls: the calls as messages hold them, from which a
    model's own template writes the form that is learnt.
    """

    words: str
    calls: tuple[Mapping[str, Any], ...]

    def __new__(cls, text: str, words: str, calls: Iterable[Mapping[str, Any]]) -> Called:
        made = super().__new__(cls, text)
        made.words, made.calls = words, tuple(calls)
        return made

    def __reduce__(self) -> tuple[type[Called], tuple[str, str, tuple[Mapping[str, Any], ...]]]:
        return type(self), (str(self), self.words, self.calls)

    def with_words(self, words: str) -> Called:
        """The same calls after other words."""
        return Called(words + self[len(self.words) :], words, self.calls)


THINK_START, THINK_END = "<think>", "</think>"
# Models also write <thinking>, or either in capitals: what it holds is no answer, however it is spelt.
ANY_START = re.compile(r"<think(?:ing)?\s*>", re.IGNORECASE)
ANY_END = re.compile(r"</think(?:ing)?\s*>", re.IGNORECASE)


def final_answer(completion: str) -> str:
    """What follows the last end-of-think tag; the whole text when there is none."""
    if isinstance(completion, Called):
        return completion.with_words(final_answer(completion.words))
    rest = completion.rpartition(THINK_END)[2]  # the usual spelling needs no pattern
    return (ANY_END.split(rest)[-1] if _may_end(rest) else rest).strip()


def _may_start(text: str) -> bool:
    """Whether thinking may begin in a text: four searches for letters take less than one pattern."""
    return "<th" in text or "<TH" in text or "<Th" in text or "<tH" in text


def _may_end(text: str) -> bool:
    return "</" in text and ("</th" in text or "</TH" in text or "</Th" in text or "</tH" in text)


def _ended(text: str) -> bool:
    return _may_end(text) and ANY_END.search(text) is not None


def visible_answer(task: Task, completion: str) -> str:
    """What follows the thinking, up to thinking that was opened later and never ended.

    Nothing where the task opened the thinking and the completion never ended it.
    """
    if type(completion) is str and not task.thinking:  # most answers hold nothing like a tag
        text: str = completion
        if not ("<t" in text or "</t" in text or "<T" in text or "</T" in text):
            return text.strip()
    if task.thinking and THINK_END not in completion and not _ended(completion):
        return ""
    rest = final_answer(completion)
    return ANY_START.split(rest, maxsplit=1)[0].strip() if _may_start(rest) else rest


def in_mode(task: Task, mode: Mode | None) -> Task:
    """The task as its source asks it. An answer to imitate fits: with thinking, or without.

    Where thinking is asked for and the answer holds none, there is nothing to imitate.
    """
    if mode is None:
        return task
    reference = task.reference
    if reference is not None and mode == "no_think":
        reference = final_answer(reference)
    if reference is not None and mode == "think" and THINK_END not in reference:
        reference = None
    return replace(task, mode=mode, thinking=mode == "think", reference=reference)


def thought(task: Task, completion: str) -> bool:
    """Whether an answer thinks: a think block with something in it, opened by the prompt or by the answer."""
    inside = completion if task.thinking else completion.partition(THINK_START)[2]
    return bool(inside.partition(THINK_END)[0].strip())


OBEYED, THOUGHT = "switch_obeyed", "thought"  # components of grades where the data source has a `mode`


def with_switch(task: Task, answers: Sequence[str], grades: Sequence[Grade]) -> list[Grade]:
    """The grades with what each answer did about the thinking that its prompt asked for, or left open."""
    done = switch_of(task, answers)
    return [
        replace(grade, components={**grade.components, **does}) if does else grade
        for grade, does in zip(grades, done, strict=True)
    ]


def switch_of(task: Task, answers: Sequence[str]) -> list[dict[str, float]]:
    """Whether each answer thinks, and whether that was asked for; empty where the task has no mode."""
    if task.mode is None:
        return [{} for _ in answers]
    asked, thinks = task.asks_to_think, [thought(task, answer) for answer in answers]
    return [
        {THOUGHT: float(one)} | ({} if asked is None else {OBEYED: float(one == asked)}) for one in thinks
    ]


def switch_shares(components: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Shares of answers that think, and that think exactly if asked to, of those that say so."""
    found = {name: [each[name] for each in components if name in each] for name in (OBEYED, THOUGHT)}
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def split_of(task_id: str) -> Split:
    """Split by content hash, so train, validation and test are disjoint: 80 / 10 / 10."""
    bucket = int(hashlib.sha256(task_id.encode()).hexdigest()[:8], 16) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"
