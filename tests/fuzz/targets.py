"""What is fuzzed: each target takes any bytes, and may refuse them in the product's own words only."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

from kascade.data.chat import ChatFormat
from kascade.data.files import Format, read_opened
from kascade.data.json_text import JsonError, items, parse
from kascade.data.shapes import nemo_gym_rows
from kascade.environments import get_environment
from kascade.environments.code.environment import extract_program
from kascade.environments.code.unit_tests import same_text, same_value
from kascade.environments.fences import fenced_blocks
from kascade.environments.json_types import kinds_of, property_schema, read_as
from kascade.environments.math.boxes import last_boxed, without_delimiters
from kascade.environments.math.environment import extract
from kascade.environments.math.forms import conflict, form_of, unit_of
from kascade.environments.math.numbers import as_number
from kascade.environments.rows.loading import row_task
from kascade.environments.rows.tool_calls import parse_tool_calls
from kascade.environments.software_engineering.diffs import apply_diff
from kascade.environments.software_engineering.edits import apply_edits, parse_edits
from kascade.environments.software_engineering.lines import EditError
from kascade.environments.structured_output.strict import SchemaFault, validator
from kascade.errors import Fault, UserError
from kascade.recipe.document import parse_yaml
from kascade.recipe.parts import DataSource
from kascade.task import Task, visible_answer

FILES = {"a.py": "def f(x):\n    return x\n", "b.py": "import a\r\n\r\nK = 1"}
# Graders that run nothing: they take an answer in microseconds, and millions of them.
GRADERS = (
    *("mcqa", "structured_outputs", "instruction_following", "ifbench", "lc_niah", "swerl_llm_judge"),
    *("single_step_tool_use_with_argument_comparison", "bfcl", "workplace_assistant", "demonstrations"),
)
# Environments whose rows are read from what fuzzing makes.
ROW_READERS = (*GRADERS, "math_with_judge", "code_gen", "swerl_gen", "equivalence_llm_judge", "genrm_compare")
Target = Callable[[bytes], None]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace") if _sound(data) else ""


def _sound(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace")
    except UnicodeDecodeError:
        return False
    return True


def rows(kind: Format) -> Target:
    def target(data: bytes) -> None:
        for place, found in read_opened(io.BytesIO(data), "rows", kind):
            assert place
            if isinstance(found, Fault):
                assert found.what and (found.remedy or found.allowed)
            else:
                as_tasks(found)

    return target


def as_tasks(row: dict[str, Any]) -> None:
    """A row through its shape into each environment: a task, or a ValueError that names the field."""
    source = DataSource(environment="any", path="rows")
    for name in ROW_READERS:
        try:
            for one in nemo_gym_rows(dict(row), source):
                task = row_task(get_environment(name), one, source)
                assert task.id
        except ValueError as error:
            assert str(error)


def json_rows(data: bytes) -> None:
    try:
        value = parse(data)
    except JsonError:
        return
    if isinstance(value, dict):
        as_tasks(value)


def json_lists(data: bytes) -> None:
    try:
        for one in items(_text(data)):
            assert isinstance(one, str)
    except JsonError:
        return


def recipe(data: bytes) -> None:
    try:
        parse_yaml(_text(data), "recipe.yaml").plain()
    except UserError as error:
        assert all(fault.where for fault in error.faults)


@cache
def posed(name: str) -> Task:
    return get_environment(name).pose(random.Random(5), 0.6) if name != "demonstrations" else _shown()


def _shown() -> Task:
    message: Any = {"role": "user", "content": "?"}
    return Task("demonstrations", "chat", (message,), {}, reference="It is Paris.")


def grader(name: str) -> Target:
    def target(data: bytes) -> None:
        (grade,) = get_environment(name).grade(posed(name), [_text(data)])
        assert grade.error is None and 0 <= grade.reward <= 1

    return target


def math(data: bytes) -> None:
    text = _text(data)
    for boxed_only in (False, True):
        extract(text, boxed_only=boxed_only)
    one, _, other = text.partition("|")
    for part in (one, other):
        as_number(part), form_of(part), unit_of(part), without_delimiters(part), last_boxed(part)
    conflict(one, other, lambda a, b: a == b)


def code(data: bytes) -> None:
    text = _text(data)
    for language in ("python", "cpp"):
        extract_program(text, language)
    fenced_blocks(text)
    one, _, other = text.partition("|")
    for tolerance in (0.0, 1e-6):
        same_text(one, other, tolerance), same_value(one, other, tolerance)


def patches(data: bytes) -> None:
    text = _text(data)
    for apply in (apply_diff, lambda files, patch: apply_edits(files, parse_edits(patch))):
        try:
            assert apply(FILES, text) != FILES
        except EditError:
            continue


def tool_calls(data: bytes) -> None:
    text = _text(data)
    schema, _, answer = text.partition("|")
    try:
        properties = json.loads(schema)
    except (ValueError, RecursionError):
        properties, answer = {}, text
    kinds = kinds_of(properties, properties)
    property_schema(properties, "a", properties), read_as(answer, kinds)
    for call in parse_tool_calls(answer, [{"name": "f", "parameters": {"properties": {"a": properties}}}]):
        json.dumps(dict(call.arguments))


def schemas(data: bytes) -> None:
    try:
        check = validator(_text(data))
    except SchemaFault:
        return
    fields = {"schema_str": _text(data), "schema_type": "json", "response_mode": "text"}
    task = Task("structured_outputs", "structured_output", posed("structured_outputs").messages, fields)
    for answer in ("{}", '{"a": 1}', "[1]", "null"):
        get_environment("structured_outputs").grade(task, [answer])
    assert check is not None


def cron(data: bytes) -> None:
    from datetime import UTC, datetime

    from pipelines.cron import Cron

    try:
        fields = Cron(_text(data), "Europe/Berlin").in_utc(datetime(2026, 11, 28, tzinfo=UTC)).split()
    except UserError:
        return
    assert len(fields) == 6 and all(set(field) <= set("0123456789,*") for field in fields)


@cache
def _tokenizer() -> Any:
    from kascade.data.byte_tokenizer import byte_tokenizer

    return byte_tokenizer()


def templates(data: bytes) -> None:
    tokenizer = _tokenizer()
    tokenizer.chat_template = _text(data)
    try:
        chat = ChatFormat(tokenizer)
        for name in ("mcqa", "bfcl"):
            chat.completion_ids(posed(name), posed(name).reference or "")
            chat.prompt_ids(posed(name))
    except UserError as error:
        assert error.faults


def thinking(data: bytes) -> None:
    text = _text(data)
    seen = visible_answer(posed("structured_outputs"), text)
    assert "<think>" not in seen and "</think>" not in seen


TARGETS: dict[str, Target] = {
    **{f"rows_{kind}": rows(kind) for kind in get_args(Format) if kind != "tsv"},
    **{f"grader_{name}": grader(name) for name in GRADERS},
    "json_rows": json_rows,
    "json_lists": json_lists,
    "recipe": recipe,
    "math": math,
    "code": code,
    "patches": patches,
    "tool_calls": tool_calls,
    "schemas": schemas,
    "cron": cron,
    "templates": templates,
    "thinking": thinking,
}
