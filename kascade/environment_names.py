"""Which environments there are: names and places only, so that recipes are checked without loading any."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import entry_points

_BUILTIN = {
    "math_with_judge": "math.environment:MathEnvironment",
    "instruction_following": "instructions.environment:InstructionFollowing",
    "ifbench": "instructions.ifbench:IFBench",
    "mcqa": "knowledge:MultipleChoice",
    "workplace_assistant": "tools.one_turn_office:WorkplaceAssistant",
    "structured_outputs": "structured_output.environment:StructuredOutputs",
    "genrm_compare": "chat:PairwiseChat",
    "lc_niah": "long_context.retrieval:Retrieval",
    "code_gen": "code.environment:CodeGeneration",
    "swerl_gen": "software_engineering.agentless:AgentlessRepair",
}
# Further ones: they need rows, options, a judge or several turns, and no miniature is pretrained on them.
_FURTHER = {
    "bfcl": "tools.function_calls:FunctionCalls",
    "competitive_coding_challenges": "code.environment:CompetitiveCoding",
    "demonstrations": "demonstrations:Demonstrations",
    "equivalence_llm_judge": "equivalence:EquivalenceJudge",
    "harness": "outside.benchmarks:Harness",
    "lc_judge": "equivalence:DocumentQuestions",
    "lm_eval": "outside.benchmarks:LmEval",
    "math_with_code": "math.with_python:MathWithCode",
    "nemo_gym": "remote.nemo_gym:NemoGym",
    "ns_tools": "math.with_python:PythonTool",
    "openenv": "remote.openenv:OpenEnv",
    "reasoning_gym": "reasoning_gym:ReasoningGym",
    "single_step_tool_use_with_argument_comparison": "tools.function_calls:SingleStepToolUse",
    "ruler": "long_context.ruler:Ruler",
    "swe_agents": "software_engineering.agents:SweAgents",
    "swerl_llm_judge": "software_engineering.patch_choice:PatchChoice",
    "tool_dialogues": "dialogues.environment:ToolDialogues",
    "verifiers": "remote.verifiers:Verifiers",
    "workplace_dialogues": "workplace.environment:WorkplaceDialogues",
}
OF_OTHER_TOOLS = frozenset({"harness", "lm_eval"})  # benchmarks that another tool poses and grades
# Every task is a conversation: a row holds all of its turns, and not one answer alone.
CONVERSATIONS = frozenset({"openenv", "swe_agents", "tool_dialogues", "verifiers", "workplace_dialogues"})
BUILTIN = {name: f"kascade.environments.{place}" for name, place in _BUILTIN.items()}
FURTHER = {name: f"kascade.environments.{place}" for name, place in _FURTHER.items()}


def plugin_environments() -> dict[str, str]:
    """Name of each environment that another package registers → "module:Class"."""
    return dict(_registered(tuple(sys.path)))


@cache
def _registered(path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Looked up once for a module path: each look reads the metadata of every installed package."""
    return tuple((point.name, point.value) for point in entry_points(group="kascade.environments"))


def known_environments() -> dict[str, str]:
    """Name of each environment → "module:Class", the user's own entry points included."""
    return {**BUILTIN, **FURTHER, **plugin_environments()}
