"""Every row of the published NeMo-Gym folders finds its environment and loads, where they lie beside us."""

from __future__ import annotations

from pathlib import Path

import pytest

from kascade.data.rows import read_rows
from kascade.environments import get_environment, known_environments
from kascade.environments.base import Environment
from kascade.environments.rows.loading import row_task
from kascade.environments.rows.nemo_gym import row_messages
from kascade.environments.rows.routing import environment_of
from kascade.errors import Fault
from kascade.recipe.parts import DataSource

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nemo-gym"
FOLDERS = {  # folder: the environment its rows belong to, where that is not its name
    "code_gen": {},
    "competitive_coding_challenges": {},
    "equivalence_llm_judge": {"example.jsonl": "math_with_judge"},  # no agent named, the same fields
    "genrm_compare": {},
    "ifbench": {"example.jsonl": "instruction_following"},  # the same fields, the same grader
    "instruction_following": {},
    "lc_niah": {},
    "math_with_code": {},
    "math_with_judge": {},
    "mcqa": {},
    "ns_tools": {},
    "reasoning_gym": {},
    "single_step_tool_use_with_argument_comparison": {},
    "structured_outputs": {},
    "swerl_gen": {},
    "swerl_llm_judge": {},
    "workplace_assistant": {},
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_published_row_finds_its_environment_and_loads(folder: str) -> None:
    files = sorted((PUBLISHED / folder).glob("*.jsonl"))
    if not files:
        pytest.skip(f"NOT RUN: no published NeMo-Gym rows of {folder} beside the checkout")
    for file in files:
        wanted = FOLDERS[folder].get(file.name, folder)
        found = list(read_rows(DataSource(environment=folder, path=str(file))))
        assert found
        for place, row in found:
            assert not isinstance(row, Fault), row
            assert row_messages(row), place
            if wanted in known_environments():
                assert environment_of(row) == wanted, place
                if type(get_environment(wanted)).from_row is Environment.from_row:
                    pytest.skip(f"NOT RUN: {wanted} reads no rows yet")
                task = row_task(get_environment(wanted), row)
                assert task.messages == row_messages(row)
            else:  # named as what it is, not mistaken for another
                with pytest.raises(ValueError, match=wanted.split("_")[0]):
                    environment_of(row)
