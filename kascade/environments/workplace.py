"""Conversations in the Workplace Assistant's office: its tools, what a wish comes to, and the comparison."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from kascade.environments.base import Domain, Environment, Grade, Session, Task, Turn, visible_answer
from kascade.environments.rows import row_messages, row_tools
from kascade.environments.tool_calls import ToolCall, parse_tool_calls, render_tool_call
from kascade.environments.workplace_office import Office
from kascade.environments.workplace_parameters import TOOL_PARAMETERS
from kascade.environments.workplace_tables import (
    BOARDS,
    LISTS,
    NOW,
    PRODUCTS,
    STATUSES,
    SUBJECTS,
    Tables,
    make_tables,
    read_tables,
)
from kascade.errors import UserError

SYSTEM = (
    f"Today is {NOW:%A}, {NOW:%Y-%m-%d}, and it is {NOW:%H:%M}. You work for the office through its tools: "
    "look up what you need, do what is asked, and say when it is done."
)
SEEDS = 32  # different sets of generated tables


def tool_definitions() -> tuple[dict[str, Any], ...]:
    """OpenAI function definitions of the office's tools."""
    return tuple(_definition(name, parameters) for name, parameters in TOOL_PARAMETERS.items())


def _definition(name: str, parameters: Sequence[str]) -> dict[str, Any]:
    types = {p: "integer" if p in ("page", "page_size") else "string" for p in parameters}
    schema = {
        "type": "object",
        "properties": {p: {"type": kind} for p, kind in types.items()},
        "required": [],
        "additionalProperties": False,
    }
    words = name.replace("_", " ")
    return {"type": "function", "name": name, "description": words, "parameters": schema, "strict": False}


def office_task(row: Mapping[str, Any], name: str, databases: str | None) -> Task:
    """A row with `ground_truth` as a task. Raises ValueError naming the field at fault."""
    gold = parse_gold(row.get("ground_truth"))
    if databases is not None:
        try:
            read_tables(databases)
        except UserError as error:
            raise ValueError(f"option databases: {error}") from error
    messages, tools = row_messages(row), row_tools(row)
    return Task(
        environment=name,
        domain="tool_use",
        messages=messages,
        fields={
            "ground_truth": [{"name": c.name, "arguments": json.dumps(c.arguments)} for c in gold],
            "databases": databases,
        },
        reference="".join(render_tool_call(call.name, call.arguments) for call in gold),
        tools=tools,
    )


def parse_gold(value: Any) -> list[ToolCall]:
    """The calls of `ground_truth`. Raises ValueError."""
    if isinstance(value, str):
        value = _json("ground_truth", value)
    if not isinstance(value, list):
        raise ValueError("ground_truth: a list of calls {name, arguments} is needed")
    calls = []
    for index, call in enumerate(value):
        where = f"ground_truth[{index}]"
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise ValueError(f"{where}.name: the name of a tool is needed")
        arguments = call.get("arguments")
        if isinstance(arguments, str):
            arguments = _json(f"{where}.arguments", arguments)
        if not isinstance(arguments, Mapping):
            raise ValueError(f"{where}.arguments: an object, or the JSON text of one, is needed")
        calls.append(ToolCall(call["name"], arguments))
    return calls


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from error


def tables_of(task: Task) -> Tables:
    """The tables that a task starts from. Raises UserError when its folder is not there (any more)."""
    databases = task.fields.get("databases")
    return make_tables(task.fields.get("tables_seed", 0)) if databases is None else read_tables(databases)


def after(tables: Tables, calls: Sequence[ToolCall]) -> Office:
    """The office after all calls; one that it refuses changes nothing."""
    office = Office(tables)
    for call in calls:
        office.call(call.name, call.arguments)
    return office


def grade_calls(task: Task, answers: Sequence[str]) -> list[Grade]:
    """Answers that hold all their calls, without having seen a result (or the whole of a conversation)."""
    try:
        tables = tables_of(task)
    except UserError as error:
        return [Grade.failed(f"task {task.id}: {error}") for _ in answers]
    wanted = after(tables, parse_gold(task.fields["ground_truth"])).state()
    grades = []
    for answer in answers:
        calls = parse_tool_calls(visible_answer(task, answer), task.tools)
        grades.append(_compared(after(tables, calls), wanted, len(calls)))
    return grades


def _compared(office: Office, wanted: tuple[Any, ...], num_calls: int) -> Grade:
    reward = float(num_calls > 0 and office.state() == wanted)
    return Grade(reward, {"num_calls": float(num_calls)})


class OfficeSession(Session):
    """Calls are done as they come; an answer without a call ends the conversation. [NeMo-Gym]"""

    def __init__(self, task: Task) -> None:
        """Raises UserError when the task's tables are not there."""
        tables = tables_of(task)
        self._task = task
        self._office = Office(tables)
        self._wanted = after(tables, parse_gold(task.fields["ground_truth"])).state()
        self._num_calls = 0

    def respond(self, answer: str) -> Turn | Grade:
        calls = parse_tool_calls(visible_answer(self._task, answer), self._task.tools)
        if not calls:
            return self.stop()
        self._num_calls += len(calls)
        results = [self._office.call(call.name, call.arguments) for call in calls]
        return Turn(tuple({"role": "tool", "content": _shown(result)} for result in results))

    def stop(self) -> Grade:
        return _compared(self._office, self._wanted, self._num_calls)


