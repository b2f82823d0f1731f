"""All answers of an exam, kept with their grades: an exam goes on where it was interrupted, and can be graded
again without sampling again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kascade.environments import get_environment
from kascade.environments.base import Grade, Task
from kascade.environments.crashes import graded as graded_by
from kascade.stages.rollouts import Group


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """The answers to one task, in order. rewards: None where the grader failed, which `errors` explains.

    several_turns: a conversation, whose grade came from what happened in it; it is not graded again.
    """

    task_id: str
    greedy: bool
    prompt: str
    answers: tuple[str, ...]
    num_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    rewards: tuple[float | None, ...]
    components: tuple[Mapping[str, float], ...]
    errors: tuple[str | None, ...]
    several_turns: bool

    @classmethod
    def of(cls, group: Group, *, greedy: bool) -> TaskAnswers:
        answered = group.answered
        environment = get_environment(answered.task.environment)
        session = environment.start(answered.task)
        if session is not None:
            session.close()
        found = cls(
            task_id=answered.task.id,
            greedy=greedy,
            prompt="\n\n".join(message["content"] for message in answered.task.messages),
            answers=answered.answers,
            num_tokens=tuple(len(sample.logprobs) for sample in answered.samples),
            truncated=tuple(sample.finish_reason == "length" for sample in answered.samples),
            rewards=(),
            components=(),
            errors=(),
            several_turns=session is not None,
        )
        return found.graded(group.grades)

    def graded(self, grades: Sequence[Grade]) -> TaskAnswers:
        """The same answers with these grades."""
        return replace(
            self,
            rewards=tuple(None if grade.error else grade.reward for grade in grades),
            components=tuple(dict(grade.components) for grade in grades),
            errors=tuple(grade.error for grade in grades),
        )


def read_answers(path: Path) -> list[TaskAnswers]:
    """What is kept there; [] when there is nothing. A line torn by a kill is left out."""
    return list(_lines(path)) if path.is_file() else []


def _lines(path: Path) -> Iterator[TaskAnswers]:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            fields: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(line).items()
            }
            yield TaskAnswers(**fields)


def append_answers(path: Path, answers: Sequence[TaskAnswers]) -> None:
    """Add to what is kept, over a torn last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = path.read_bytes() if path.is_file() else b""
    whole = kept[: kept.rfind(b"\n") + 1]
    with path.open("r+b" if path.is_file() else "wb") as file:
        file.truncate(len(whole))
        file.seek(len(whole))
        file.write(answer_lines(answers).encode(errors="backslashreplace"))


def answer_lines(answers: Sequence[TaskAnswers]) -> str:
    return "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in answers)


def grade_again(tasks: Sequence[Task], kept: Sequence[TaskAnswers]) -> list[TaskAnswers]:
    """The kept answers with fresh grades; conversations, and answers to other tasks, keep theirs."""
    by_id = {task.id: task for task in tasks}
    again = [one for one in kept if one.task_id in by_id and not one.several_turns]
    grades: dict[int, list[Grade]] = {}
    for name in dict.fromkeys(by_id[one.task_id].environment for one in again):
        mine = [one for one in again if by_id[one.task_id].environment == name]
        groups = [(by_id[one.task_id], list(one.answers)) for one in mine]
        graded = graded_by(get_environment(name), groups)
        grades |= {id(one): found for one, found in zip(mine, graded, strict=True)}
    return [one.graded(grades[id(one)]) if id(one) in grades else one for one in kept]
