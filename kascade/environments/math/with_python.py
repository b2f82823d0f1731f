"""Math with a stateful Python tool: NeMo-Gym's `ns_tools` and `math_with_code`, and sums of our own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from kascade.environments.base import Environment, Session, Turn
from kascade.environments.math.environment import MathEnvironment, MathOptions
from kascade.environments.math.python_session import PythonSession, SandboxTrouble
from kascade.environments.rows.fields import gold_text
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.environments.rows.tool_calls import parse_tool_calls
from kascade.task import Domain, Grade, Task, visible_answer


class PythonOptions(MathOptions):
    """Of the tool, beside those of any math answer."""

    max_calls: PositiveInt = Field(100, description="in one conversation [Nemotron-Cascade 2 App. A]")
    cell_seconds: PositiveFloat = Field(120.0, description="of one call [NeMo-Gym ns_tools]")
    session_seconds: PositiveFloat = Field(3600.0, description="of all calls together")
    memory_mb: PositiveInt = Field(2048, description="of the interpreter")
    output_chars: PositiveInt = Field(20_000, description="of one call's output")


def _python_tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
    what = "Run Python code. Variables stay; the output and the value of the last line come back."
    return {"type": "function", "name": name, "description": what, "parameters": parameters}


class PythonTool(Environment):
    """`ns_tools`: a math task whose policy may run Python before it answers.

    Options: `max_calls`, `cell_seconds`, `session_seconds`, `memory_mb`, `output_chars`, and those of math.
    """

    name = "ns_tools"
    domain: ClassVar[Domain] = "math"
    options_type = PythonOptions
    sandboxes = ("commands",)
    tool: ClassVar[str] = "stateful_python_code_exec"
    answer_field: ClassVar[str] = "expected_answer"
    parallel = 4  # sessions that act at once

    def gold(self, task: Task) -> str | None:
        return f"\\boxed{{{task.fields['expected_answer']}}}"

    def pose(self, rng: random.Random, level: float) -> Task:
        """Sums over ranges that are long to do by hand, longer with `level`."""
        last, k, m = rng.randint(20, 100 + round(900 * level)), rng.randint(2, 9), rng.randint(3, 30)
        value = sum(n**2 for n in range(1, last + 1) if n % k == 0) % m
        question = (
            f"Take all n from 1 to {last} that {k} divides. What is the sum of their squares, mod {m}? "
            "Put the answer into \\boxed{}."
        )
        return self._task(({"role": "user", "content": question},), str(value), (), f"\\boxed{{{value}}}")

    def from_row(self, row: Mapping[str, Any]) -> Task:
        expected = gold_text(row, self.answer_field).strip()
        return self._task(row_messages(row), expected, row_tools(row), None)

    def _task(self, messages: Any, expected: str, tools: Any, reference: str | None) -> Task:
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=messages,
            fields={"question": "", "expected_answer": expected, **self.graded_with},
            reference=reference,
            tools=tools or (_python_tool(self.tool),),
        )

    def start(self, task: Task) -> Session | None:
        return ToolSession(task)

    def respond_all(self, turns: Sequence[tuple[Session, str]]) -> list[Turn | Grade]:
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(lambda turn: turn[0].respond(turn[1]), turns))

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return grade_math(task, answers)


class MathWithCode(PythonTool):
    """`math_with_code`: the same under another tool's name, with the answer in `expected_result`."""

    name = "math_with_code"
    tool: ClassVar[str] = "execute_python"
    answer_field: ClassVar[str] = "expected_result"


def grade_math(task: Task, answers: Sequence[str]) -> list[Grade]:
    """The final answers as any math answers are graded."""
    return MathEnvironment().grade(replace(task, environment=MathEnvironment.name), answers)


class ToolSession(Session):
    """Runs the code of each call; an answer without a call is the final one."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._options = PythonOptions.of_task(task.fields)
        self._names = {str(tool.get("name")) for tool in task.tools}
        self._python = PythonSession(
            cell_seconds=self._options.cell_seconds,
            session_seconds=self._options.session_seconds,
            memory_mb=self._options.memory_mb,
            output_chars=self._options.output_chars,
        )
        self._num_calls = 0
        self._last = ""

    def respond(self, answer: str) -> Turn | Grade:
        self._last = answer
        calls = parse_tool_calls(visible_answer(self._task, answer), self._task.tools)
        if not calls:
            return self.stop()
        try:
            results = [self._do(call.name, call.arguments) for call in calls]
        except SandboxTrouble as trouble:
            return Grade.failed(f"the sandbox failed: {trouble}")
        return Turn(tuple({"role": "tool", "content": result} for result in results))

    def _do(self, name: str, arguments: Mapping[str, Any]) -> str:
        self._num_calls += 1
        if name not in self._names or not isinstance(arguments.get("code"), str):
            return f"[{name}: give `code` to {' or '.join(sorted(self._names))}]"
        if self._num_calls > self._options.max_calls:
            return f"[no more than {self._options.max_calls} calls; give the final answer]"
        return self._python.run(arguments["code"])

    def stop(self) -> Grade:
        (grade,) = grade_math(self._task, [self._last])
        return replace(grade, components={**grade.components, "num_calls": float(self._num_calls)})

    def close(self) -> None:
        self._python.close()
