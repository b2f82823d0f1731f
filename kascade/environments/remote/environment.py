"""What all remote environments share: rows, options, conversations, and errors that mask a rollout."""

from __future__ import annotations

import random
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from kascade.environments.base import Environment, Session, Turn
from kascade.environments.options import GRADING
from kascade.environments.remote.server import Server, server_of
from kascade.environments.remote.settings import Remote
from kascade.environments.remote.wire import RemoteError
from kascade.task import Grade, Task

T = TypeVar("T")
# By code that reads a reply; ArithmeticError: a whole number that is too large for any float.
MISUNDERSTOOD = (TypeError, AttributeError, LookupError, RecursionError, ArithmeticError)


class RemoteEnvironment(Environment):
    """An environment whose tasks are rows, and whose server answers and grades."""

    domain = "tool_use"
    reads_all_rows = True
    behind_server = True
    options_type: ClassVar[type[Remote]] = Remote

    def needs(self) -> list[str]:
        """Why the server cannot be used now; empty when it answers."""
        try:
            problem = server_of(self.options_type.of(self.options)).problem()
        except (RemoteError, ValueError) as error:
            problem = str(error)
        return [problem] if problem else []

    def pose(self, rng: random.Random, level: float) -> Task:
        raise ValueError(f"{self.name} reads its tasks from rows: give the data source a `path`")

    def server(self, task: Task) -> Server:
        """The server that a task names."""
        return server_of(self.options_type.of(task.fields.get(GRADING) or {}))

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return self.grade_all([(task, answers)])[0]

    def grade_all(self, groups: Sequence[tuple[Task, Sequence[str]]]) -> list[list[Grade]]:
        """Each answer in a conversation of its own, many at once."""
        asked = [(task, answer) for task, answers in groups for answer in answers]
        found = iter(self._together([task for task, _ in asked], self._grade_one, asked))
        return [[next(found) for _ in answers] for _, answers in groups]

    def respond_all(self, turns: Sequence[tuple[Session, str]]) -> list[Turn | Grade]:
        tasks = [session.task for session, _ in turns if isinstance(session, RemoteSession)]
        return self._together(tasks, lambda turn: turn[0].respond(turn[1]), turns)

    def open_all(self, sessions: Sequence[Session]) -> list[Turn | None]:
        tasks = [session.task for session in sessions if isinstance(session, RemoteSession)]
        return self._together(tasks, lambda session: session.open(), sessions)

    def _together(self, tasks: Sequence[Task], work: Any, items: Sequence[Any]) -> list[Any]:
        return self.server(tasks[0]).together(work, items) if items else []

    def _grade_one(self, asked: tuple[Task, str]) -> Grade:
        """One answer, as a conversation that ends with it."""
        task, answer = asked
        session = self.session(task)
        try:
            session.open()
            said = session.respond(answer)
            return said if isinstance(said, Grade) else session.stop()
        finally:
            session.close()

    @abstractmethod
    def session(self, task: Task) -> RemoteSession:
        """A conversation with the server on a task. Asks nothing yet."""


class RemoteSession(Session):
    """One conversation. After the server failed, it says nothing but that."""

    def __init__(self, task: Task, server: Server) -> None:
        self.task, self.server = task, server
        self.failed: Grade | None = None
        self.num_steps = 0

    def open(self) -> Turn | None:
        said = self._said(self.begin)
        if isinstance(said, Grade):
            self.failed = said
            return None
        return said

    def respond(self, answer: str) -> Turn | Grade:
        if self.failed is not None:
            return self.failed
        self.num_steps += 1
        said = self._said(lambda: self._step(answer))
        if isinstance(said, Grade) and said.error is not None:
            self.failed = said
        return said

    def _step(self, answer: str) -> Turn | Grade:
        said = self.step(answer)
        last = self.num_steps >= self.server.settings.max_steps
        return self.finish() if last and isinstance(said, Turn) else said

    def stop(self) -> Grade:
        return self._said(self.finish) if self.failed is None else self.failed

    def _said(self, ask: Callable[[], T]) -> T | Grade:
        """What the server says; an error where it fails or says what nobody understands.

        Whatever a server does masks its own conversation: no other one, and no answer pays for it.
        """
        try:
            return ask()
        except (RemoteError, ValueError) as error:
            why = str(error)
        except MISUNDERSTOOD as error:
            why = f"what it says is not understood ({type(error).__name__}: {error})"
        return Grade.failed(f"the environment's server failed: {why}")

    @abstractmethod
    def begin(self) -> Turn | None:
        """Open the conversation; what the environment says first. Raises RemoteError."""

    @abstractmethod
    def step(self, answer: str) -> Turn | Grade:
        """What the environment says to an answer. Raises RemoteError, ValueError for a bad reward, and
        MISUNDERSTOOD for a reply of another shape."""

    @abstractmethod
    def finish(self) -> Grade:
        """The grade of the conversation as it stands. Raises as `step` does."""

    def graded(self, reply: Any) -> Grade:
        """A reply's reward, scaled, and its numeric parts by name. Raises RemoteError, ValueError."""
        reward = number(reply, "the grade")
        parts = {name: float(value) for name, value in reply.items() if _is_part(name, value)}
        return Grade(self.server.settings.scaled(reward), parts)


def number(reply: Any, what: str) -> float:
    """The reward of a reply. Raises RemoteError where there is no number."""
    found = reply.get("reward") if isinstance(reply, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise RemoteError(f"{what}: the reply has no number as `reward`")
    return float(found)


def _is_part(name: str, value: Any) -> bool:
    is_number = isinstance(value, bool | int | float)
    return name != "reward" and is_number and abs(value) <= sys.float_info.max
