"""What all tests share: one thread, because on shared cores threads that wait cost more than they give.

For the same reason no generated case has a deadline.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for name, value in {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(name, value)

settings.register_profile("shared_cores", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared_cores")
