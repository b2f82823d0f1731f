"""Dialogues with a user and tools over a state: as in τ²-bench (arXiv 2506.07982) and BFCL's multi-turn rows.

A user asks, the policy looks up, acts and answers, the user continues. What counts is the state that the
tools are left in, and what the user was told.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, ClassVar

from kascade.environments.base import Environment, Session, Turn
from kascade.environments.dialogues.class_worker import FAILED
from kascade.environments.dialogues.interface_classes import WorldError
from kascade.environments.dialogues.rows import DialogueOptions, dialogue_fields
from kascade.environments.dialogues.simulated_user import make_user
from kascade.environments.dialogues.worlds import make_worlds
from kascade.environments.judging.judge import JudgeError, current_judge
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.environments.rows.tool_calls import ToolCall, function_of, parse_tool_calls, render_tool_call
from kascade.environments.workplace.environment import SEEDS, SYSTEM, tool_definitions
from kascade.environments.workplace.tables import Tables, make_tables
from kascade.environments.workplace.wishes import WISHES
from kascade.errors import UserError
from kascade.task import Domain, Grade, Task, visible_answer

CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|$)", re.DOTALL)
Asked = tuple[str, list[ToolCall], str]  # what the user says, the calls that do it, what must be told
_draws = count()  # so that each rollout of a task meets its own user


class ToolDialogues(Environment):
    """Several wishes of one user on the office's tables; rows bring dialogues of their own.

    Options: those of `DialogueOptions`.
    """

    name = "tool_dialogues"
    domain: ClassVar[Domain] = "tool_use"
    options_type = DialogueOptions

    def pose(self, rng: random.Random, level: float) -> Task:
        """Two wishes, up to four with `level`, one after the other; one of them is a question."""
        seed = rng.randrange(SEEDS)
        tables = make_tables(seed)
        turns: list[Asked] = [_question(rng, tables)]
        while len(turns) < 2 + round(2 * level):
            wish = rng.choice(WISHES[:5])(rng, tables)
            if wish is not None and not _met(wish[1], turns):
                turns.append((*wish, ""))
        rng.shuffle(turns)
        told = [text for _, _, text in turns if text]
        fields = {
            "world": {"databases": None, "tables_seed": seed},
            "user": {"script": [text for text, _, _ in turns[1:]]},
            "ground_truth": [
                [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
                for _, calls, _ in turns
            ],
            "communicate": told,
            "by_turn": True,
            "check_results": False,
            "held": {},
        }
        done = "\n".join(render_tool_call(c.name, c.arguments) for _, calls, _ in turns for c in calls)
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": turns[0][0]}),
            fields=fields,
            reference=f"{done}\n{' '.join(told)}",
            tools=tool_definitions(),
        )

    def from_row(self, row: Mapping[str, Any]) -> Task:
        fields, tools = dialogue_fields(row, DialogueOptions.of(self.options))
        messages = row_messages(row)
        return Task(
            self.name, self.domain, messages, fields, tools=tools or row_tools(row) or tool_definitions()
        )

    def start(self, task: Task) -> Session | None:
        return DialogueSession(task)

    def respond_all(self, turns: Sequence[tuple[Session, str]]) -> list[Turn | Grade]:
        """At once, as many as the model that plays the users takes."""
        with ThreadPoolExecutor(min(current_judge().concurrency, max(1, len(turns)))) as pool:
            return list(pool.map(lambda turn: turn[0].respond(turn[1]), turns))

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """Answers that hold all their calls and all that they tell, without having met user or results."""
        grades = []
        for answer in answers:
            session = DialogueSession(task)
            grades.append(session.at_once(answer))
            session.close()
        return grades


class DialogueSession(Session):
    """One dialogue. A second world, in which the gold calls are made turn by turn, says what should be."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._trouble: str | None = None
        try:
            self._worlds = make_worlds(task.fields["world"])
        except (WorldError, UserError) as error:
            self._trouble = f"task {task.id}: {error}"
        self._user = make_user(task.fields["user"], next(_draws))
        self._dialogue = [("user", task.messages[-1]["content"])]
        self._tools = list(task.tools)  # all that the policy has been shown so far
        self._held: Mapping[str, list[Any]] = task.fields.get("held", {})  # what it is shown in later turns
        self._results: list[str] = []
        self._told: list[str] = []
        self._turn = self._num_calls = self._calls_in_turn = self._num_judged = 0
        self._sound = True  # nothing is wrong that later turns could not fix

    def respond(self, answer: str) -> Turn | Grade:
        if self._trouble is not None:
            return Grade.failed(self._trouble)
        try:
            return self._respond(visible_answer(self._task, answer))
        except WorldError as error:
            return Grade.failed(f"task {self._task.id}: {error}")

    def _respond(self, said: str) -> Turn | Grade:
        calls = parse_tool_calls(said, self._tools)
        if calls:
            return Turn(tuple({"role": "tool", "content": result} for result in self._done(calls)))
        self._tell(said)
        self._end_turn()
        if not self._sound:
            return self._graded(ended=True)
        try:
            reply = self._user.reply(self._dialogue)
        except JudgeError as error:
            return Grade.failed(f"the simulated user: {error}")
        if reply is None:
            return self._graded(ended=True)
        self._dialogue.append(("user", reply))
        self._tools += self._held.get(str(self._turn), [])
        return Turn(({"role": "user", "content": reply},))

    def stop(self) -> Grade:
        """A dialogue that a limit ended has failed, as in τ²-bench."""
        return self._or_trouble(lambda: self._graded(ended=False))

    def at_once(self, answer: str) -> Grade:
        return self._or_trouble(lambda: self._at_once(visible_answer(self._task, answer)))

    def close(self) -> None:
        if self._trouble is None:
            self._worlds.close()

    def _or_trouble(self, grade: Callable[[], Grade]) -> Grade:
        try:
            return Grade.failed(self._trouble) if self._trouble is not None else grade()
        except WorldError as error:
            return Grade.failed(f"task {self._task.id}: {error}")

    def _at_once(self, said: str) -> Grade:
        for held in self._held.values():
            self._tools += held
        self._done(parse_tool_calls(said, self._tools))
        self._tell(CALL.sub("", said))
        while self._turn < len(self._task.fields["ground_truth"]):
            self._gold_turn()
        return self._graded(ended=bool(said))

    def _done(self, calls: Sequence[ToolCall]) -> list[str]:
        self._num_calls += len(calls)
        self._calls_in_turn += len(calls)
        results = [self._call(call) for call in calls]
        self._results += results
        return results

    def _call(self, call: ToolCall) -> str:
        """What the tool answers; one that is held back does not exist yet."""
        held = [tool for turn in self._held.values() for tool in turn]
        if any(function_of(tool)["name"] == call.name and tool not in self._tools for tool in held):
            return f"{FAILED}there is no tool {call.name!r}"
        return self._worlds.call(call.name, call.arguments)

    def _tell(self, said: str) -> None:
        self._told.append(said)
        self._dialogue.append(("assistant", said))

    def _gold_turn(self) -> list[str]:
        """Make the next turn's gold calls; what they answered."""
        calls = self._task.fields["ground_truth"][self._turn]
        self._turn += 1
        return [self._worlds.call(call["name"], call["arguments"], gold=True) for call in calls]

    def _end_turn(self) -> None:
        """The states must be alike after each turn. In BFCL's rows only after one that gold calls belong to,
        and what these answered must have been seen by now."""
        fields, made, self._calls_in_turn = self._task.fields, self._calls_in_turn, 0
        if not fields["by_turn"] or self._turn >= len(fields["ground_truth"]):
            return
        wanted = self._gold_turn()
        self._num_judged += 1
        if fields["check_results"] and not wanted:
            return
        self._sound = self._worlds.alike()
        if fields["check_results"]:
            self._sound = self._sound and made > 0 and _holds(self._results, wanted)

    def _graded(self, *, ended: bool) -> Grade:
        """1 when the dialogue came to its end, the states are alike and everything was told, else 0."""
        fields, done = self._task.fields, self._turn
        gold, by_turn = fields["ground_truth"], fields["by_turn"]
        judged = fields["check_results"] and by_turn and self._num_judged == len(gold)
        while self._turn < len(gold):
            self._gold_turn()
        alike = float(self._worlds.alike())
        told = _told(fields["communicate"], self._told)
        components = {
            "state": alike,
            "communicated": told,
            "num_calls": float(self._num_calls),
            "turns": done / len(gold) if by_turn and gold else 1.0,
        }
        complete = ended and self._sound and told == 1.0 and (judged or alike == 1.0)
        return Grade(float(complete), components)


def _told(wanted: Sequence[str], said: Sequence[str]) -> float:
    """The share of texts that stand in what the user was told, case and commas aside. [τ²-bench]"""
    heard = "\n".join(said).lower().replace(",", "")
    return sum(one.lower().replace(",", "") in heard for one in wanted) / len(wanted) if wanted else 1.0


def _holds(seen: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether every wanted result was seen, each as often as wanted."""
    return all(seen.count(one) >= wanted.count(one) for one in wanted)


def _met(calls: Sequence[ToolCall], turns: Sequence[Asked]) -> bool:
    """Whether another turn acts on the same table: what a wish means must not depend on the others."""
    touched = {_table(call) for _, made, _ in turns for call in made}
    return any(_table(call) in touched for call in calls)


def _table(call: ToolCall) -> str:
    return call.name.partition("_")[0]


def _question(rng: random.Random, tables: Tables) -> Asked:
    """A question for which something must be looked up and told, and nothing changed."""
    names = [task["task_name"] for task in tables.tasks.values()]
    task = rng.choice([task for task in tables.tasks.values() if names.count(task["task_name"]) == 1])
    return f"When is the task '{task['task_name']}' due?", [], task["due_date"]
