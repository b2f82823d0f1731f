"""All answers to a benchmark, kept with their grades: it continues where it was interrupted, and can be
graded again without sampling again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kascade.environments import get_environment
from kascade.environments.crashes import graded as graded_by
from kascade.rollout.answers import Group
from kascade.storage.files import LINE_BITS, is_whole_line, sealed
from kascade.task import Grade, Task, with_switch


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """The answers to one task, in order. rewards: None where the grader failed, which `errors` explains.

    several_turns: a conversation, whose grade came from what happened in it; it is not graded again.
    start: how many of the task's answers were drawn before these.
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
    start: int = 0

    @classmethod
    def of(cls, group: Group, *, greedy: bool, start: int = 0) -> TaskAnswers:
        """The answers of a graded group. start: how many of the task's were drawn before."""
        answered = group.answered
        environment = get_environment(answered.task.environment)
        session = environment.start(answered.task)
        if session is not None:
            session.close()
        found = cls(
            task_id=answered.task.id,
            greedy=greedy,
            prompt=prompt_text(answered.task),
            answers=answered.answers,
            num_tokens=tuple(len(sample.logprobs) for sample in answered.samples),
            truncated=tuple(sample.finish_reason == "length" for sample in answered.samples),
            rewards=(),
            components=(),
            errors=(),
            several_turns=session is not None,
            start=start,
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

    def followed_by(self, later: TaskAnswers) -> TaskAnswers:
        """These answers and the ones drawn after them, as one."""
        return replace(
            self,
            answers=self.answers + later.answers,
            num_tokens=self.num_tokens + later.num_tokens,
            truncated=self.truncated + later.truncated,
            rewards=self.rewards + later.rewards,
            components=self.components + later.components,
            errors=self.errors + later.errors,
        )

    @property
    def is_ungraded(self) -> bool:
        """Whether a grade is missing on any of the answers."""
        return any(error is not None for error in self.errors)


def prompt_text(task: Task) -> str:
    """What a task asks, for people to read."""
    return "\n\n".join(message["content"] for message in task.messages)


def joined(kept: Sequence[TaskAnswers]) -> dict[tuple[str, bool], TaskAnswers]:
    """By task and whether greedy, all its answers in order. Of two lines with one start the later one
    counts."""
    lines = {(one.task_id, one.greedy, one.start): one for one in kept}
    found: dict[tuple[str, bool], TaskAnswers] = {}
    for task, greedy, start in sorted(lines, key=lambda key: key[2]):
        key, one = (task, greedy), lines[task, greedy, start]
        if start == 0:
            found[key] = one
        elif key in found and len(found[key].answers) == start:
            found[key] = found[key].followed_by(one)
    return found


def read_answers(path: Path) -> list[TaskAnswers]:
    """What is kept there; [] when there is nothing. A line that a kill tore or that changed is left out."""
    return list(_lines(path)) if path.is_file() else []


def _lines(path: Path) -> Iterator[TaskAnswers]:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n") and is_whole_line(line):
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
    """The JSON lines that `read_answers` reads, each with its checksum."""
    return "".join(sealed(json.dumps(asdict(one), ensure_ascii=False), LINE_BITS) for one in answers)


def grade_again(tasks: Sequence[Task], kept: Sequence[TaskAnswers]) -> list[TaskAnswers]:
    """The kept answers with fresh grades; conversations, and answers to other tasks, keep theirs."""
    by_id = {task.id: task for task in tasks}
    again = [one for one in kept if one.task_id in by_id and not one.several_turns]
    grades: dict[int, list[Grade]] = {}
    for name in dict.fromkeys(by_id[one.task_id].environment for one in again):
        mine = [one for one in again if by_id[one.task_id].environment == name]
        groups = [(by_id[one.task_id], list(one.answers)) for one in mine]
        found = graded_by(get_environment(name), groups)
        graded = [with_switch(task, said, group) for (task, said), group in zip(groups, found, strict=True)]
        grades |= {id(one): found for one, found in zip(mine, graded, strict=True)}
    return [one.graded(grades[id(one)]) if id(one) in grades else one for one in kept]
