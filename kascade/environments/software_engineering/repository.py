"""What a repair is applied to and judged by: the fields of a `swerl_gen` row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, PositiveInt

from kascade.environments.code.unit_tests import UnitTests
from kascade.environments.options import Options
from kascade.environments.software_engineering.hidden_tests import program_beside, program_of, suite_of
from kascade.environments.software_engineering.lines import EditError
from kascade.recipe.parts import Share
from kascade.task import Task


class RepositoryOptions(Options):
    """Limits of hidden tests, for rows whose tests do not bring their own."""

    __test__ = False  # no tests of ours

    test_seconds: PositiveInt = Field(10, description="CPU seconds of one test [NeMo-Gym code_gen]")
    test_memory_mb: PositiveInt = Field(512, description="of the program under test")

    @property
    def limits(self) -> dict[str, int]:
        """As `unit_tests` of rows name them."""
        return {"time_limit_secs": self.test_seconds, "memory_limit_mb": self.test_memory_mb}


class RepairOptions(RepositoryOptions):
    """How repairs without an agent are rewarded."""

    reward: Literal["tests", "lexical", "judge"] = Field(
        "tests",
        description="tests: all pass; lexical: likeness to the gold patch (difflib's ratio of both diffs) "
        "[SWE-RL, arXiv 2502.18449 §2]; judge: the share of its votes that find the issue resolved "
        "[Nemotron-Cascade 2 §4.8; Nemotron-Cascade 1 §4.6]",
    )
    judge_votes: PositiveInt = Field(1, description="times the judge is asked of one patch")
    unparsable_reward: float = Field(
        0.0, ge=-1, le=1, description="of patches that do not apply; -1 in SWE-RL and Nemotron-Cascade 1"
    )
    zero_below: Share = Field(
        0.0, description="lexical and judge's rewards below this become 0; 0.5 in Nemotron-Cascade 1 [T12]"
    )


@dataclass(frozen=True, slots=True)
class Repository:
    """What a repair is applied to and judged by; the first `num_failing` tests are FAIL_TO_PASS.

    one_file: whether tests call a function of the only file, or functions of several by their modules.
    """

    files: Mapping[str, str]
    tests: UnitTests
    num_failing: int
    one_file: bool = True

    def program(self, files: Mapping[str, str]) -> str:
        """What the tests run, for these versions of the files. Raises EditError where the tested is gone."""
        if not self.one_file:
            return program_of(files)
        (tested,) = self.files
        if tested not in files:
            raise EditError(f"{tested}: is not there any more")
        others = {path: text for path, text in files.items() if path != tested}
        source = files[tested].lstrip("\ufeff")  # a byte order mark is none of the program
        return program_beside(source, others) if others else source

    @classmethod
    def open(cls, task: Task) -> Repository:
        """Raises ValueError when the task cannot be graded on this machine."""
        instance, metadata = task.fields["instance"], task.fields["metadata"]
        files, limits = shown_files(metadata), RepairOptions.of_task(task.fields).limits
        if "tests" in instance:
            failing, passing = test_names(instance, "FAIL_TO_PASS"), test_names(instance, "PASS_TO_PASS")
            return cls(files, suite_of(instance["tests"], [*failing, *passing], limits), len(failing), False)
        if "unit_tests" not in instance:
            image = metadata.get("image", "its container image")
            raise ValueError(
                f"instance {instance.get('instance_id')} runs its tests in {image}, not available here"
            )
        if len(files) != 1:
            what = f"unit tests judge a single file, but there are {len(files)}"
            raise ValueError(f"metadata.relevant_file_contents: {what}")
        failing, passing = test_names(instance, "FAIL_TO_PASS"), test_names(instance, "PASS_TO_PASS")
        cases = _cases(instance["unit_tests"], [*failing, *passing])
        suite = {
            "fn_name": instance["unit_tests"]["fn_name"],
            **limits,
            **{name: instance["unit_tests"][name] for name in limits if name in instance["unit_tests"]},
            "inputs": [case["input"] for case in cases],
            "outputs": [case["output"] for case in cases],
        }
        return cls(files, UnitTests.parse(suite), len(failing))


def _cases(unit_tests: Any, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """The named tests, each with input and output. Raises ValueError."""
    if not isinstance(unit_tests, Mapping) or not isinstance(unit_tests.get("tests"), Mapping):
        raise ValueError("instance.unit_tests: an object with fn_name and tests is needed")
    if "fn_name" not in unit_tests:
        raise ValueError("instance.unit_tests.fn_name: is missing; the tests call this function")
    tests = unit_tests["tests"]
    for name in names:
        if not isinstance(tests.get(name), Mapping) or not {"input", "output"} <= tests[name].keys():
            raise ValueError(f"instance.unit_tests.tests.{name}: {{input, output}} is needed")
    return [tests[name] for name in names]


def shown_files(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The files shown to the model. Raises ValueError when the field does not hold them."""
    try:
        files = json.loads(metadata["relevant_file_contents"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"metadata.relevant_file_contents: JSON text of an object is needed ({error})"
        ) from error
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise ValueError("metadata.relevant_file_contents: must map each path to its text")
    return files


def test_names(instance: Mapping[str, Any], field: str) -> list[str]:
    """Names of tests. Raises ValueError when the field is not the JSON text of a list."""
    try:
        names = json.loads(instance[field])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"instance.{field}: JSON text of a list of tests is needed ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"instance.{field}: must be a list of names of tests")
    return names
