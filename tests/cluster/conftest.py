"""The one-node cluster, for the tests that need it. They skip loudly where no tool makes one."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from cluster_objects import LOOSE, SECRETS, definition
from engine import ROOT, ask

from kascade.cluster.jobs import RAYJOB, TRAINJOB


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """Of a new cluster, whatever ran before."""
    ask("down")
    return ask("up")["KUBECONFIG"]


@pytest.fixture(scope="session")
def kubectl(kubeconfig: str) -> Any:
    def run(*arguments: str, given: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "--kubeconfig", kubeconfig, *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=check)

    return run


@pytest.fixture(scope="session")
def applied(kubectl: Any) -> str:
    """The single-node overlay, its secrets made by hand as the docs say, and the two operators' CRDs."""
    for kind in (TRAINJOB, RAYJOB):
        kubectl("apply", "-f", "-", given=json.dumps(definition(kind, LOOSE)))
    kubectl("apply", "-k", str(ROOT / "manifests" / "overlays" / "single-node"))
    for name, keys in SECRETS.items():
        kubectl("-n", "kascade", "delete", "secret", name, "--ignore-not-found")
        values = [f"--from-literal={key}=only-for-this-test" for key in keys]
        kubectl("-n", "kascade", "create", "secret", "generic", name, *values)
    kubectl("wait", "--for=condition=Established", "crd", f"{TRAINJOB.plural}.{TRAINJOB.group}")
    return "kascade"
