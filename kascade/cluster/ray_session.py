"""Ray for one stage: the cluster's where there is one, else this machine's own, small and gone afterwards."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kascade.errors import Fault, UserError
from kascade.recipe.workers import Workers

STORE_BYTES = 256 * 2**20  # of a Ray of our own: weights and rollouts of one step pass through it
HERE = "local"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anyone
    "RAY_worker_niceness": "0",  # the workers do the work: at Ray's 15 a busy machine starves them
}


@contextmanager
def ray_session(workers: Workers) -> Iterator[Any]:
    """The `ray` module, connected. RAY_ADDRESS names a cluster (a RayJob's pods have it).

    A connection that is there already is used and left. Raises UserError when Ray is not installed, or its
    cluster has not the room for all actors.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    try:
        import ray
    except ImportError as error:
        remedy = "pip install 'kascade[distributed]', or leave `workers` out"
        raise UserError(Fault("workers", "Ray is not installed", remedy=remedy)) from error
    if ray.is_initialized():
        yield ray
        return
    wanted = workers.trainers + workers.samplers
    if os.environ.get("RAY_ADDRESS", HERE) == HERE:
        with tempfile.TemporaryDirectory(prefix="kascade-ray-", ignore_cleanup_errors=True) as scratch:
            ray.init(
                address=HERE,  # a file that a crashed run left behind is not joined
                num_cpus=max(os.cpu_count() or 1, int(wanted * workers.cpus) + 1),
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                logging_level=logging.WARNING,
                _temp_dir=scratch if len(scratch) < 40 else None,  # sockets' paths must be short
            )
            try:
                yield ray
            finally:
                ray.shutdown()
        return
    ray.init(logging_level=logging.WARNING)
    try:
        yield ray
    finally:
        ray.shutdown()
