"""What tools of a dialogue act on: the office, or Python classes that simulate an interface, as BFCL's do."""

from __future__ import annotations

import ast
import copy
import inspect
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from kascade.environments.tool_calls import ToolCall
from kascade.environments.workplace_office import Office
from kascade.environments.workplace_tables import make_tables, read_tables

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


class WorldError(Exception):
    """A world cannot be made on this machine. Its message says why."""


class World(Protocol):
    """Simulated tools and their state. Neither method raises on any call."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the tool answers (JSON); errors are answers, too."""
        ...

    def state(self) -> Any:
        """All that tools can change, to be compared with another world's."""
        ...


def make_world(fields: Mapping[str, Any]) -> World:
    """The world that a task's `world` describes, fresh. Raises WorldError."""
    if "classes" in fields:
        return ClassWorld(fields["classes"], fields["config"], long_context=fields["long_context"])
    databases = fields.get("databases")
    return Office(make_tables(fields.get("tables_seed", 0)) if databases is None else read_tables(databases))


class ClassWorld:
    """Instances of classes whose public methods are the tools, and whose public attributes are the state."""

    def __init__(self, classes: Mapping[str, str], config: Mapping[str, Any], *, long_context: bool) -> None:
        """classes: name → module. config: what each is set up with. Raises WorldError."""
        self._instances: dict[str, Any] = {}
        self._tools: dict[str, Any] = {}
        for name, module in classes.items():
            instance = class_of(name, module)()
            try:
                if hasattr(instance, "_load_scenario"):
                    own = copy.deepcopy(config.get(name, {}))
                    takes = inspect.signature(instance._load_scenario).parameters
                    more = {"long_context": long_context} if "long_context" in takes else {}
                    instance._load_scenario(own, **more)
            except Exception as error:
                raise WorldError(f"initial_config.{name}: {type(error).__name__}: {error}") from error
            self._instances[name] = instance
            self._tools |= {method: getattr(instance, method) for method in public_methods(type(instance))}

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        if name not in self._tools:
            return f"Error during execution: there is no tool {name!r}"
        try:
            return self._tools[name](**{str(key): value for key, value in arguments.items()})
        except Exception as error:  # whatever the simulated interface does with senseless arguments
            return f"Error during execution: {error}"

    def state(self) -> Any:
        return {
            name: {key: value for key, value in vars(instance).items() if not key.startswith("_")}
            for name, instance in self._instances.items()
        }


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
    """Function definitions from the classes' own signatures and docstrings. Raises WorldError."""
    found = []
    for name, module in classes.items():
        of = class_of(name, module)
        found += [
            _definition(method, getattr(of, method))
            for method in public_methods(of)
            if method not in excluded
        ]
    return found


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
    """A call as BFCL writes it: `cd(folder='a')`. Raises ValueError; WorldError for positional arguments."""
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


def shown(result: Any) -> str:
    """A tool's answer as the policy reads it."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
