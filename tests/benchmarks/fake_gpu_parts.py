"""Stand-ins for the parts of the GPU check."""

from __future__ import annotations

import os
import time


def good() -> dict[str, float]:
    return {"answer": 42.0}


def wrong() -> dict[str, float]:
    raise ValueError("3 is not 4")


def dies() -> dict[str, float]:
    os._exit(3)


def hangs() -> dict[str, float]:
    time.sleep(60)
    return {}
