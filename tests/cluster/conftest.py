"""Marks of the tests that need an engine or a cluster; they skip loudly where there is none."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "containers: needs a container engine")
    config.addinivalue_line("markers", "cluster: needs a Kubernetes cluster")
