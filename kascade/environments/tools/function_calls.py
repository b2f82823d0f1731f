"""One step of tool use: the call, the calls or the plain words that should come next."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from kascade.environments.base import Environment
from kascade.environments.options import Options
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.environments.rows.tool_calls import (
    ToolCall,
    function_of,
    gold_calls,
    parse_tool_calls,
    render_tool_call,
)
from kascade.environments.tools.call_matching import (
    Mode,
    allowed_call,
    matched_reward,
    num_matched,
    parameters_of,
    same_call,
)
from kascade.environments.tools.small_tools import pose_calls
from kascade.recipe.parts import Share
from kascade.task import Domain, Grade, Task, visible_answer


class SingleStepOptions(Options):
    """How the next call is compared with the expected one. NeMo-Gym's configuration, but for `surplus`."""

    mode: Mode = Field("binary_strict", description="of batches; f1 = 2 matched / (expected + actual)")
    word_similarity: Share = Field(
        0.1, description="common words per word of both, from which on texts count as the same [NeMo-Gym]"
    )
    surplus: bool = Field(False, description="let further calls pass where one is expected [NeMo-Gym: true]")


class SingleStepToolUse(Environment):
    """NeMo-Gym rows with `expected_action`: a call, a batch of calls, or a message (any words will do).

    Options: `mode` (binary_strict, fractional, f1); `word_similarity`, from which on texts of several words
    count as the same (common words per word of both); `surplus: true` lets further calls pass where one is
    expected, as NeMo-Gym does. By default they cost the reward: else a policy learns to try them all.
    """

    name = "single_step_tool_use_with_argument_comparison"
    domain: ClassVar[Domain] = "tool_use"
    options_type = SingleStepOptions

    def pose(self, rng: random.Random, level: float) -> Task:
        """One wish that one call fulfils; from level 0.5 on two, that two calls do."""
        text, tools, calls = pose_calls(rng, 2 if level >= 0.5 else 1)
        single = _expected_json(calls[0])
        batch = {"type": "function_call_batch", "calls": [_expected_json(call) for call in calls]}
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=({"role": "user", "content": text},),
            fields=self._fields(single if len(calls) == 1 else batch),
            reference="\n".join(render_tool_call(call.name, call.arguments) for call in calls),
            tools=tools,
        )

    def from_row(self, row: Mapping[str, Any]) -> Task:
        action = row.get("expected_action")
        calls = _expected(action)
        words = "" if calls else str(action.get("content") or "").strip()  # type: ignore[union-attr]
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=row_messages(row),
            fields=self._fields(action),
            reference=gold_calls(calls) if calls else words or None,
            tools=row_tools(row),
        )

    def _fields(self, action: Any) -> dict[str, Any]:
        return {"expected_action": action, **SingleStepOptions.of(self.options).model_dump()}

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """Components: calls `matched`, `expected` and `actual`."""
        expected = _expected(task.fields["expected_action"])
        similarity, mode = task.fields["word_similarity"], task.fields["mode"]
        grades = []
        for answer in answers:
            said = visible_answer(task, answer)
            actual = parse_tool_calls(said, task.tools, both=True)
            if not expected:
                grades.append(Grade(float(bool(said) and not actual), {"actual": float(len(actual))}))
                continue
            matched = num_matched(expected, actual, lambda e, a: same_call(e, a, similarity))
            counted = 1 if task.fields["surplus"] and len(expected) == matched == 1 else len(actual)
            reward = matched_reward(matched, len(expected), counted, mode)
            grades.append(_graded(reward, matched, len(expected), len(actual)))
        return grades


