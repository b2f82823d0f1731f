"""The small interface behind every domain: pose a task, grade answers."""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NotRequired, Self, TypedDict, get_args

Domain = Literal[
    "math",
    "instruction_following",
    "knowledge",
    "tool_use",
    "structured_output",
    "chat",
    "long_context",
    "code",
    "software_engineering",
]
DOMAINS: tuple[Domain, ...] = get_args(Domain)

SandboxKind = Literal["programs", "commands"]
Split = Literal["train", "validation", "test"]
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
    """

    environment: str
    domain: Domain
    messages: tuple[Message, ...]
    fields: Mapping[str, Any]
    reference: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool = False

    @property
    def id(self) -> str:
        """Content hash of what is asked: the same question always has the same id."""
        asked = json.dumps([self.environment, self.messages, self.tools], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(asked.encode()).hexdigest()[:16]


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


@dataclass(frozen=True, slots=True)
class Turn:
    """What the environment says after an answer: results of tools, or a user's next words."""

    messages: tuple[Message, ...]


class Session(ABC):
    """One conversation on one task, from `Environment.start`. Neither method raises on any answer."""

    @abstractmethod
    def respond(self, answer: str) -> Turn | Grade:
        """What the environment says to the policy's turn (thinking included), or the final grade."""

    @abstractmethod
    def stop(self) -> Grade:
        """The grade of a conversation that a limit (turns, tokens, time) ended."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what the session holds (a process, a folder). May be called more than once."""


GRADING = "grading"  # field of a task: its grader's options; a row may have `options` of its own


class Environment(ABC):
    """A domain: poses tasks and grades answers. Reward and exam share `grade`."""

    name: ClassVar[str]
    domain: ClassVar[Domain]
    option_names: ClassVar[tuple[str, ...]] = ()
    sandboxes: ClassVar[tuple[SandboxKind, ...]] = ()  # what confines the untrusted code that it runs
    options: Mapping[str, Any] = MappingProxyType({})

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """This environment as a recipe's data source configures it. Raises ValueError naming the option.

        What grading needs of its options goes into each task's fields: a task is graded by its name alone.
        """
        if unknown := [name for name in options if name not in self.option_names]:
            known = ", ".join(self.option_names) or "it has none"
            raise ValueError(f"options.{unknown[0]}: {self.name} has no such option (allowed: {known})")
        if not options:
            return self
        self.check_options(options)
        configured = copy(self)
        configured.options = options
        return configured

    def needs_judge(self, *, rows: bool) -> bool:
        """Whether answers to its rows (else: to its generated tasks) cannot be graded without a judge."""
        return False

    def check_options(self, options: Mapping[str, Any]) -> None:  # noqa: B027 - most have none
        """Raises ValueError naming the option whose value will not do."""

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

    def respond_all(self, turns: Sequence[tuple[Session, str]]) -> list[Turn | Grade]:
        """`respond` for many sessions; environments that run programs override this to batch them."""
        return [session.respond(answer) for session, answer in turns]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """A NeMo-Gym row as a task. Raises ValueError with the field at fault."""
        raise ValueError(f"environment {self.name!r} does not read rows")


PATIENCE = 5000  # draws of a generator after which it has no more different tasks of a split
THINK_START, THINK_END = "<think>", "</think>"


def final_answer(completion: str) -> str:
    """What follows the last end-of-think tag; the whole text when there is none."""
    return completion.rpartition(THINK_END)[2].strip()


def visible_answer(task: Task, completion: str) -> str:
    """What follows the thinking; nothing where task or completion opened it and it never ended."""
    opened = task.thinking or completion.lstrip().startswith(THINK_START)
    return "" if opened and THINK_END not in completion else final_answer(completion)


def split_of(task_id: str) -> Split:
    """Split by content hash, so train, validation and test are disjoint: 80 / 10 / 10."""
    bucket = int(hashlib.sha256(task_id.encode()).hexdigest()[:8], 16) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


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
