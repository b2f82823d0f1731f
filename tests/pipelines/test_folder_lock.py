"""The lock of a run's folder: refused while a run lives, waited for while what was killed still ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kascade.errors import UserError
from pipelines.process import folder_lock

# Takes the lock, leaves it to a child for some seconds, and is gone.
KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from pipelines.process import folder_lock
with folder_lock(Path(sys.argv[1])) as lock:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"], pass_fds=[lock])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_whose_command_was_killed_is_waited_for_until_its_processes_have_ended(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lock"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert path.read_text()
    with folder_lock(path, patience_s=0.0):
        pass


def test_a_run_that_lives_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lock"
    with (
        folder_lock(path),
        pytest.raises(UserError, match="is using this folder"),
        folder_lock(path, patience_s=0.0),
    ):
        pass
