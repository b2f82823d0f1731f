"""Environments by name; a user adds one as an entry point of the group `kascade.environments`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from kascade.environments.base import DOMAINS, SPLITS, Domain, Environment, Grade, Message, Split, Task
from kascade.errors import Fault, UserError

BUILTIN = {
    "math_with_judge": "kascade.environments.math:MathEnvironment",
    "instruction_following": "kascade.environments.instruction_following:InstructionFollowing",
    "mcqa": "kascade.environments.knowledge:MultipleChoice",
    "workplace_assistant": "kascade.environments.tool_use:WorkplaceAssistant",
    "structured_outputs": "kascade.environments.structured_output:StructuredOutputs",
    "genrm_compare": "kascade.environments.chat:PairwiseChat",
    "lc_niah": "kascade.environments.long_context:Retrieval",
    "code_gen": "kascade.environments.code:CodeGeneration",
    "swerl_gen": "kascade.environments.software_engineering:AgentlessRepair",
}


def known_environments() -> dict[str, str]:
    """Name of each environment → "module:Class", the user's own entry points included."""
    plugins = {point.name: point.value for point in entry_points(group="kascade.environments")}
    return {**BUILTIN, **plugins}


@cache
def get_environment(name: str) -> Environment:
    """The environment registered under `name`. Raises UserError naming what is registered."""
    known = known_environments()
    if name not in known:
        raise UserError(Fault(f"environment {name!r}", "is not registered", allowed=", ".join(sorted(known))))
    module, _, attribute = known[name].partition(":")
    environment = getattr(import_module(module), attribute)()
    assert isinstance(environment, Environment)
    return environment


__all__ = [
    "BUILTIN",
    "DOMAINS",
    "SPLITS",
    "Domain",
    "Environment",
    "Grade",
    "Message",
    "Split",
    "Task",
    "get_environment",
    "known_environments",
]
