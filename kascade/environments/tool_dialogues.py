"""Dialogues with a user and tools over a state: as in τ²-bench (arXiv 2506.07982) and BFCL's multi-turn rows.

A user asks, the policy looks up, acts and answers, the user goes on. What counts is the state that the tools
are left in, and what the user was told.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, ClassVar

from kascade.environments.base import Domain, Environment, Grade, Session, Task, Turn, visible_answer
from kascade.environments.dialogue_rows import dialogue_fields
from kascade.environments.judge import JudgeError, current_judge
from kascade.environments.rows import row_messages, row_tools
from kascade.environments.simulated_user import make_user
from kascade.environments.tool_calls import ToolCall, parse_tool_calls, render_tool_call
from kascade.environments.tool_worlds import WorldError, make_world, shown
from kascade.environments.workplace import SEEDS, SYSTEM, WISHES, tool_definitions
from kascade.environments.workplace_tables import Tables, make_tables
from kascade.errors import UserError

CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|$)", re.DOTALL)
Asked = tuple[str, list[ToolCall], str]  # what the user says, the calls that do it, what must be told
_draws = count()  # so that each rollout of a task meets its own user


class ToolDialogues(Environment):
    """Several wishes of one user on the office's tables; rows bring dialogues of their own.

    Options: `databases`, as of the Workplace Assistant; `classes`: name → module of Python classes that rows'
    `involved_classes` name, beside BFCL's.
    """

    name = "tool_dialogues"
    domain: ClassVar[Domain] = "tool_use"
    option_names = ("classes", "databases")

    def check_options(self, options: Mapping[str, Any]) -> None:
        classes = options.get("classes", {})
        if not isinstance(classes, Mapping) or not all(isinstance(one, str) for one in classes.values()):
            raise ValueError("options.classes: an object {class: module} is needed")

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
        fields, tools = dialogue_fields(row, self.options)
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
        return [DialogueSession(task).at_once(answer) for answer in answers]


class DialogueSession(Session):
    """One dialogue. A second world, in which the gold calls are made turn by turn, says what should be."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._trouble: str | None = None
        try:
            self._world, self._gold = make_world(task.fields["world"]), make_world(task.fields["world"])
        except (WorldError, UserError) as error:
            self._trouble = f"task {task.id}: {error}"
        self._user = make_user(task.fields["user"], next(_draws))
        self._dialogue = [("user", task.messages[-1]["content"])]
        self._results: list[str] = []
        self._told: list[str] = []
        self._turn = self._num_calls = self._calls_in_turn = 0
        self._sound = True  # nothing is wrong that later turns could not mend

    def respond(self, answer: str) -> Turn | Grade:
        if self._trouble is not None:
            return Grade.failed(self._trouble)
        said = visible_answer(self._task, answer)
        calls = parse_tool_calls(said, self._task.tools)
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
        return Turn(({"role": "user", "content": reply},))

    def stop(self) -> Grade:
        """A dialogue that a limit ended has failed, as in τ²-bench."""
        return Grade.failed(self._trouble) if self._trouble is not None else self._graded(ended=False)

    def at_once(self, answer: str) -> Grade:
        if self._trouble is not None:
            return Grade.failed(self._trouble)
        said = visible_answer(self._task, answer)
        self._done(parse_tool_calls(said, self._task.tools))
        self._tell(CALL.sub("", said))
        while self._turn < len(self._task.fields["ground_truth"]):
            self._gold_turn()
        return self._graded(ended=bool(said))

    def _done(self, calls: Sequence[ToolCall]) -> list[str]:
        self._num_calls += len(calls)
        self._calls_in_turn += len(calls)
        results = [shown(self._world.call(call.name, call.arguments)) for call in calls]
        self._results += results
        return results

    def _tell(self, said: str) -> None:
        self._told.append(said)
        self._dialogue.append(("assistant", said))

    def _gold_turn(self) -> list[str]:
        """Make the next turn's gold calls; what they answered."""
        calls = self._task.fields["ground_truth"][self._turn]
        self._turn += 1
        return [shown(self._gold.call(call["name"], call["arguments"])) for call in calls]

    def _end_turn(self) -> None:
        """BFCL's checks of a turn: the states are alike, and the gold calls' results were all seen by now."""
        fields, made, self._calls_in_turn = self._task.fields, self._calls_in_turn, 0
        if not fields["by_turn"] or self._turn >= len(fields["ground_truth"]):
            return
        wanted = self._gold_turn()
        self._sound = self._world.state() == self._gold.state()
        if fields["check_results"] and wanted:
            self._sound = self._sound and made > 0 and _holds(self._results, wanted)

    def _graded(self, *, ended: bool) -> Grade:
        """1 when the dialogue came to its end, the states are alike and everything was told, else 0."""
        gold, done = self._task.fields["ground_truth"], self._turn
        while self._turn < len(gold):
            self._gold_turn()
        alike = float(self._world.state() == self._gold.state())
        told = _told(self._task.fields["communicate"], self._told)
        turns = done / len(gold) if self._task.fields["by_turn"] and gold else 1.0
        components = {
            "state": alike,
            "communicated": told,
            "num_calls": float(self._num_calls),
            "turns": turns,
        }
        complete = ended and self._sound and alike == 1.0 == told
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
