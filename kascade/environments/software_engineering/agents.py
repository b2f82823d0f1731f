"""Software engineering by an agent: shell, view, edit and submit in a sandboxed checkout; tests decide.

Rows are NeMo-Gym's `swe_agents`: `responses_create_params.metadata` holds the instance. Those whose
`instance_dict` carries the repository's `files` and hidden `tests` run here; others need the container image
of their dataset, and their conversations end as errors that say so.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from kascade.environments.base import Environment, Session, Turn
from kascade.environments.code.unit_tests import run_tests
from kascade.environments.rows.tool_calls import ToolCall, parse_tool_calls, render_tool_call
from kascade.environments.software_engineering.hidden_tests import program_of, suite_of
from kascade.environments.software_engineering.repository import RepositoryOptions, test_names
from kascade.environments.software_engineering.small_repositories import make_repository
from kascade.sandbox.checkout import Checkout, CheckoutError
from kascade.sandbox.commands import Command, CommandLimits, shared_commands
from kascade.task import Domain, Grade, Task, visible_answer

SYSTEM = (
    "You repair software. You are in the root of a repository and have a shell and an editor. Find what the "
    "issue describes, repair it, check your repair, and submit. Do not change the tests."
)
METADATA = "responses_create_params.metadata"
MIB = 1024**2


def _tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    types = {key: "integer" if key in ("first", "last") else "string" for key in properties}
    schema = {
        "type": "object",
        "properties": {key: {"type": types[key], "description": text} for key, text in properties.items()},
        "required": [key for key in properties if types[key] == "string"],
        "additionalProperties": False,
    }
    return {"type": "function", "name": name, "description": description, "parameters": schema}


TOOLS = (
    _tool("bash", "Run a command in the repository's root.", command="the command line"),
    _tool("view", "Show a file with line numbers.", path="the file", first="first line", last="last line"),
    _tool(
        "edit",
        "Replace text that occurs exactly once in a file; an empty search makes a new file.",
        path="the file",
        search="what to replace",
        replace="what to put there",
    ),
    _tool("submit", "Hand in the repository as it is. Nothing can be done after that."),
)


class AgentOptions(RepositoryOptions):
    """Of the commands that an agent runs, and of the tests that decide."""

    command_seconds: PositiveFloat = Field(120.0, description="of one command [OpenHands]")
    memory_mb: PositiveInt = Field(2048, description="of one command")
    output_chars: PositiveInt = Field(20_000, description="of one command's output: what an agent can read")


class SweAgents(Environment):
    """Issues in small repositories of our own, or in those that rows bring along.

    Options: `command_seconds`, `memory_mb` and `output_chars` of each command; `test_seconds` and
    `test_memory_mb` of the tests.
    """

    name = "swe_agents"
    domain: ClassVar[Domain] = "software_engineering"
    options_type = AgentOptions
    sandboxes = ("programs", "commands")
    parallel = 4  # sessions that act at once; most of their time goes into waiting for a sandbox

    def pose(self, rng: random.Random, level: float) -> Task:
        made = make_repository(rng, level)
        instance = {
            "files": made.files,
            "tests": made.tests,
            "FAIL_TO_PASS": json.dumps(made.failing),
            "PASS_TO_PASS": json.dumps(made.passing),
        }
        repair = {"path": made.path, "search": made.patch.search, "replace": made.patch.replace}
        calls = (render_tool_call("edit", repair), render_tool_call("submit", {}))
        return self._task(made.statement, instance, "\n".join(calls))

    def from_row(self, row: Mapping[str, Any]) -> Task:
        params = row.get("responses_create_params")
        metadata = params.get("metadata") if isinstance(params, Mapping) else None
        if not isinstance(metadata, Mapping):
            raise ValueError(f"{METADATA}: missing; a swe_agents row describes its issue there")
        statement = metadata.get("problem_statement")
        if not isinstance(statement, str) or not statement:
            raise ValueError(f"{METADATA}.problem_statement: text is needed")
        given = metadata.get("instance_dict")
        try:
            instance = json.loads(given) if isinstance(given, str) else given
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{METADATA}.instance_dict: not JSON ({error})") from error
        if not isinstance(instance, Mapping):
            raise ValueError(f"{METADATA}.instance_dict: JSON text of an object is needed")
        if "files" in instance:
            _check(instance)
        return self._task(statement, instance, None)

    def _task(self, statement: str, instance: Mapping[str, Any], reference: str | None) -> Task:
        listed = "\n".join(sorted(instance.get("files", ())))
        files = f"\n\nFiles:\n{listed}" if listed else ""
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=(
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"{statement}{files}"},
            ),
            fields={"instance": instance, **self.graded_with},
            reference=reference,
            tools=TOOLS,
        )

    def start(self, task: Task) -> Session | None:
        return AgentSession(task)

    def respond_all(self, turns: Sequence[tuple[Session, str]]) -> list[Turn | Grade]:
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(lambda turn: turn[0].respond(turn[1]), turns))

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """Answers that hold all their calls, without having seen a result."""
        return [_at_once(task, answer) for answer in answers]


def _at_once(task: Task, answer: str) -> Grade:
    session = AgentSession(task)
    try:
        reaction = session.respond(answer)
        return session.stop() if isinstance(reaction, Turn) else reaction
    finally:
        session.close()


def _check(instance: Mapping[str, Any]) -> None:
    """Raises ValueError naming what keeps the instance from running."""
    files = instance["files"]
    if not isinstance(files, Mapping) or not all(isinstance(text, str) for text in files.values()):
        raise ValueError("instance_dict.files: must map each path to its text")
    _suite(instance, AgentOptions())


def _suite(instance: Mapping[str, Any], options: AgentOptions) -> tuple[Any, int]:
    failing, passing = test_names(instance, "FAIL_TO_PASS"), test_names(instance, "PASS_TO_PASS")
    tests = instance.get("tests")
    if not isinstance(tests, Mapping):
        raise ValueError("instance_dict.tests: {name: {module, function, arguments, output}} is needed")
    return suite_of(tests, [*failing, *passing], options.limits), len(failing)


def grade_files(instance: Mapping[str, Any], options: AgentOptions, files: Mapping[str, str]) -> Grade:
    """1 when all hidden tests pass, else 0; components: shares of FAIL_TO_PASS and PASS_TO_PASS."""
    suite, num_failing = _suite(instance, options)
    (passed,) = run_tests([(program_of(files), suite)])
    if isinstance(passed, str):
        return Grade.failed(passed)
    shares = (passed[:num_failing], passed[num_failing:])
    failing, passing = (sum(part) / len(part) if part else 1.0 for part in shares)
    return Grade(float(all(passed)), {"fail_to_pass": failing, "pass_to_pass": passing})


def _needs_image(instance: Mapping[str, Any]) -> str:
    name = instance.get("instance_id", "without id")
    return f"instance {name} needs its dataset's container image, which is not available here"


class AgentSession(Session):
    """One agent in its checkout. An answer without a call hands the repository in, as `submit` does."""

    def __init__(self, task: Task) -> None:
        self._instance: Mapping[str, Any] = task.fields["instance"]
        self._options = AgentOptions.of_task(task.fields)
        self._checkout = Checkout(self._instance["files"]) if "files" in self._instance else None
        self._task = task
        self._num_calls = 0
        self._trouble: str | None = None

    def respond(self, answer: str) -> Turn | Grade:
        if self._checkout is None:
            return Grade.failed(_needs_image(self._instance))
        calls = parse_tool_calls(visible_answer(self._task, answer), self._task.tools)
        results = []
        for call in calls:
            self._num_calls += 1
            if call.name == "submit":
                return self.stop()
            results.append(self._do(call, self._checkout))
            if self._trouble is not None:
                return Grade.failed(self._trouble)
        if not calls:
            return self.stop()
        return Turn(tuple({"role": "tool", "content": result} for result in results))

    def stop(self) -> Grade:
        if self._checkout is None:
            return Grade.failed(_needs_image(self._instance))
        files = self._checkout.texts(".py")
        grade = grade_files(self._instance, self._options, files)
        components = {**grade.components, "num_calls": float(self._num_calls)}
        return Grade(grade.reward, components, grade.error)

    def close(self) -> None:
        if self._checkout is not None:
            self._checkout.close()

    def _do(self, call: ToolCall, checkout: Checkout) -> str:
        actions: Mapping[str, Callable[..., str]] = {
            "bash": self._bash, "view": self._view, "edit": self._edit
        }  # fmt: skip
        if call.name not in actions:
            return f"There is no tool {call.name!r}; there are bash, view, edit and submit."
        try:
            return actions[call.name](checkout, **{str(key): value for key, value in call.arguments.items()})
        except TypeError:
            return f"{call.name}: these are not its arguments: {', '.join(map(str, call.arguments))}"
        except CheckoutError as error:
            return str(error)

    def _bash(self, checkout: Checkout, command: str) -> str:
        limits = CommandLimits(
            wall_seconds=self._options.command_seconds,
            cpu_seconds=max(1, round(self._options.command_seconds)),
            memory_bytes=self._options.memory_mb * MIB,
            output_bytes=max(MIB, 4 * self._options.output_chars),
        )
        try:
            ended = shared_commands().run(
                Command(("bash", "-c", str(command)), folder=checkout.folder, limits=limits)
            )
        except ValueError:  # a null byte in the command line
            return "bash: the command cannot be run"
        if ended.error is not None:
            self._trouble = f"the sandbox failed: {ended.error}"
            return ""
        shown = _middle_out(ended.output, self._options.output_chars)
        if ended.stopped is not None:
            return f"{shown}\n[stopped: the limit on {ended.stopped}]"
        return shown if ended.status == 0 else f"{shown}\n[exit status {ended.status}]"

    def _view(self, checkout: Checkout, path: str, first: int = 1, last: int | None = None) -> str:
        lines = checkout.read(str(path)).splitlines()
        low = max(1, first) if isinstance(first, int) else 1
        high = last if isinstance(last, int) else len(lines)
        numbered = [f"{number:6d}  {line}" for number, line in enumerate(lines, start=1)]
        return _middle_out("\n".join(numbered[low - 1 : high]), self._options.output_chars)

    def _edit(self, checkout: Checkout, path: str, search: str, replace: str) -> str:
        path, search, replace = str(path), str(search), str(replace)
        if not search:
            if path in checkout.paths():
                return f"{path}: is there already; say what to replace"
            checkout.write(path, replace)
            return f"{path}: made"
        text = checkout.read(path)
        if (count := text.count(search)) != 1:
            return f"{path}: the text to replace is there {count} times; it must be there once"
        checkout.write(path, text.replace(search, replace))
        return f"{path}: changed"


def _middle_out(text: str, most: int) -> str:
    """The text without its middle where it is too long to read."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[… {len(text) - most} characters left out …]\n{text[-(most // 2) :]}"
