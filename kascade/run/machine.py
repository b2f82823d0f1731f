"""The machine that a run began on, as a report names it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from kascade.recipe.schema import Recipe

GIB = 2**30
LIGHT = ("consider", "preflight", "begin", "skip", "verdict", "settle", "finish", "report")  # without a model
PATIENCE_S = 10.0  # for nvidia-smi, which may hang on a broken driver


def machine() -> dict[str, Any]:
    """cpu: its model; cores: those that this process may use; memory_gib; gpus: model of each; system."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def accelerators_held(recipe: Recipe, step: str) -> int:
    """Accelerators that a step has to itself while it runs: those of its pods; here, those that it can see.

    step: as in `costs/STEP.json`. A step that holds no model has none.
    """
    stage, _, rest = step.partition(".")
    if rest.rpartition(".")[2] in LIGHT or stage in LIGHT:
        return 0
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        torch = sys.modules.get("torch")
        return int(torch.cuda.device_count()) if torch is not None else 0
    cluster = recipe.cluster
    trains = next((one for one in recipe.stages if one.name == stage and "evaluate" not in rest), None)
    if trains is None:
        return cluster.benchmark_pods(stage).accelerators
    placement = cluster.placement(stage)
    return placement.accelerators * (placement.nodes if cluster.shape_of(trains) != "inline" else 1)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
