"""Which environments there are: names and places only, so that recipes are checked without loading any."""

from __future__ import annotations

from importlib.metadata import entry_points

BUILTIN = {
    "math_with_judge": "kascade.environments.math:MathEnvironment",
    "instruction_following": "kascade.environments.instruction_following:InstructionFollowing",
    "ifbench": "kascade.environments.ifbench:IFBench",
    "mcqa": "kascade.environments.knowledge:MultipleChoice",
    "workplace_assistant": "kascade.environments.tool_use:WorkplaceAssistant",
    "structured_outputs": "kascade.environments.structured_output:StructuredOutputs",
    "genrm_compare": "kascade.environments.chat:PairwiseChat",
    "lc_niah": "kascade.environments.long_context:Retrieval",
    "code_gen": "kascade.environments.code:CodeGeneration",
    "swerl_gen": "kascade.environments.software_engineering:AgentlessRepair",
}
# Further ones: they need rows, options, a judge or several turns, and no miniature is pretrained on them.
FURTHER = {
    "bfcl": "kascade.environments.function_calls:FunctionCalls",
    "competitive_coding_challenges": "kascade.environments.code:CompetitiveCoding",
    "demonstrations": "kascade.environments.demonstrations:Demonstrations",
    "equivalence_llm_judge": "kascade.environments.equivalence:EquivalenceJudge",
    "lc_judge": "kascade.environments.equivalence:DocumentQuestions",
    "math_with_code": "kascade.environments.python_tool:MathWithCode",
    "ns_tools": "kascade.environments.python_tool:PythonTool",
    "reasoning_gym": "kascade.environments.reasoning_gym:ReasoningGym",
    "single_step_tool_use_with_argument_comparison": "kascade.environments.function_calls:SingleStepToolUse",
    "ruler": "kascade.environments.ruler:Ruler",
    "swe_agents": "kascade.environments.swe_agents:SweAgents",
    "swerl_llm_judge": "kascade.environments.patch_choice:PatchChoice",
    "tool_dialogues": "kascade.environments.tool_dialogues:ToolDialogues",
    "workplace_dialogues": "kascade.environments.workplace:WorkplaceDialogues",
}


def known_environments() -> dict[str, str]:
    """Name of each environment → "module:Class", the user's own entry points included."""
    plugins = {point.name: point.value for point in entry_points(group="kascade.environments")}
    return {**BUILTIN, **FURTHER, **plugins}
