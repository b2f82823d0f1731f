"""Tool use: calls are executed against state, and the resulting states are compared.

Row fields: NeMo-Gym `workplace_assistant` (`ground_truth`: [{name, arguments as JSON text}]). Rows play
in the large office of `environments.workplace`, over several turns; the tasks posed here in a small one of
our own, in one turn, and each carries the state it starts from.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field

from kascade.environments.base import Environment, Session
from kascade.environments.options import Options
from kascade.environments.rows.tool_calls import ToolCall, gold_calls, parse_tool_calls, render_tool_call
from kascade.environments.small_world.words import DAYS, NAMES, NOUNS
from kascade.environments.workplace.environment import OfficeSession, grade_calls, office_task
from kascade.task import Grade, Message, Task, visible_answer

State = dict[str, Any]
MEETINGS = ("standup", "review", "lunch", "demo", "interview", "planning")
STATUSES = ("open", "done", "blocked")


class ToolError(Exception):
    """A call that the office refuses (unknown tool, argument or row)."""


def _move(state: State, meeting: str, day: str) -> None:
    _known(meeting, state["calendar"])
    _known(day, DAYS)
    state["calendar"][meeting] = day


def _cancel(state: State, meeting: str) -> None:
    _known(meeting, state["calendar"])
    del state["calendar"][meeting]


def _email(state: State, to: str, subject: str) -> None:
    _known(to, [name.lower() for name in NAMES])
    state["outbox"].append([to, subject])


def _status(state: State, task: str, status: str) -> None:
    _known(task, state["tasks"])
    _known(status, STATUSES)
    state["tasks"][task] = status


TOOLS: dict[str, Callable[..., None]] = {
    "move_meeting": _move,
    "cancel_meeting": _cancel,
    "send_email": _email,
    "set_status": _status,
}


def _known(value: str, allowed: Any) -> None:
    if value not in allowed:
        raise ToolError(value)


def execute(state: State, calls: Sequence[ToolCall]) -> State:
    """The state after all calls, from a copy; text is compared without regard to case. Raises ToolError."""
    state = copy.deepcopy(state)
    for call in calls:
        if call.name not in TOOLS:
            raise ToolError(call.name)
        try:
            TOOLS[call.name](
                state, **{key: str(value).strip().lower() for key, value in call.arguments.items()}
            )
        except TypeError as error:  # missing or unknown arguments
            raise ToolError(str(error)) from error
    return state


class OfficeOptions(Options):
    """Of offices whose tables come from files."""

    databases: str | None = Field(None, description="folder of the tables that rows act on; None: our own")


class WorkplaceAssistant(Environment):
    """One or two requests to a small office with a calendar, tasks and an outbox; rows in the large one.

    Option `databases`: the folder of the tables that rows act on; without it, tables of our own.
    """

    name = "workplace_assistant"
    domain = "tool_use"
    options_type = OfficeOptions

    def gold(self, task: Task) -> str | None:
        calls = task.fields.get("ground_truth")
        if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) for call in calls):
            return None
        return gold_calls([ToolCall(str(call["name"]), _arguments(call.get("arguments"))) for call in calls])

    def pose(self, rng: random.Random, level: float) -> Task:
        calendar = {meeting: rng.choice(DAYS) for meeting in rng.sample(MEETINGS, 2 + round(level))}
        tasks = {noun: rng.choice(STATUSES) for noun in rng.sample(NOUNS, 2)}
        state: State = {"calendar": calendar, "tasks": tasks, "outbox": []}
        requests, calls, after = [], [], state
        for _ in range(2 if rng.random() < level * 0.6 else 1):
            text, wish = _wish(rng, after, level)
            requests.append(text)
            calls += wish
            after = execute(after, wish)
        facts = "Meetings: " + ", ".join(f"{meeting} {day}" for meeting, day in calendar.items())
        facts += ". Tasks: " + ", ".join(f"{task} {status}" for task, status in tasks.items())
        return Task(
            environment=self.name,
            domain="tool_use",
            messages=(Message(role="user", content=f"{facts}. {' '.join(requests)}"),),
            fields={
                "ground_truth": [{"name": c.name, "arguments": json.dumps(c.arguments)} for c in calls],
                "state": state,
            },
            reference="".join(render_tool_call(call.name, call.arguments) for call in calls),
        )

    def from_row(self, row: Mapping[str, Any]) -> Task:
        return office_task(row, self.name, self.options.get("databases"))

    def start(self, task: Task) -> Session | None:
        return None if "state" in task.fields else OfficeSession(task)

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        if "state" not in task.fields:
            return grade_calls(task, answers)
        gold = [ToolCall(c["name"], json.loads(c["arguments"])) for c in task.fields["ground_truth"]]
        wanted = execute(task.fields["state"], gold)
        return [self._grade(task.fields["state"], wanted, visible_answer(task, answer)) for answer in answers]

    @staticmethod
    def _grade(state: State, wanted: State, answer: str) -> Grade:
        calls = parse_tool_calls(answer)
        try:
            reached = execute(state, calls)
        except ToolError:
            return Grade(0.0, {"num_calls": float(len(calls)), "executed": 0.0})
        return Grade(
            float(bool(calls) and reached == wanted), {"num_calls": float(len(calls)), "executed": 1.0}
        )


def _wish(rng: random.Random, state: State, level: float) -> tuple[str, list[ToolCall]]:
    """A request in words and the calls that fulfil it; every request changes the state."""
    calendar, tasks = state["calendar"], state["tasks"]
    kinds = ["email", "status"] + (["move", "cancel"] if calendar else [])
    kind = rng.choice([*kinds, "clear"] if calendar and level > 0.3 else kinds)
    if kind == "move":
        meeting = rng.choice(list(calendar))
        day = rng.choice([day for day in DAYS if day != calendar[meeting]])
        return f"Move the {meeting} to {day}.", [ToolCall("move_meeting", {"meeting": meeting, "day": day})]
    if kind == "cancel":
        meeting = rng.choice(list(calendar))
        return f"Cancel the {meeting}.", [ToolCall("cancel_meeting", {"meeting": meeting})]
    if kind == "email":
        name, noun = rng.choice(NAMES), rng.choice(NOUNS)
        return f"Email {name} about the {noun}.", [
            ToolCall("send_email", {"to": name.lower(), "subject": noun})
        ]
    if kind == "status":
        task = rng.choice(list(tasks))
        status = rng.choice([status for status in STATUSES if status != tasks[task]])
        return f"Set the {task} to {status}.", [ToolCall("set_status", {"task": task, "status": status})]
    day = rng.choice(list(calendar.values()))
    affected = [meeting for meeting, when in calendar.items() if when == day]
    return f"Clear {day}.", [ToolCall("cancel_meeting", {"meeting": meeting}) for meeting in affected]


def _arguments(value: Any) -> Mapping[str, Any]:
    """Arguments of a gold call, which rows give as text."""
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, Mapping) else {}
