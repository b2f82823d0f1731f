"""Ray for one stage: the cluster's where there is one, else this machine's own, small and gone afterwards."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kascade.errors import ClusterError, Fault, UserError
from kascade.recipe.workers import Workers

log = logging.getLogger(__name__)
STARTS = 5  # tries of a Ray of our own
STORE_BYTES = 256 * 2**20  # of a Ray of our own: weights and rollouts of one step pass through it
HERE = "local"
TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # how a user says who may use Ray
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anyone
    "RAY_worker_niceness": "0",  # the workers do the work: at Ray's 15 a busy machine starves them
}


@contextmanager
def ray_session(workers: Workers) -> Iterator[Any]:
    """The `ray` module, connected. RAY_ADDRESS names a cluster (a RayJob's pods have it).

    A connection that is there already is used and left. Raises UserError when Ray is not installed, or its
    cluster has not the room for all actors.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        remedy = "pip install 'kascade[distributed]', or leave `workers` out"
        raise UserError(Fault("workers", "Ray is not installed", remedy=remedy)) from error
    if ray.is_initialized():
        yield ray
        return
    if os.environ.get("RAY_ADDRESS", HERE) == HERE:
        _bring_a_token()
        with tempfile.TemporaryDirectory(prefix="kascade-ray-", ignore_cleanup_errors=True) as scratch:
            _start(ray, workers, scratch)
            try:
                yield ray
            finally:
                ray.shutdown()
        return
    ray.init(logging_level=logging.WARNING)
    try:
        _wait_for_room(ray, workers)
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, workers: Workers, scratch: str) -> None:
    """A Ray of our own. Raises ClusterError where it does not come up: Ray waits for 30 s, and busy machines
    need longer."""
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                address=HERE,  # a file that a crashed run left behind is not joined
                num_cpus=max(os.cpu_count() or 1, int(workers.num_actors * workers.cpus) + 1),
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                logging_level=logging.WARNING,
                _temp_dir=scratch if len(scratch) < 40 else None,  # sockets' paths must be short
            )
        except Exception as error:  # Ray raises the bare class
            ray.shutdown()
            log.warning("Ray did not start (try %d of %d): %s", attempt, STARTS, error)
            if attempt == STARTS:
                what = f"Ray did not start here in {STARTS} tries: {error}"
                raise ClusterError(f"{what}. To do: resume when this machine has less to do") from error
        else:
            return


def _bring_a_token() -> None:
    """Only who has the token may use a Ray of our own. Left to itself, Ray writes one into the user's home,
    where it changes how every later Ray on this machine starts. (It remembers a process's first token.)"""
    if not any(name in os.environ for name in TOKENS):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _wait_for_room(ray: Any, workers: Workers) -> None:
    """Until the cluster could start all actors. Raises UserError after `room_timeout_s`.

    Ray itself would let them wait for ever, without a word.
    """
    from ray.util import placement_group, remove_placement_group

    each = {name: amount for name, amount in (("CPU", workers.cpus), ("GPU", workers.gpus)) if amount}
    group = placement_group([each] * workers.num_actors)
    try:
        if group.wait(workers.room_timeout_s):
            return
    finally:
        remove_placement_group(group)
    there = ray.cluster_resources()
    each_text = f"{workers.cpus:g} CPUs and {workers.gpus:g} GPUs"
    what = (
        f"{workers.num_actors} actors of {each_text} found no room within {workers.room_timeout_s} s: the "
        f"cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, from which the stage's "
        "own process takes its part, too"
    )
    remedy = "ask for fewer or smaller actors, or give the stage more `nodes`, `cpu` or `accelerators`"
    raise UserError(Fault("workers", what, remedy=remedy))
