"""Training a stage of a run: from its parent and recipe part to a published checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from kascade.errors import CheckpointError, Fault, UserError
from kascade.models.adapters import write_adapter
from kascade.models.mesh import check_processes, join_group, rank, wait_for_all, world
from kascade.models.policy_model import NewAdapter
from kascade.models.seams import is_sharded
from kascade.recipe.adapter import Adapter
from kascade.recipe.identity import adapter_of, find_stage
from kascade.recipe.methods import method_of
from kascade.recipe.schema import StagePart
from kascade.rollout.policy import Policy
from kascade.run.context import Run, digest_of, publish_checkpoint
from kascade.seeds import derive_seed
from kascade.stages import attempts
from kascade.stages.attempts import Attempt
from kascade.stages.tasks import training_pool
from kascade.stages.teachers import load_teachers
from kascade.stages.training import Training

log = logging.getLogger(__name__)


def train_stage(run: Run, stage: str, parent: str) -> str:
    """The checkpoint of `stage` trained from `parent`; found when finished, continued when interrupted."""
    return make_checkpoint(run, attempts.training(run, stage, parent), find_stage(run.recipe, stage))


def make_checkpoint(run: Run, attempt: Attempt, part: StagePart) -> str:
    """Load the attempt's start, train it as `part` says, publish it under the key of all it depends on."""
    checkpoint_id = attempt.checkpoint_id(run.recipe)
    join_group()
    if found := run.existing(checkpoint_id):
        log.info("%s is finished already", checkpoint_id)
        return found
    adapter = adapter_of(run.recipe, find_stage(run.recipe, attempt.stage))
    policy = load_policy(run, part, attempt.start, adapter)
    name, seed = f"{attempt.stage}/{attempt.name}", run.recipe.seed
    training = Training(
        part,
        policy,
        training_pool(part.data, seed, name),
        name,
        seed,
        folder=run.layout.training(checkpoint_id),
        progress=run.progress,
        clock=run.clock,
        on_saved=run.keep_cost,
        save_on_signal=run.recipe.save_on_signal > 0,
    )
    with with_workers(run, training) as spread:
        spread.teachers = load_teachers(
            run, attempt.teachers, spread.policy, spread.trainer, rests=part.frozen_weights == "host"
        )
        method_of(part).load()(spread)
    if rank() != 0:  # the first process publishes for all; of a spread model each gives its shards
        if is_sharded(policy.model) and not (adapter is not None and adapter.at_end == "keep"):
            policy.save(run.layout.training(checkpoint_id).weights)
        wait_for_all()
        return run.existing(checkpoint_id) or refuse_unpublished(checkpoint_id)
    published = publish_checkpoint(
        run,
        stage=attempt.stage,
        attempt=attempt.name,
        key=attempt.key(run.recipe),
        parent=attempt.start,
        teachers={str(domain): teacher for domain, teacher in attempt.teachers.items()},
        base=policy.base if adapter is not None and adapter.at_end == "keep" else None,
        write=lambda target: save_policy(policy, adapter, target),
    )
    wait_for_all()
    return published


def load_policy(run: Run, part: StagePart, start: str, adapter: Adapter | None) -> Policy:
    """The policy of a stage, from the checkpoint `start`, with the adapter that it trains."""
    folder = run.open_verified(start)
    trained = None
    if adapter is not None:
        trained = NewAdapter(adapter, start, derive_seed(run.recipe.seed, part.name, "adapter"))
    if world() > 1:
        if part.answers_by() is not None:
            what, remedy = "samples, which processes of one torchrun do not", "train it with `workers`"
            raise UserError(Fault(f"stages.{part.name}", what, remedy=remedy))
        check_processes(part.parallel, f"stages.{part.name}.parallel")
    with run.clock.section("loading"):
        return Policy.load(
            folder,
            run.recipe.model,
            sampled_elsewhere=part.actors().samplers > 0 or part.answers_by() is None,
            held_elsewhere=part.actors().trainers > 1,
            parallel=part.parallel,
            activations=part.activations,
            adapter=trained,
        )


def save_policy(policy: Policy, adapter: Adapter | None, folder: Path) -> None:
    """Write what the stage ends with: the whole model, or the adapter that is kept apart from its base."""
    if policy.final is None and policy.base is not None and adapter is not None and adapter.at_end == "keep":
        write_adapter(policy.model, policy.tokenizer, folder, base=digest_of(policy.base))
    else:
        policy.save(folder)


def refuse_unpublished(checkpoint_id: str) -> str:
    raise CheckpointError(f"{checkpoint_id}: the first process has not published it")


@contextmanager
def with_workers(run: Run, training: Training[StagePart]) -> Iterator[Training[StagePart]]:
    """The training with the workers that the stage asks for; without any, as it is."""
    if not training.stage.actors().distributed:
        yield training
        return
    from kascade.actors.workers import Place, stage_workers

    policy, folder = training.policy, training.folder
    place = None
    if policy.folder is not None and folder is not None:
        place = Place(policy.folder, folder.weights, policy.adapter)
    with stage_workers(policy, training.stage, run.recipe.model, place) as (policy, trainer):
        yield replace(training, policy=policy, trainer=trainer)
