"""Python classes that simulate an interface, as BFCL's multi-turn rows name them: found, described, called.

Public methods are the tools, public attributes the state.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Mapping, Sequence
from importlib import import_module, resources
from typing import Any

from kascade.environments.rows.tool_calls import ToolCall

BFCL_SOURCES = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"
BFCL_CLASSES = {  # of the package bfcl-eval: `pip install bfcl-eval`
    "GorillaFileSystem": f"{BFCL_SOURCES}.gorilla_file_system",
    "MathAPI": f"{BFCL_SOURCES}.math_api",
    "MessageAPI": f"{BFCL_SOURCES}.message_api",
    "TwitterAPI": f"{BFCL_SOURCES}.posting_api",
    "TicketAPI": f"{BFCL_SOURCES}.ticket_api",
    "TradingBot": f"{BFCL_SOURCES}.trading_bot",
    "TravelAPI": f"{BFCL_SOURCES}.travel_booking",
    "VehicleControlAPI": f"{BFCL_SOURCES}.vehicle_control",
}
JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", list: "array", dict: "object"}
JSON_NAMES = {"dict": "object", "float": "number", "tuple": "array"}  # of BFCL's definitions


class WorldError(Exception):
    """A simulated interface cannot be had on this machine. Its message says why."""


def class_of(name: str, module: str) -> Any:
    """Raises WorldError."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        hint = "; pip install bfcl-eval" if module.startswith("bfcl_eval") else ""
        raise WorldError(f"{module}:{name} cannot be imported ({error}){hint}") from error


def public_methods(of: type) -> list[str]:
    """Names of the methods that are tools, in order."""
    return [name for name, _ in inspect.getmembers(of, inspect.isfunction) if not name.startswith("_")]


def definitions(classes: Mapping[str, str], excluded: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Function definitions: BFCL's published ones for its classes, else signatures and docstrings.

    classes: name → module. Raises WorldError.
    """
    found = []
    for name, module in classes.items():
        of = class_of(name, module)
        published = _published(module) if module == BFCL_CLASSES.get(name) else {}
        found += [
            published.get(method) or _definition(method, getattr(of, method))
            for method in public_methods(of)
            if method not in excluded
        ]
    return found


def _published(module: str) -> dict[str, dict[str, Any]]:
    """The definitions that bfcl-eval shows a model, by name, its types in JSON Schema's words."""
    file = resources.files("bfcl_eval") / "data" / "multi_turn_func_doc" / f"{module.rpartition('.')[2]}.json"
    if not file.is_file():
        return {}
    listed = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {one["name"]: {"type": "function", **_in_json_schema(one)} for one in listed}


def _in_json_schema(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_json_schema(one) for one in value]
    if not isinstance(value, dict):
        return value
    named = {key: _in_json_schema(one) for key, one in value.items()}
    if isinstance(kind := named.get("type"), str):
        named["type"] = JSON_NAMES.get(kind, kind)
    return named


def _definition(name: str, method: Any) -> dict[str, Any]:
    parameters = [
        one for key, one in inspect.signature(method, eval_str=True).parameters.items() if key != "self"
    ]
    schema = {
        "type": "object",
        "properties": {one.name: _schema(one.annotation) for one in parameters},
        "required": [one.name for one in parameters if one.default is one.empty],
    }
    said = inspect.getdoc(method) or name.replace("_", " ")
    return {"type": "function", "name": name, "description": said, "parameters": schema}


def _schema(annotation: Any) -> dict[str, str]:
    kinds = [getattr(one, "__origin__", one) for one in (annotation, *getattr(annotation, "__args__", ()))]
    return next(({"type": JSON_TYPES[kind]} for kind in kinds if kind in JSON_TYPES), {})


def parse_call(text: str, classes: Mapping[str, str]) -> ToolCall:
    """A gold call as BFCL writes it: `cd(folder='a')`; arguments are literals, nothing is run.

    Raises ValueError; WorldError for positional arguments.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name | ast.Attribute):
            raise ValueError("is not a call")
        name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
        named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        placed = [ast.literal_eval(one) for one in call.args]
    except (ValueError, SyntaxError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a call with literal arguments ({error})") from None
    return ToolCall(
        name, {**dict(zip(_parameters(name, classes), placed, strict=False)), **named} if placed else named
    )


def _parameters(method: str, classes: Mapping[str, str]) -> list[str]:
    for name, module in classes.items():
        if hasattr(found := class_of(name, module), method):
            return [key for key in inspect.signature(getattr(found, method)).parameters if key != "self"]
    raise ValueError(f"{method}: is no tool of {', '.join(classes)}")
