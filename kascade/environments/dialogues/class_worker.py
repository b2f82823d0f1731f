"""A process of its own for simulated interfaces: `python -m kascade.environments.dialogues.class_worker`.

The classes are the user's or BFCL's, their arguments a model's: 2 ** 10 ** 12 would stop a run that computed
it. Arguments come as JSON and go to public methods as they are; nothing of them is evaluated.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from kascade.environments.dialogues.interface_classes import WorldError, class_of, public_methods
from kascade.sandbox.line_worker import serve

MEMORY = 4 * 2**30  # bytes of address space, of all conversations together
FAILED = "Error during execution: "  # as BFCL writes it


class ClassWorld:
    """Instances of classes whose public methods are the tools, and whose public attributes are the state."""

    def __init__(self, classes: Mapping[str, str], config: Mapping[str, Any], *, long_context: bool) -> None:
        """classes: name → module. config: what each is set up with. Raises WorldError."""
        self._instances: dict[str, Any] = {}
        self._tools: dict[str, Any] = {}
        for name, module in classes.items():
            try:
                instance = class_of(name, module)()
                if hasattr(instance, "_load_scenario"):
                    own = copy.deepcopy(config.get(name, {}))
                    takes = inspect.signature(instance._load_scenario).parameters
                    more = {"long_context": long_context} if "long_context" in takes else {}
                    instance._load_scenario(own, **more)
            except WorldError:
                raise
            except Exception as error:
                raise WorldError(f"initial_config.{name}: {type(error).__name__}: {error}") from error
            self._instances[name] = instance
            self._tools |= {method: getattr(instance, method) for method in public_methods(type(instance))}

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What the tool answers, as the policy reads it; errors are answers, too. Never raises."""
        if name not in self._tools:
            return f"{FAILED}there is no tool {name!r}"
        try:
            return shown(self._tools[name](**arguments))
        except Exception as error:  # whatever the simulated interface does with senseless arguments
            return f"{FAILED}{error}"

    def state(self) -> Any:
        return {
            name: {key: value for key, value in vars(instance).items() if not key.startswith("_")}
            for name, instance in self._instances.items()
        }


def shown(result: Any) -> str:
    """A tool's answer as the policy reads it."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


def worlds() -> Callable[[Any], Any]:
    """Keeps two worlds a conversation, the policy's and that of the gold calls, until they are dropped."""
    kept: dict[int, tuple[ClassWorld, ClassWorld]] = {}

    def answer(asked: Any) -> Any:
        pair = asked["pair"]
        try:
            match asked["do"]:
                case "make":
                    own = asked["classes"], asked["config"]
                    first, second = (ClassWorld(*own, long_context=asked["long_context"]) for _ in range(2))
                    kept[pair] = first, second
                    return None
                case "call":
                    return kept[pair][asked["gold"]].call(asked["name"], asked["arguments"])
                case "compare":
                    first, second = kept[pair]
                    return bool(first.state() == second.state())
                case _:
                    kept.pop(pair, None)
                    return None
        except Exception as error:
            return {"error": str(error)}

    return answer


if __name__ == "__main__":
    serve(worlds, memory_bytes=MEMORY)
