"""The small interface behind every domain: pose a task, grade answers."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from kascade.environments.options import GRADING, Options
from kascade.task import Domain, Grade, Message, Split, Task, split_of

SandboxKind = Literal["programs", "commands"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What the environment says after an answer: results of tools, or a user's next words."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class WholePrompt(Turn):
    """What `Session.open` says where the environment words the whole prompt, in place of the task's messages
    and tools."""

    tools: tuple[Mapping[str, Any], ...] = ()


class Session(ABC):
    """One conversation on one task, from `Environment.start`. Neither method raises on any answer."""

    def open(self) -> Turn | None:
        """What the environment says before the first answer, beyond the task's own messages; a `WholePrompt`
        takes their place."""
        return None

    @abstractmethod
    def respond(self, answer: str) -> Turn | Grade:
        """What the environment says to the policy's turn (thinking included), or the final grade."""

    @abstractmethod
    def stop(self) -> Grade:
        """The grade of a conversation that a limit (turns, tokens, time) ended."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what the session holds (a process, a folder). May be called more than once."""


class Environment(ABC):
    """A domain: poses tasks and grades answers. Reward and exam share `grade`."""

    name: ClassVar[str]
    domain: ClassVar[Domain]
    options_type: ClassVar[type[Options] | None] = None
    row_fields: ClassVar[tuple[str, ...]] = ()  # a row that names no environment and has them all is its own
    sandboxes: ClassVar[tuple[SandboxKind, ...]] = ()  # what confines the untrusted code that it runs
    reads_all_rows: ClassVar[bool] = False  # also rows that name another environment, or an unknown one
    behind_server: ClassVar[bool] = False  # a server answers and grades: nothing can be tried without it
    options: Mapping[str, Any] = MappingProxyType({})

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """This environment as a recipe's data source configures it. Raises ValueError naming the option.

        What grading needs of its options goes into each task's fields: a task is graded by its name alone.
        An option `domain` says which domain it is.
        """
        if unknown := [name for name in options if name not in self.option_names()]:
            known = ", ".join(self.option_names()) or "it has none"
            raise ValueError(f"options.{unknown[0]}: {self.name} has no such option (allowed: {known})")
        if not options:
            return self
        self.check_options(options)
        configured = copy(self)
        configured.options = options
        if "domain" in options:
            vars(configured)["domain"] = options["domain"]
        return configured

    def needs(self) -> list[str]:
        """What it needs and cannot have here, such as a server that does not answer. Asked before a run."""
        return []

    def needs_judge(self, *, rows: bool) -> bool:
        """Whether answers to its rows (else: to its generated tasks) cannot be graded without a judge."""
        return False

    def option_names(self) -> tuple[str, ...]:
        """The options that it has."""
        return self.options_type.names() if self.options_type is not None else ()

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raises ValueError naming the option whose value will not do."""
        if self.options_type is not None:
            self.options_type.of(options)

    def gold(self, task: Task) -> str | None:
        """A right answer, written from what the task's fields expect; None where none can be written."""
        return None

    @property
    def graded_with(self) -> dict[str, Any]:
        """The options as fields of a task; nothing where none is set."""
        return {GRADING: dict(self.options)} if self.options else {}

    @abstractmethod
    def pose(self, rng: random.Random, level: float) -> Task:
        """One procedurally generated task; `level` in [0, 1] sets its difficulty."""

    @abstractmethod
    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """Grade all answers given to one task, in order.

        Answers are the decoded completions, thinking included (`final_answer` strips it). A group
        is graded together because some rewards compare its members. Never raises on any answer.
        """

    def grade_all(self, groups: Sequence[tuple[Task, Sequence[str]]]) -> list[list[Grade]]:
        """Grade many groups; environments that run programs override this to batch them."""
        return [self.grade(task, answers) for task, answers in groups]

    def start(self, task: Task) -> Session | None:
        """A conversation on the task where it takes several turns; None where one answer is all."""
        return None

    def open_all(self, sessions: Sequence[Session]) -> list[Turn | None]:
        """`open` for many sessions; environments behind a server override this to ask side by side."""
        return [session.open() for session in sessions]

    def respond_all(self, turns: Sequence[tuple[Session, str]]) -> list[Turn | Grade]:
        """`respond` for many sessions; environments that run programs override this to batch them."""
        return [session.respond(answer) for session, answer in turns]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """A NeMo-Gym row as a task. Raises ValueError with the field at fault."""
        raise ValueError(f"environment {self.name!r} does not read rows")


PATIENCE = 5000  # draws of a generator after which it has no more different tasks of a split


def generate_tasks(
    environment: Environment,
    *,
    split: Split,
    count: int,
    seed: int,
    levels: tuple[float, float] = (0.0, 1.0),
) -> list[Task]:
    """`count` different tasks of one split, the same for the same arguments.

    Raises ValueError when the generator cannot make that many: PATIENCE draws in a row brought none.
    """
    rng = random.Random(f"{environment.name}/{split}/{seed}")
    tasks: dict[str, Task] = {}
    num_in_vain = 0
    while num_in_vain < PATIENCE:
        task = environment.pose(rng, rng.uniform(*levels))
        num_in_vain += 1
        if split_of(task.id) == split and task.id not in tasks:
            tasks[task.id], num_in_vain = task, 0
        if len(tasks) == count:
            return list(tasks.values())
    raise ValueError(
        f"{environment.name} has only {len(tasks)} different {split} tasks, {count} were asked for"
    )
