"""What all tests share: one thread, because on shared cores threads that wait cost more than they give.

For the same reason no generated case has a deadline.
"""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

for name, value in {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(name, value)

# Shells let background jobs ignore Ctrl-C, and their children inherit that. Tests that send it need it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("shared_cores", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared_cores")


@pytest.fixture(autouse=True, scope="session")
def short_call_stacks() -> None:
    """Every setter of a kfp task reads the whole call stack to name itself in an error it seldom raises.

    For frames without a file Python then looks through all modules. In a worker that has loaded thousands of
    them, compiling a pipeline takes twenty seconds instead of one. Only the caller's name is used.
    """
    from kfp.dsl import pipeline_task

    def stack() -> list[tuple[None, None, None, str]]:
        return [(None, None, None, sys._getframe(depth).f_code.co_name) for depth in (1, 2)]

    pipeline_task.inspect = SimpleNamespace(stack=stack)
