"""Conversations in the Workplace Assistant's office: its tools, what a wish comes to, and the comparison."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kascade.environments.base import Environment, Session, Turn
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.environments.rows.tool_calls import ToolCall, gold_calls, parse_tool_calls, render_tool_call
from kascade.environments.workplace.office import Office
from kascade.environments.workplace.parameters import TOOL_PARAMETERS
from kascade.environments.workplace.tables import NOW, Tables, make_tables, read_tables
from kascade.environments.workplace.wishes import WISHES
from kascade.errors import UserError
from kascade.task import Domain, Grade, Task, visible_answer

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
        reference=gold_calls(gold),
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
