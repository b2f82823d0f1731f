"""Asking a language model for a verdict. A judge that cannot be asked is an error of the grade, never a zero.

Environments ask whoever `use_judge` set: an endpoint, a checkpoint in this process, or nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from kascade.task import final_answer

Conversation = Sequence[Mapping[str, str]]
Verdict = TypeVar("Verdict")

READ_ATTEMPTS = 3  # answers asked for until one can be read (NeMo-Gym: genrm_parse_retries 3)


class JudgeError(Exception):
    """The judge could not be asked, or said nothing that can be read. Its message says which."""


class UnreadableVerdict(JudgeError):
    """None of the judge's answers can be read: what it was asked about may have seen to that."""


class Judge(Protocol):
    """Answers conversations. Implementations are safe to call from several threads."""

    @property
    def concurrency(self) -> int:
        """How many questions may be under way at once."""
        ...

    def ask(self, conversation: Conversation, *, draw: int = 0) -> str:
        """The judge's answer; another `draw` is another sample. Raises JudgeError."""
        ...


class Nobody:
    """The judge of a recipe that names none."""

    concurrency = 1

    def ask(self, conversation: Conversation, *, draw: int = 0) -> str:
        raise JudgeError("no judge is named: add `judge: {url: ..., model: ...}` to the recipe")


_current: list[Judge] = [Nobody()]


def use_judge(judge: Judge | None) -> None:
    """Let `judge` be asked from now on in this process; None: nobody."""
    _current[0] = judge or Nobody()


def current_judge() -> Judge:
    return _current[0]


def judge_is_named() -> bool:
    """Whether there is anybody to ask."""
    return not isinstance(_current[0], Nobody)


def read_verdict(
    judge: Judge, conversation: Conversation, read: Callable[[str], Verdict], *, draw: int = 0
) -> Verdict:
    """What `read` makes of the judge's answer (its thinking left out), asked again when it raises ValueError.

    Raises UnreadableVerdict when no answer can be read, JudgeError when none comes.
    """
    problem = ""
    for attempt in range(READ_ATTEMPTS):
        said = final_answer(judge.ask(conversation, draw=draw * READ_ATTEMPTS + attempt))
        try:
            return read(said)
        except ValueError as error:
            problem = f"{error}; it said {said[-200:]!r}"
    raise UnreadableVerdict(f"the judge's answer cannot be read: {problem}")


def ask_all(
    judge: Judge, questions: Sequence[Conversation], read: Callable[[str], Verdict], *, draw: int = 0
) -> list[Verdict | JudgeError]:
    """`read_verdict` of many questions, as many at once as the judge takes; failures in their places."""

    def one(conversation: Conversation) -> Verdict | JudgeError:
        try:
            return read_verdict(judge, conversation, read, draw=draw)
        except JudgeError as error:
            return error

    if len(questions) <= 1 or judge.concurrency == 1:
        return [one(question) for question in questions]
    with ThreadPoolExecutor(min(judge.concurrency, len(questions))) as pool:
        return list(pool.map(one, questions))


def fence(*texts: str) -> str:
    """A mark that none of the texts can hold: their own hash. Between two of it stands what is judged."""
    joined = json.dumps(texts).encode()
    return f"=====[{hashlib.sha256(joined).hexdigest()[:16]}]====="


def quoted(text: str, mark: str) -> str:
    """A text to be judged: fenced, and without control tokens that a chat template would obey."""
    harmless = text.replace("<|", "<\u200b|").replace("</think>", "<\u200b/think>")
    return f"{mark}\n{harmless}\n{mark}"


def question_about(template: str, texts: Mapping[str, str], **told: str) -> Conversation:
    """A template as one question: `texts`, which are to be judged, fenced and quoted; `told` as they are."""
    mark = fence(*texts.values())
    shown = {name: quoted(text, mark) for name, text in texts.items()}
    return [{"role": "user", "content": template.format(**shown, **told)}]


def read_label(text: str, yes: str, no: str) -> bool:
    """Whether the last line is the label `yes`. Raises ValueError when it is neither label."""
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1].strip().strip("*`. ") if lines else ""
    if last not in (yes, no):
        raise ValueError(f"the last line is neither {yes} nor {no}")
    return last == yes
