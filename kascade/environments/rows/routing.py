"""Which environment a row belongs to: by the NeMo-Gym server or agent that it names, else by its fields."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from kascade.environment_names import known_environments, plugin_environments
from kascade.environments import get_environment

# NeMo-Gym calls agents after their server ("mcqa_simple_agent" serves "mcqa"); these are called otherwise.
AGENTS = {
    "genrm_simple_agent": "genrm_compare",
    "workbench": "workplace_assistant",
    "lc": "lc_judge",
    "code_gen_simple_agent": "code_gen",
}
ANSWERED = (("instruction", "output"), ("prompt", "completion"), ("question", "answer"))  # and the answer
SHOWN = 8  # fields of a row that are reported
ANY_SERVER = ("simple_agent", "simple_agent_stateful")  # agents that say nothing of the server
# Rows that name nobody: the first environment all of whose fields a row has.
FIELDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("swerl_llm_judge", ("options", "expected_answer", "instance_id")),
    ("mcqa", ("options", "expected_answer")),
    ("structured_outputs", ("schema_str",)),
    ("instruction_following", ("instruction_id_list",)),
    ("swerl_gen", ("instance", "mode")),
    ("tool_dialogues", ("user", "ground_truth")),
    ("workplace_assistant", ("ground_truth", "category")),
    ("single_step_tool_use_with_argument_comparison", ("expected_action",)),
    ("competitive_coding_challenges", ("competition_id", "subtask")),
    ("code_gen", ("verifier_metadata.unit_tests",)),
    ("code_gen", ("unit_tests",)),
    ("math_with_code", ("expected_result",)),
    ("reasoning_gym", ("metadata.source_dataset", "answer")),
    ("ns_tools", ("verifier_type", "expected_answer")),
    ("lc_niah", ("problem_type", "expected_answer")),
    ("equivalence_llm_judge", ("template_metadata.output_regex", "expected_answer")),
    ("math_with_judge", ("question", "expected_answer")),
    ("equivalence_llm_judge", ("expected_answer",)),
    ("genrm_compare", ("chosen", "rejected")),
    ("demonstrations", ("reference",)),
)


def named_environment(row: Mapping[str, Any]) -> str | None:
    """The environment that a row names; None when it names none.

    Raises ValueError for one that is not registered, with the nearest name that is.
    """
    name, field = _name(row)
    if name is None or name in ANY_SERVER:
        return None
    known = known_environments()
    alias = AGENTS.get(name, name)
    # an agent's name begins with its server's
    fitting = [one for one in known if alias == one or alias.startswith(f"{one}_")]
    if fitting:
        return max(fitting, key=len)
    near = get_close_matches(_server(alias), known, n=1, cutoff=0.5)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    raise ValueError(
        f"{field}: {name!r} is no registered environment{hint}; they are {', '.join(sorted(known))}"
    )


def environment_of(row: Mapping[str, Any]) -> str:
    """The environment that a row names or, failing that, that its fields tell. Raises ValueError."""
    if named := named_environment(row):
        return named
    known = known_environments()
    for name, fields in FIELDS:
        if all(_has(row, field) for field in fields):
            if name not in known:
                raise ValueError(f"agent_ref.name: by its fields a row of {name!r}, which is not registered")
            return name
    for name in plugin_environments():
        fields = get_environment(name).row_fields
        if fields and all(_has(row, field) for field in fields):
            return name
    raise ValueError(_unplaced(row))


def _unplaced(row: Mapping[str, Any]) -> str:
    """Why nothing says which environment a row belongs to."""
    for given, missing in (("chosen", "rejected"), ("rejected", "chosen")):
        if row.get(given) is not None and row.get(missing) is None:
            return f"{missing}: missing beside {given}; a preference pair has both"
    for given, answer in ANSWERED:
        if row.get(given) is not None and answer in row and row[answer] is None:
            return f"{answer}: is empty (null), so there is nothing to learn; leave the row out"
    for name in ("messages", "conversations"):
        if isinstance(row.get(name), list):
            return (
                f"{name}: no assistant's turn at the end, so nothing to learn, and no environment that would "
                "grade an answer; name it in agent_ref.name, or with --environment"
            )
        if row.get(name) is not None:
            return f"{name}: a list of turns, each with role and content, is needed"
    fields = [name for name in row if name != "responses_create_params"]
    listed = ", ".join(map(str, fields[:SHOWN])) + (", …" if len(fields) > SHOWN else "")
    return (
        f"agent_ref.name: missing, and the fields ({listed}) are no known environment's; name one there, "
        "or with --environment"
    )


def _name(row: Mapping[str, Any]) -> tuple[str | None, str]:
    """What a row calls its environment, and the field that says so."""
    agent = row.get("agent_ref")
    if isinstance(agent, Mapping) and isinstance(agent.get("name"), str):
        return agent["name"], "agent_ref.name"
    for field in ("environment_name", "environment"):
        if isinstance(row.get(field), str):
            return row[field], field
    return None, "agent_ref.name"


def _server(agent: str) -> str:
    for ending in ("_simple_agent", "_agent", "_resources_server", "_train", "_val"):
        agent = agent.removesuffix(ending)
    return agent


def _has(row: Mapping[str, Any], field: str) -> bool:
    value: Any = row
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value is not None
