"""The training methods: what each kind of stage is, in one place.

A method is one entry of `METHODS`. Everything else asks this entry, or the stage's own part of the recipe
(`StagePart`), and never compares kinds. The function that trains is named here and loaded when a stage
trains, so that a light verb does not pay for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field

from kascade.recipe.dpo import DPOStage
from kascade.recipe.stages import MOPDStage, RLHFStage, RLStage, SFTStage, StagePart
from kascade.task import Task, preference_pair

ClusterJob = Literal["trainjob", "rayjob"]


def _anything_teaches(task: Task) -> str | None:
    return None


def _needs_reference(task: Task) -> str | None:
    return None if task.reference is not None else "reference answers to imitate"


def _needs_pair(task: Task) -> str | None:
    return None if preference_pair(task) else "preference pairs (chosen and rejected)"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to train.

    kind: its name in recipes. title: as a person reads it. part: what a recipe may say about it.
    train: `module:function` that takes a `kascade.stages.training.Training`.
    needs_teachers: whether accepted checkpoints teach it. graded: whether it learns from the rewards of its
    tasks' environments. drops: whether its updates drop inputs of adapters. cluster_job: what trains it on
    several nodes. lacks: what a task would need to teach it something; None: the task has it.
    """

    kind: str
    title: str
    part: type[StagePart]
    train: str
    needs_teachers: bool = False
    graded: bool = False
    drops: bool = False
    cluster_job: ClusterJob = "rayjob"
    lacks: Callable[[Task], str | None] = _anything_teaches

    def trains(self, stage: StagePart) -> bool:
        """Whether the stage is trained this way, under this name or another one of the same method."""
        return isinstance(stage, self.part)

    def load(self) -> Callable[[Any], None]:
        """The function that trains a stage in place."""
        module, _, name = self.train.partition(":")
        train: Callable[[Any], None] = getattr(import_module(module), name)
        return train


def _by_kind(methods: Iterable[Method]) -> Mapping[str, Method]:
    return {method.kind: method for method in methods}


RL_TITLES = {  # one method under five names, which say what is trained
    "if_rl": "IF-RL",
    "multi_domain_rl": "Multi-domain RL",
    "long_context_rl": "Long-context RL",
    "code_rl": "Code RL",
    "swe_rl": "SWE RL",
}
METHODS = _by_kind(
    (
        Method(
            "sft",
            "SFT",
            SFTStage,
            "kascade.stages.sft:train_sft",
            drops=True,
            cluster_job="trainjob",
            lacks=_needs_reference,
        ),
        *(
            Method(kind, title, RLStage, "kascade.stages.rl:train_rl", graded=True)
            for kind, title in RL_TITLES.items()
        ),
        Method("mopd", "MOPD", MOPDStage, "kascade.stages.mopd:train_mopd", needs_teachers=True),
        Method("rlhf", "RLHF", RLHFStage, "kascade.stages.rlhf:train_rlhf"),
        Method(
            "dpo",
            "DPO",
            DPOStage,
            "kascade.stages.dpo:train_dpo",
            cluster_job="trainjob",
            lacks=_needs_pair,
        ),
    )
)

if TYPE_CHECKING:
    Stage = StagePart
else:
    _PARTS = tuple(dict.fromkeys(method.part for method in METHODS.values()))
    Stage = Annotated[Union[_PARTS], Field(discriminator="kind")]  # noqa: UP007 (parts are known at run time)


def method_of(stage: StagePart) -> Method:
    """How a stage of a recipe is trained."""
    return METHODS[stage.kind]


def stage_title(stage: StagePart) -> str:
    """The stage's own title; that of its method where the recipe gives none."""
    return stage.title or method_of(stage).title
