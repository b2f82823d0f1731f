"""Where a stage learns: in this process, or in a job of several nodes that this process launches.

The body of the pipeline's `launch` component. Outside a cluster there is nothing to launch on, and the stage
learns here: so the same pipeline runs on one machine.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, cast

from kascade.cluster.failures import JobFailed
from kascade.cluster.jobs import RAYJOB, TRAINJOB, JobKind
from kascade.cluster.launch import Launcher, Patience
from kascade.cluster.manifests import ray_job, train_job
from kascade.cluster.pod import pod_namespace, pod_settings
from kascade.cluster.versions import trainjob_api
from kascade.cluster.worker import TRAIN, Work, read_result, train_here
from kascade.errors import Fault, KascadeError, UserError
from kascade.recipe.cluster import RunsAs
from kascade.recipe.identity import find_stage, short_hash
from kascade.recipe.methods import method_of
from kascade.recipe.recovering import recovery_shape, recovery_workers
from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import Recipe
from kascade.version import __version__

log = logging.getLogger(__name__)

CONTROLLER_LABEL = {"app.kubernetes.io/managed-by": "kascade"}


def launch_step(work: Work, task_config: Mapping[str, Any]) -> str:
    """Train a stage, or recover it, where the run's recipe says. Returns the checkpoint's reference.

    task_config: fields of `dsl.TaskConfig`. Raises JobFailed, or the error that the job itself wrote down.
    """
    recipe = read_run_recipe(work.layout.root)
    shape = _shape(recipe, work)
    if shape == "inline" or "KUBERNETES_SERVICE_HOST" not in os.environ:
        if shape != "inline":
            log.info("no cluster here: %s learns in this process, not as a %s", work.stage, shape)
        return train_here(work)
    from kubernetes import client, config

    config.load_incluster_config()
    api = client.ApiClient()
    kind, manifest = _job(api, recipe, shape, work, task_config)
    placement = recipe.cluster.placement(work.stage)
    patience = Patience(placement.silence_s, placement.deadline_s)
    work.layout.forget_error(work.step)  # of an earlier try
    try:
        Launcher(api, pod_namespace()).run(kind, manifest, _heartbeat(work), patience)
    except JobFailed as error:
        raise _own_error(work, error) from None
    return read_result(work, manifest["metadata"]["name"])


def _shape(recipe: Recipe, work: Work) -> RunsAs:
    stage = find_stage(recipe, work.stage)
    return recipe.cluster.shape_of(stage) if work.attempt == TRAIN else recovery_shape(recipe, stage)


def train_inline(work: Work) -> str:
    """Train a stage in the step's own pod: SFT as one process an accelerator, all else in this process.

    (RL spreads over the pod by itself, through the stage's `workers`.)
    """
    processes = _processes(work)
    return train_here(work) if processes == 1 else run_processes(work, processes)


def _processes(work: Work) -> int:
    import torch

    devices = torch.cuda.device_count()
    if devices < 2:
        return 1
    recipe = read_run_recipe(work.layout.root)
    if method_of(find_stage(recipe, work.stage)).cluster_job != "trainjob":
        return 1
    return max(1, min(recipe.cluster.placement(work.stage).accelerators, devices))


def run_processes(work: Work, processes: int) -> str:
    """Do the work with torchrun on this machine. Raises the error that the first process wrote down."""
    name = job_name(work)
    work.layout.forget_error(work.step)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *torchrun, "-m", "kascade.cluster.worker", name, *astuple(work)]
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        failed = JobFailed(f"torchrun ended with code {done.returncode}; log: {work.layout.log(work.step)}")
        raise _own_error(work, failed)
    return read_result(work, name)


def _job(
    api: Any, recipe: Recipe, shape: RunsAs, work: Work, task_config: Mapping[str, Any]
) -> tuple[JobKind, dict[str, Any]]:
    cluster, placement = recipe.cluster, recipe.cluster.placement(work.stage)
    name = job_name(work)
    image = os.environ.get("KASCADE_IMAGE") or f"kascade:{__version__}"
    settings = pod_settings(cluster, placement, task_config, image=image)
    words = [word.replace("$", "$$") for word in astuple(work)]  # Kubernetes reads $$ as $
    command = ["-m", "kascade.cluster.worker", name, *words]
    run = label_value(Path(work.run).name)
    common: dict[str, Any] = {
        "cluster": cluster,
        "placement": placement,
        "labels": {**CONTROLLER_LABEL, "kascade.dev/stage": work.stage, "kascade.dev/run": run},
        "owners": owner_references(os.environ),
    }
    if shape == "trainjob":
        return TRAINJOB, train_job(name, command, settings, api=trainjob_api(api), **common)
    stage = find_stage(recipe, work.stage)
    workers = stage.actors() if work.attempt == TRAIN else recovery_workers(recipe, stage)
    return RAYJOB, ray_job(name, command, settings, workers=workers, **common)


def job_name(work: Work) -> str:
    """The same work has the same name, so that a second try finds the first's job. At most 47 characters."""
    stage = work.stage[:16].replace("_", "-").strip("-")
    return f"kc-{stage}-{work.attempt}-{short_hash(astuple(work))}"


def label_value(text: str) -> str:
    """`text` as far as a label's value may hold it."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("-._")


def owner_references(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """The step's own pod, if it knows itself: when the pod is deleted, its job goes, too."""
    if not {"POD_NAME", "POD_UID"} <= environment.keys():
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": environment["POD_NAME"],
            "uid": environment["POD_UID"],
            "blockOwnerDeletion": False,
        }
    ]


def _heartbeat(work: Work) -> Callable[[], object]:
    """When the job last wrote its progress or its log, which are in storage that both see."""
    paths = (work.layout.progress(f"{work.stage}.{work.attempt}"), work.layout.log(work.step))

    def beat() -> object:
        return tuple(path.stat().st_mtime_ns if path.exists() else None for path in paths)

    return beat


def _own_error(work: Work, failed: JobFailed) -> KascadeError:
    """What the job's first process wrote down about its end: faults for people, instead of a pod's log.

    Any other error is reported beside how the job failed: the first process may only have lost the one
    at fault.
    """
    error = work.layout.error(work.step)
    if error is None:
        return failed
    if error["faults"]:
        return UserError([Fault(**cast("dict[str, str]", fault)) for fault in error["faults"]])
    own = f"its first process ended with {error['type']}: {error['message']}"
    return JobFailed(f"{failed}\n{own}\nlog: {work.layout.log(work.step)}")
