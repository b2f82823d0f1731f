"""A new component to fill in: `make component NAME=my_step`, or `python -m components.scaffold my_step`.

Writes the component's folder and a test of its own, and says what is left to do. Nothing is overwritten.
"""

from __future__ import annotations

import keyword
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from components.document import ROOT, readme

TESTS = ROOT.parent / "tests" / "pipelines"
NAME = re.compile(r"^[a-z][a-z0-9_]{1,39}$")
COMPONENT = '''"""Says in one line what the step is for."""

from components.image import step_component


@step_component
def {name}(run: str, stage: str, checkpoint: str) -> str:
    """Return the reference of the checkpoint that the next step starts from."""
    from kascade.run.process import step_process

    with step_process(run, f"{{stage}}.{name}"):
        from kascade.storage.checkpoint import verify  # call a function of kascade.steps.steps instead

        verify(checkpoint)
        return checkpoint
'''
INIT = '''"""Says in one line what the step is for."""

from components.{name}.component import {name}

__all__ = ["{name}"]
'''
METADATA = """name: {name}
stability: alpha
description: Says in one line what the step is for.
dependencies:
  kubeflow:
    - name: Pipelines
      version: ">=2.17.0"
tags:
  - post-training
lastVerified: {today}T00:00:00Z
"""
TEST = '''"""The component {name}: what it does with a run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.{name} import {name}
from kascade.errors import CheckpointError
from kascade.storage.run_folder import RunFolder


def test_{name}_refuses_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        missing = f"{{tmp_path / 'none'}}@sha256:{{'0' * 64}}"
        {name}.python_func(run=str(tmp_path), stage="sft", checkpoint=missing)
    assert RunFolder(tmp_path).step_state("sft.{name}").exists()
'''
LEFT = """Left to do:
  1. write the step as a function in kascade/steps/steps.py, and call it in {component}
  2. say what it is for: the first lines of {component}, and {metadata}
  3. put it into the graph: a field of pipelines/steps.py:Steps, a task in pipelines/cascade.py or stage.py,
     and a stand-in in tests/pipelines/toy_steps.py
  4. make what is derived anew: python -m components.document, python tests/pipelines/golden.py
  5. run its tests: pytest {test} tests/pipelines/test_components.py tests/pipelines/test_compile.py"""


def write_component(name: str, root: Path = ROOT, tests: Path = TESTS) -> list[Path]:
    """Write a component's files and return their paths. Raises ValueError for a name that will not do."""
    if not NAME.match(name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no name for a component: lower-case letters, digits and _ are allowed")
    folder = root / name
    texts = {
        folder / "component.py": COMPONENT,
        folder / "__init__.py": INIT,
        folder / "metadata.yaml": METADATA,
        tests / f"test_component_{name}.py": TEST,
    }
    if there := [path for path in (folder, *texts) if path.exists()]:
        raise ValueError(f"{there[0]} is there already; nothing was written")
    folder.mkdir(parents=True)
    for path, text in texts.items():
        path.write_text(text.format(name=name, today=f"{datetime.now(UTC):%Y-%m-%d}"), encoding="utf-8")
    return list(texts)


def main(arguments: list[str]) -> int:
    """Write the component that the command line names; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: make component NAME=my_step\n")
        return 2
    (name,) = arguments
    try:
        component, _, metadata, test = write_component(name)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    page = component.parent / "README.md"
    page.write_text(readme(name), encoding="utf-8")
    written = [path.relative_to(ROOT.parent) for path in (component, metadata, page, test)]
    left = LEFT.format(component=written[0], metadata=written[1], test=written[3])
    sys.stdout.write(f"written: {', '.join(map(str, written))}\n{left}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