def _shown(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


Wish = tuple[str, list[ToolCall]]


class WorkplaceDialogues(Environment):
    """One wish to an office with five generated tables, whose rows must be looked up first."""

    name = "workplace_dialogues"
    domain: ClassVar[Domain] = "tool_use"

    def pose(self, rng: random.Random, level: float) -> Task:
        """A wish about one row; from level 0.5 on also about all rows of a kind."""
        seed = rng.randrange(SEEDS)
        tables = make_tables(seed)
        kinds = WISHES if level >= 0.5 else WISHES[:5]
        while True:
            wish = rng.choice(kinds)(rng, tables)
            if wish is not None:
                break
        text, calls = wish
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": text}),
            fields={
                "ground_truth": [{"name": c.name, "arguments": json.dumps(c.arguments)} for c in calls],
                "databases": None,
                "tables_seed": seed,
            },
            reference="\n".join(render_tool_call(call.name, call.arguments) for call in calls),
            tools=tool_definitions(),
        )

    def start(self, task: Task) -> Session | None:
        return OfficeSession(task)

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return grade_calls(task, answers)


def _person(address: str) -> str:
    return address.partition(".")[0].capitalize()


def _reply(rng: random.Random, tables: Tables) -> Wish | None:
    email = rng.choice(list(tables.emails.values()))
    same = [e for e in tables.emails.values() if e["sender/recipient"] == email["sender/recipient"]]
    last = max(same, key=lambda e: e["sent_datetime"])
    body = rng.choice(("Thanks, I will look into it.", "Done.", "Let us talk tomorrow."))
    text = f"Answer {_person(last['sender/recipient'])}'s latest email with '{body}'"
    return text, [ToolCall("email_reply_email", {"email_id": last["email_id"], "body": body})]


def _rename(rng: random.Random, tables: Tables) -> Wish | None:
    event = rng.choice(list(tables.events.values()))
    day = event["event_start"][:10]
    same_day = [e for e in tables.events.values() if e["event_start"].startswith(day)]
    last = max(same_day, key=lambda e: e["event_start"])
    ties = [e for e in tables.events.values() if e["event_start"] == last["event_start"]]
    name = rng.choice([subject for subject in SUBJECTS if subject != last["event_name"]])
    if len(ties) > 1:
        return None
    arguments = {"event_id": last["event_id"], "field": "event_name", "new_value": name}
    return f"Rename the last event on {day} to {name}.", [ToolCall("calendar_update_event", arguments)]


def _meet(rng: random.Random, tables: Tables) -> Wish | None:
    who, name, hour = rng.choice(tables.addresses), rng.choice(SUBJECTS), rng.randint(9, 16)
    arguments = {
        "event_name": name,
        "participant_email": who,
        "event_start": f"2023-12-{rng.randint(1, 28):02d} {hour:02d}:00:00",
        "duration": "30",
    }
    when = f"{arguments['event_start'][:10]} at {hour}:00"
    text = f"Set up a 30-minute event '{name}' with {_person(who)} on {when}."
    return text, [ToolCall("calendar_create_event", arguments)]


def _move_task(rng: random.Random, tables: Tables) -> Wish | None:
    task = rng.choice(list(tables.tasks.values()))
    same = [t for t in tables.tasks.values() if t["task_name"] == task["task_name"]]
    if len(same) > 1:
        return None
    to = rng.choice([name for name in LISTS if name != task["list_name"]])
    arguments = {"task_id": task["task_id"], "field": "list_name", "new_value": to}
    text = f"Move the task '{task['task_name']}' to the list {to}."
    return text, [ToolCall("project_management_update_task", arguments)]


def _plot(rng: random.Random, tables: Tables) -> Wish | None:
    kind, first = rng.choice(("bar", "line")), rng.randint(1, 14)
    arguments = {
        "time_min": f"2023-11-{first:02d}",
        "time_max": f"2023-11-{first + 14:02d}",
        "value_to_plot": "total_visits",
        "plot_type": kind,
    }
    text = f"Make a {kind} plot of total visits from {arguments['time_min']} to {arguments['time_max']}."
    return text, [ToolCall("analytics_create_plot", arguments)]


def _reassign(rng: random.Random, tables: Tables) -> Wish | None:
    old, new = rng.sample(tables.addresses, 2)
    status = rng.choice(STATUSES)
    rows = [c for c in tables.customers.values() if c["assigned_to_email"] == old and c["status"] == status]
    text = f"{_person(new)} takes over all of {_person(old)}'s customers with the status {status}."
    calls = [
        ToolCall(
            "customer_relationship_manager_update_customer",
            {"customer_id": row["customer_id"], "field": "assigned_to_email", "new_value": new},
        )
        for row in rows
    ]
    return (text, calls) if calls else None


def _drop(rng: random.Random, tables: Tables) -> Wish | None:
    product = rng.choice(PRODUCTS)
    rows = [c for c in tables.customers.values() if (c["status"], c["product_interest"]) == ("Lost", product)]
    name = "customer_relationship_manager_delete_customer"
    text = f"Delete all lost customers who were interested in {product}."
    return (text, [ToolCall(name, {"customer_id": row["customer_id"]}) for row in rows]) if rows else None


def _finish(rng: random.Random, tables: Tables) -> Wish | None:
    board = rng.choice(BOARDS)
    rows = [t for t in tables.tasks.values() if (t["board"], t["list_name"]) == (board, "In Review")]
    calls = [
        ToolCall(
            "project_management_update_task",
            {"task_id": row["task_id"], "field": "list_name", "new_value": "Completed"},
        )
        for row in rows
    ]
    return (f"Everything in review on the {board} board is completed.", calls) if calls else None


WISHES: tuple[Callable[[random.Random, Tables], Wish | None], ...] = (
    _reply,
    _rename,
    _meet,
    _move_task,
    _plot,
    _reassign,
    _drop,
    _finish,
)