class FunctionCalls(Environment):
    """BFCL: calls whose every argument is one of the allowed values; simple, multiple, parallel, irrelevant.

    Row fields: `ground_truth` (or `possible_answer`), a list of {function: {parameter: [allowed values]}}, an
    empty one where no function helps, or `any_call: true` where any call will do (BFCL's relevance); tools
    in `responses_create_params`, or BFCL's own `question` and `function`.
    """

    name = "bfcl"
    domain: ClassVar[Domain] = "tool_use"

    def pose(self, rng: random.Random, level: float) -> Task:
        """One wish; from level 0.5 on two, in parallel; at times one that no function fulfils."""
        irrelevant = rng.random() < 0.15
        text, tools, calls = pose_calls(rng, 2 if level >= 0.5 else 1, fulfil=not irrelevant)
        allowed = [{call.name: {key: [value] for key, value in call.arguments.items()}} for call in calls]
        reference = "\n".join(render_tool_call(call.name, call.arguments) for call in calls)
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=({"role": "user", "content": text},),
            fields={"ground_truth": allowed, "any_call": False},
            reference=reference or "No function here does that.",
            tools=tools,
        )

    def from_row(self, row: Mapping[str, Any]) -> Task:
        allowed = row.get("ground_truth", row.get("possible_answer"))
        any_call = row.get("any_call") or False
        if not isinstance(any_call, bool) or (any_call and allowed):
            raise ValueError("any_call: true or false is needed, and no ground_truth beside true")
        if any_call:
            allowed = []
        if isinstance(allowed, str):
            allowed = _json("ground_truth", allowed)
        if not isinstance(allowed, list) or not all(map(_is_allowed, allowed)):
            raise ValueError("ground_truth: a list of {function: {parameter: [allowed values]}} is needed")
        row = _own_form(row)
        tools = row_tools(row)
        if any_call and not tools:
            raise ValueError("any_call: the row shows no function that could be called")
        gold = [_first_allowed(one, tools) for one in allowed]
        reference = gold_calls(gold) if gold else "None fits."
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=row_messages(row),
            fields={"ground_truth": allowed, "any_call": any_call},
            reference=None if any_call else reference,
            tools=tools,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        """1 when every expected call is made, and no other; with `any_call`, when one of a tool shown is.

        Components: `matched`, `expected`, `actual`.
        """
        expected, any_call = task.fields["ground_truth"], task.fields.get("any_call", False)
        shown = {function_of(tool).get("name") for tool in task.tools}
        grades = []
        for answer in answers:
            said = visible_answer(task, answer)
            actual = parse_tool_calls(said, task.tools, both=True)
            if any_call:
                made = sum(call.name in shown for call in actual)
                grades.append(_graded(float(made > 0), min(made, 1), 1, len(actual)))
                continue
            matched = num_matched(expected, actual, lambda e, a: allowed_call(e, a, task.tools))
            right = matched == len(expected) == len(actual) and bool(said)
            grades.append(_graded(float(right), matched, len(expected), len(actual)))
        return grades


def _graded(reward: float, matched: int, expected: int, actual: int) -> Grade:
    counts = {"matched": float(matched), "expected": float(expected), "actual": float(actual)}
    return Grade(reward, counts)


def _expected_json(call: ToolCall) -> dict[str, Any]:
    return {"type": "function_call", "name": call.name, "arguments": json.dumps(call.arguments)}


def _expected(action: Any) -> list[ToolCall]:
    """The expected calls; none where a message is expected. Raises ValueError naming the field."""
    kind = action.get("type") if isinstance(action, Mapping) else None
    if kind == "message":
        return []
    if kind == "function_call":
        return [_one_expected("expected_action", action)]
    if kind == "function_call_batch" and isinstance(action.get("calls"), list) and action["calls"]:
        return [_one_expected(f"expected_action.calls[{i}]", call) for i, call in enumerate(action["calls"])]
    raise ValueError("expected_action: a function_call, a function_call_batch or a message is needed")


def _one_expected(where: str, call: Any) -> ToolCall:
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        raise ValueError(f"{where}.name: the name of a function is needed")
    arguments = call.get("arguments")
    parsed = _json(f"{where}.arguments", arguments) if isinstance(arguments, str) else arguments
    if not isinstance(parsed, Mapping):
        raise ValueError(f"{where}.arguments: JSON text of an object is needed")
    return ToolCall(call["name"], parsed)


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from error


def _is_allowed(one: Any) -> bool:
    return (
        isinstance(one, Mapping)
        and bool(one)
        and all(
            isinstance(values, Mapping) and all(isinstance(options, list) for options in values.values())
            for values in one.values()
        )
    )


def _first_allowed(one: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> ToolCall:
    """A call with the first of each parameter's values; what may be left out is, unless it is required."""
    name, values = next(iter(one.items()))
    required = parameters_of(name, tools).get("required") or []
    given = {}
    for key, options in values.items():
        if "" not in options or key in required:
            given[key] = _as_written(next((option for option in options if option != ""), ""))
    return ToolCall(name, given)


def _as_written(value: Any) -> Any:
    """An allowed value as one would write it: within objects, the first of each key's values."""
    if isinstance(value, Mapping):
        return {k: _as_written(v[0] if isinstance(v, list) and v else v) for k, v in value.items()}
    return [_as_written(one) for one in value] if isinstance(value, list) else value


def _own_form(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """BFCL's own rows (`question`: [[message, …]], `function`) as NeMo-Gym writes them; others unchanged."""
    if "responses_create_params" in row or not isinstance(row.get("question"), list):
        return row
    turns = row["question"]
    if turns and isinstance(turns[0], list):  # turns of several dialogues; there is one
        turns = turns[0]
    functions = row.get("function") or []
    if not isinstance(functions, list):
        raise ValueError("function: a list of definitions is needed")
    for index, definition in enumerate(functions):
        if not isinstance(definition, Mapping):
            raise ValueError(f"function[{index}]: a definition is needed, as an object")
    tools = [{"type": "function", **f} for f in functions]
    return {**row, "responses_create_params": {"input": turns, "tools": tools}}
