"""A task's files: what it wrote, how it stands, what went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import pytest

from kascade.run.process import describe
from kascade.storage.files import read_json
from kascade.storage.run_folder import RunFolder

BODY = """
import os, subprocess, sys
from kascade.run.process import step_process
with step_process(sys.argv[1], "sft.train"):
    print("from python"); print("from stderr", file=sys.stderr)
    subprocess.run(["echo", "from a child"])
    os.write(1, b"from native code\\n")
    {last}
"""


def run_task(folder: Path, last: str) -> tuple[subprocess.CompletedProcess[str], RunFolder, dict[str, Any]]:
    command = [sys.executable, "-c", BODY.format(last=last), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    layout = RunFolder(folder)
    return done, layout, read_json(layout.step_state("sft.train"))


def test_everything_is_logged_and_still_seen(tmp_path: Path) -> None:
    done, layout, state = run_task(tmp_path, "pass")
    log = layout.log("sft.train").read_text()
    for words in ("from python", "from stderr", "from a child", "from native code"):
        assert words in log and words in done.stdout
    assert done.returncode == 0 and state["state"] == "succeeded" and state["seconds"] >= 0
    assert not layout.step_error("sft.train").exists()


def test_the_last_words_of_a_crash_are_kept(tmp_path: Path) -> None:
    done, layout, state = run_task(tmp_path, "os.abort()")
    assert done.returncode != 0 and state["state"] == "running"
    assert "from native code" in layout.log("sft.train").read_text()


SERVED = """
    from kascade.environments.remote.server import server_of
    from kascade.environments.remote.settings import Remote
    says = "import sys, http.server as h; sys.stderr.write('from the server'); "
    says += "h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    print("open at", server_of(Remote(command=(sys.executable, "-uc", says))).base)
"""


OUTLIVES = "import kascade.run.process as p; p.COPIED_WITHIN_S = 1; subprocess.Popen(['sleep', '600'])"


@pytest.mark.parametrize("last", [SERVED.strip(), OUTLIVES])
def test_a_step_ends_though_what_it_started_goes_on(tmp_path: Path, last: str) -> None:
    """It writes into the step's log, and holds that open."""
    command = [sys.executable, "-c", BODY.replace("{last}", last), str(tmp_path)]
    started = Popen(command, stdout=DEVNULL, start_new_session=True)
    try:
        assert started.wait(180) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    layout = RunFolder(tmp_path)
    assert read_json(layout.step_state("sft.train"))["state"] == "succeeded"
    log = layout.log("sft.train").read_text()
    assert "from native code" in log and ("from the server" in log) == ("open at" in log)


def test_an_error_is_written_and_raised_again(tmp_path: Path) -> None:
    done, layout, state = run_task(tmp_path, "{}['key']")
    assert done.returncode == 1 and "KeyError" in done.stderr and state["state"] == "failed"
    error = {"type": "KeyError", "message": "'key'", "exit_code": 1, "faults": []}
    assert read_json(layout.step_error("sft.train")) == error
    assert "Traceback" in layout.log("sft.train").read_text()


@pytest.mark.parametrize("step", ["preflight", "sft.recover-1.evaluate"])
def test_step_names_are_file_names(step: str) -> None:
    layout = RunFolder(Path("run"))
    assert layout.step_error(step).name == f"{step}.error.json"
    assert layout.log(step).name == f"{step}.log"


def test_exit_codes_of_our_own_errors() -> None:
    from kascade.errors import Fault, GuardStop, UserError

    assert describe(GuardStop("stop"))["exit_code"] == 3
    faulty = describe(UserError([Fault("a", "b"), Fault("c", "d")]))
    assert faulty["exit_code"] == 2 and [fault["where"] for fault in faulty["faults"]] == ["a", "c"]
