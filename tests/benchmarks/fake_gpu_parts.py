"""Stand-ins for the parts of the GPU check."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path


def good() -> dict[str, float]:
    return {"answer": 42.0}


def wrong() -> dict[str, float]:
    raise ValueError("3 is not 4")


def dies() -> dict[str, float]:
    os._exit(3)


def leaves() -> dict[str, float]:
    child = subprocess.Popen(["sleep", "60"])
    Path(os.environ["LEFT_BEHIND"]).write_text(str(child.pid))
    return {}


def hangs() -> dict[str, float]:
    time.sleep(60)
    return {}
