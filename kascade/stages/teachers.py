"""Models that only score: teachers and references. Adapters of one base hold that base once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from kascade.guard.lineage import Ancestor
from kascade.learning.group import BesidePolicy, Reference, Scored, TrainerGroup
from kascade.learning.trainer import Trainer
from kascade.models.adapter_set import FROZEN, hang_adapter, train_again
from kascade.models.adapters import read_adapter, sharing_copy, without_adapter
from kascade.models.load import is_adapter, load_model
from kascade.models.mesh import parallel_of
from kascade.models.policy_model import base_folder
from kascade.models.resting import rest_in_host
from kascade.models.seams import is_sharded
from kascade.rollout.policy import Policy
from kascade.run.context import Run, digest_of
from kascade.stages.training import Teachers
from kascade.task import Domain

REFERENCE = "reference"


def frozen_start(policy: Policy, trainer: Trainer | None = None, *, rests: bool = False) -> Reference:
    """The policy as it is now, frozen: a reference. With an adapter, only that is copied.

    Where a trainer group holds the weights it holds the reference, too. rests: what is not the policy's own
    lies in the host's memory.
    """
    if isinstance(trainer, TrainerGroup) and policy.folder is not None:
        base = base_folder(policy.folder) if is_adapter(policy.folder) else None
        return trainer.add_model(REFERENCE, policy.folder, base)
    if is_sharded(policy.model) and policy.folder is not None:
        if policy.adapter is not None:
            return _beside(policy, policy.folder)
        return _spread_start(policy, policy.folder, rests=rests)
    start = sharing_copy(policy.model).requires_grad_(False)
    return _resting(start, policy) if rests else start


def _resting(model: PreTrainedModel, policy: Policy) -> PreTrainedModel:
    if policy.model.device.type == "cpu":
        return model  # it lies there anyway
    return rest_in_host(model, policy.model.device, held=list(policy.model.parameters()))


def _beside(policy: Policy, folder: Path) -> BesidePolicy:
    """What a spread policy with an adapter began as: its adapter of then, or none, over the same base."""
    if not is_adapter(folder):
        return BesidePolicy(policy.model, None)
    hang_adapter(policy.model, folder, f"{FROZEN}-{REFERENCE}")
    train_again(policy.model)
    return BesidePolicy(policy.model, f"{FROZEN}-{REFERENCE}")


def _spread_start(policy: Policy, folder: Path, *, rests: bool) -> PreTrainedModel:
    """What a spread policy began as, from its folder: shards are not copied."""
    precision = None if policy.part is None else policy.part.precision
    model = load_model(folder, precision=precision, parallel=parallel_of(policy.model), rests=rests)
    return model.requires_grad_(False)


def load_teachers(
    run: Run,
    teachers: Mapping[Domain, Ancestor],
    policy: Policy | None = None,
    trainer: Trainer | None = None,
    *,
    rests: bool = False,
) -> Teachers:
    """Each distinct teacher's model once, frozen, by domain.

    A teacher that is an adapter, or the base of one, shares its base's weights with all others of that base,
    and with the policy where that trains an adapter of it. Where a trainer group holds the weights it holds
    the teachers, too. rests: what is not the policy's own lies in the host's memory.
    """
    if isinstance(trainer, TrainerGroup):
        with run.clock.section("loading"):
            held = {teacher.digest: _in_group(run, teacher, trainer) for teacher in teachers.values()}
        return {domain: held[teacher.digest] for domain, teacher in teachers.items()}
    with run.clock.section("loading"):
        models = _Models(run, policy)
        found = {teacher.digest: models.of(teacher) for teacher in teachers.values()}
        if rests and policy is not None:
            found = {digest: _resting(model, policy) for digest, model in found.items()}
        return {domain: found[teacher.digest] for domain, teacher in teachers.items()}


def _in_group(run: Run, teacher: Ancestor, group: TrainerGroup) -> Scored:
    base = teacher.manifest.base
    folder = run.open_verified(teacher.reference)
    return group.add_model(teacher.digest, folder, None if base is None else run.open_verified(base))


class _Models:
    """Teachers by digest, bases loaded when they are first needed."""

    def __init__(self, run: Run, policy: Policy | None) -> None:
        self._run = run
        self._bases: dict[str, PreTrainedModel] = {}
        self._found: dict[str, PreTrainedModel] = {}
        if policy is not None and policy.base is not None:
            self._bases[digest_of(policy.base)] = without_adapter(policy.model)

    def of(self, teacher: Ancestor) -> PreTrainedModel:
        if teacher.digest not in self._found:
            base = teacher.manifest.base
            model = self._base(teacher.reference) if base is None else self._adapted(teacher, base)
            self._found[teacher.digest] = model
        return self._found[teacher.digest]

    def _base(self, reference: str) -> PreTrainedModel:
        digest = digest_of(reference)
        if digest not in self._bases:
            part = self._run.recipe.model
            folder = self._run.open_verified(reference)
            model = load_model(folder, precision=part.precision, low_precision=part.low_precision)
            self._bases[digest] = model.requires_grad_(False)
        return self._bases[digest]

    def _adapted(self, teacher: Ancestor, base: str) -> PreTrainedModel:
        """The base with the teacher's adapter: modules of its own around the base's weights."""
        folder = self._run.open_verified(teacher.reference)
        model = sharing_copy(self._base(base))
        read_adapter(model, folder)
        return model
