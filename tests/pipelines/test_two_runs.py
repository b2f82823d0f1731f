"""A second pipeline in a folder that another works in is refused; one that was killed there is continued."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kascade.errors import UserError
from kascade.run import pulse
from kascade.run.pulse import refuse_others
from kascade.storage.run_folder import RunFolder, StepState

STEP = """
import sys, time
from kascade.run import pulse
from kascade.run.process import step_process
pulse.BEAT_S = 0.2
with step_process(sys.argv[1], "sft.train"):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pod, with a fast pulse."""
    monkeypatch.setenv(pulse.IN_POD, "10.0.0.1")
    monkeypatch.setattr(pulse, "BEAT_S", 0.2)
    monkeypatch.setattr(pulse, "PATIENCE_S", 3.0)


@pytest.fixture
def working(tmp_path: Path, quick: None) -> Iterator[subprocess.Popen[str]]:
    """The step of another pipeline, under way in the folder."""
    command = [sys.executable, "-c", STEP, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_in_use_is_refused_and_a_killed_run_is_continued(
    working: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match=r"another run works in this folder: sft\.train") as caught:
        refuse_others(folder, "preflight")
    assert "enter another folder" in str(caught.value)
    refuse_others(folder, "sft.train")  # a step is no other to itself: it is tried again
    working.send_signal(signal.SIGKILL)
    working.wait()
    assert folder.states()[0]["state"] == "running", "that is what it said last"
    began = time.monotonic()
    refuse_others(folder, "preflight")
    assert time.monotonic() - began < 5


def test_a_finished_folder_is_not_waited_for_and_a_machine_has_its_lock(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    began = time.monotonic()
    refuse_others(folder, "preflight")
    folder.write_state(StepState(step="sft.train", state="succeeded", started=1.0, seconds=2.0))
    refuse_others(folder, "preflight")
    folder.write_state(StepState(step="sft.train", state="running", started=1.0, seconds=None))
    monkeypatch.delenv(pulse.IN_POD)
    refuse_others(folder, "preflight")
    assert time.monotonic() - began < 1
