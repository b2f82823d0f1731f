"""One process of a trainer group: its shards of the model in training and of the frozen ones beside it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kascade.learning.example import Example, Objective
from kascade.learning.group import POLICY, GroupHead, ScoreTokens
from kascade.learning.objectives import FullDistillation
from kascade.learning.scoring import score_share
from kascade.learning.trainers import make_trainer
from kascade.models.adapter_set import FROZEN, hang_adapter, seen_with, train_again
from kascade.models.adapters import write_adapter
from kascade.models.checksum import weights_checksum
from kascade.models.export import export_model
from kascade.models.load import load_model
from kascade.models.mesh import check_processes, compute_dtype, device_here, join_others, rank
from kascade.models.policy_model import NewAdapter, base_folder, load_policy_model
from kascade.models.seams import whole
from kascade.recipe.schema import ModelPart, StagePart
from kascade.rollout.weight_sync import WeightSender, computes_in

START_TIMEOUT_S = 300.0  # until all processes of a group have met


@dataclass(frozen=True, slots=True)
class Start:
    """What a group begins with: the folder of the weights, and the recipe's parts."""

    folder: Path
    model: ModelPart
    stage: StagePart
    pad_id: int
    adapter: NewAdapter | None = None


class TrainerActor:
    """One process of the group."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._models: dict[str, PreTrainedModel] = {}
        self._frozen: dict[Path, PreTrainedModel] = {}  # by the folder of the weights
        self._adapters: dict[str, str | None] = {}  # of frozen models: which one counts
        self._heads: dict[str, nn.Module] = {}

    def pid(self) -> int:
        return os.getpid()

    def address(self) -> str:
        """Where the first process can be met."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{socket.gethostbyname(socket.gethostname())}:{probe.getsockname()[1]}"

    def join(self, address: str, rank: int, world: int) -> None:
        """Meet the other processes."""
        join_others(address, rank, world, START_TIMEOUT_S)

    def begin(self, start: Start) -> None:
        """Load this process's shards. Raises UserError when the processes do not fit the recipe's part."""
        self._start = start
        check_processes(start.stage.parallel, f"stages.{start.stage.name}.parallel")
        model, _ = load_policy_model(
            start.folder,
            start.model,
            parallel=start.stage.parallel,
            activations=start.stage.activations,
            adapter=start.adapter,
        )
        self._models[POLICY] = model
        self._trainer = make_trainer(model, start.stage, start.pad_id)

    def update(
        self, step: int, examples: Sequence[Example], objective: Objective, check: Callable[..., None]
    ) -> dict[str, float]:
        return self._trainer.update(step, examples, self._with_heads(objective), check)

    def save(self, folder: Path, step: int, rollouts: Mapping[str, Tensor] | None, keep: int) -> None:
        self._trainer.save(folder, step, rollouts, keep=keep)

    def finish_saving(self) -> None:
        self._trainer.finish_saving()

    def load(self, folder: Path) -> tuple[int, dict[str, Tensor]]:
        """The step of the newest state, and its rollouts."""
        rollouts: dict[str, Tensor] = {}
        return self._trainer.load(folder, rollouts), rollouts

    def add_model(self, name: str, folder: Path, base: Path | None) -> None:
        """Load this process's shards of a frozen model; an adapter hangs over its base, which is there once.

        That may be the base of the adapter in training. base: of the adapter in `folder`; None: there is a
        whole model.
        """
        self._models[name] = self._base(base or folder)
        self._adapters[name] = None if base is None else f"{FROZEN}{len(self._adapters)}"
        if (adapter := self._adapters[name]) is not None:
            hang_adapter(self._models[name], folder, adapter)
            train_again(self._models[name])

    def _base(self, source: Path) -> PreTrainedModel:
        """The frozen weights in a folder, loaded once."""
        start = self._start
        if start.adapter is not None and source.resolve() == base_folder(start.folder).resolve():
            return self._models[POLICY]
        if source not in self._frozen:
            model = load_model(
                source,
                precision=start.model.precision,
                parallel=start.stage.parallel,
                rests=start.stage.frozen_weights == "host",
            )
            self._frozen[source] = model.requires_grad_(False)
        return self._frozen[source]

    def score(
        self, name: str, examples: Sequence[Example], score: ScoreTokens, how: Mapping[str, int]
    ) -> list[Tensor]:
        """This process's share of the scores."""
        if name not in self._adapters:
            return score_share(self._models[name], examples, score, **how)
        with seen_with(self._models[name], self._adapters[name]):
            return score_share(self._models[name], examples, score, **how)

    def checksum_of(self, name: str) -> int:
        model = self._models[name]
        return weights_checksum(model, compute_dtype(model), without=f".{FROZEN}" if name == POLICY else "")

    def computes_in(self) -> str:
        return computes_in(self._models[POLICY])

    def send(self, sender: WeightSender) -> None:
        """Hand the current weights over; the first process does."""
        sender.send(self._models[POLICY])

    def write(self, folder: Path, base: str | None) -> None:
        """The current weights; of an adapter to the checkpoint with the digest `base`, that alone."""
        model = self._models[POLICY]
        if base is None:
            export_model(model, folder)
        elif rank() == 0:
            write_adapter(model, None, folder, base=base)

    def _with_heads(self, objective: Objective) -> Objective:
        """The objective with output layers in the place of their names; each whole, as they are small."""
        if not isinstance(objective, FullDistillation):
            return objective
        heads = [self._head(one.name) if isinstance(one, GroupHead) else one for one in objective.heads]
        return replace(objective, heads=heads)

    def _head(self, name: str) -> nn.Module:
        if name not in self._heads:
            own: Any = self._models[name].get_output_embeddings()
            weight = whole(own.weight.detach().to(device_here()))  # shards may rest elsewhere
            head = nn.Linear(weight.shape[1], weight.shape[0], own.bias is not None, device="meta")
            head.weight = nn.Parameter(weight, requires_grad=False)
            if own.bias is not None:
                head.bias = nn.Parameter(whole(own.bias.detach()), requires_grad=False)
            self._heads[name] = head
        return self._heads[name]
