"""A stage with a trainer group and a rollout group: the same loop as in one process, other workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kascade.actors.rollout_group import RayEngine
from kascade.actors.session import ray_session
from kascade.actors.trainer_actor import Start
from kascade.actors.trainer_group import RayTrainer
from kascade.errors import Fault, UserError
from kascade.learning.trainer import Trainer
from kascade.learning.trainers import stage_trainer
from kascade.models.adapters import has_adapter, without_adapter
from kascade.models.load import save_model
from kascade.models.policy_model import NewAdapter, base_folder
from kascade.recipe.schema import ModelPart, StagePart
from kascade.rollout.engines import (
    make_drafting_engine,
    make_engine,
    make_routed_engine,
    make_vllm_engine,
)
from kascade.rollout.handover import HandedEngine, Handover, MakeEngine, ModelSource
from kascade.rollout.policy import Policy
from kascade.rollout.types import RolloutEngine
from kascade.run.context import digest_of

Started = Callable[[RayEngine | None, RayTrainer | None], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the weights of a stage are on their way: what it starts from, and versions of what it trains.

    Both must be where all processes of the stage can read them. adapter: what the stage trains in place of
    all weights.
    """

    start: Path
    versions: Path
    adapter: NewAdapter | None = None


@contextmanager
def stage_workers(
    policy: Policy,
    part: StagePart,
    model: ModelPart,
    place: Place | None = None,
    *,
    started: Started = lambda engine, trainer: None,
) -> Iterator[tuple[Policy, Trainer]]:
    """The policy whose samples the rollout group draws, and the trainer group; they end with the block.

    Grading stays in this process, which every task passes once, so that none is graded twice or not at all.
    place: None: a scratch folder of this machine, for a policy that this process holds. started: told of the
    groups once they run. Raises UserError for what such a stage cannot do. After the block `policy.final` is
    the folder of the last weights where this process does not hold them.
    """
    _refuse_what_needs_one_process(part)
    scratch: Any = tempfile.TemporaryDirectory(prefix="kascade-weights-") if place is None else nullcontext()
    with ray_session(part.actors()) as ray, scratch as folder:
        where = place or _scratch_place(policy, Path(folder))
        engine = trainer = None
        try:
            spread = policy
            if part.actors().trainers > 1:
                start = Start(where.start, model, part, policy.pad_id, where.adapter)
                base = policy.base and digest_of(policy.base)
                trainer = RayTrainer(ray, part.actors(), start, policy.tokenizer, base)
                spread = replace(spread, source=trainer)
            adapted = where.adapter is not None or has_adapter(policy.model)
            handover = Handover(
                trainer or ModelSource(policy.model, policy.tokenizer),
                where.versions,
                model,
                base_folder(where.start) if adapted else None,
            )
            if part.actors().samplers:
                engine = RayEngine(ray, handover, engine_maker(policy, part, model), part.actors())
                spread = replace(spread, engine=engine)
            elif trainer is not None:
                spread = replace(spread, engine=_engine_beside(trainer, handover, policy, part))
            spread.sync(policy.version)
            started(engine, trainer)
            yield spread, trainer or stage_trainer(spread, part)
            if trainer is not None and place is not None:
                policy.final = _last_weights(trainer, handover, spread.version)
        finally:
            for group in (engine, trainer):
                if group is not None:
                    group.close()


def _last_weights(trainer: RayTrainer, handover: Handover, version: int) -> Path:
    """The folder of what the stage ends with; an adapter is merged where the recipe says so."""
    adapter = trainer.start.adapter
    if adapter is None or adapter.part.at_end == "keep":
        folder = handover.folder(version)
        return folder if folder.exists() else handover.write(version)[0]  # a server took them without one
    trainer.write_whole(handover.root / "merged")
    return handover.root / "merged"


def _scratch_place(policy: Policy, folder: Path) -> Place:
    """A start made of a model in this process; of one with an adapter, its base."""
    plain = without_adapter(policy.model) if has_adapter(policy.model) else policy.model
    save_model(plain, policy.tokenizer, folder / "start")
    return Place(folder / "start", folder / "versions")


def _engine_beside(trainer: RayTrainer, handover: Handover, policy: Policy, part: StagePart) -> RolloutEngine:
    """Of a stage whose trainers are a group and that has no sampling actors: a vLLM server, or one here."""
    rollout = policy.rollout
    if rollout.engine == "vllm" and rollout.vllm.served is not None:
        return make_vllm_engine(trainer, policy.model, policy.tokenizer, policy.chat, rollout)
    return HandedEngine(handover, engine_maker(policy, part, handover.part))


def engine_maker(policy: Policy, part: StagePart, model: ModelPart) -> MakeEngine:
    """How a sampler of the stage makes the engine around its model."""
    words: dict[str, Any] = {"tokenizer": policy.tokenizer, "chat": policy.chat}
    if part.moe is not None and part.moe.routing_replay:
        return partial(make_routed_engine, **words, part=policy.rollout)
    if model.draft_tokens is not None:
        return partial(make_drafting_engine, **words, draft_tokens=model.draft_tokens)
    return partial(make_engine, **words, part=policy.rollout)


def _refuse_what_needs_one_process(part: StagePart) -> None:
    if part.actors().samplers and part.moe is not None and part.moe.routing_replay:
        what = "is recorded by the trainer's own sampler only"
        remedy = "leave it out, or set workers.samplers to 0"
        raise UserError(Fault(f"stage {part.name!r} moe.routing_replay", what, remedy=remedy))
