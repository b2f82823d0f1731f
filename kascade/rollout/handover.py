"""Weights on their way to samplers that do not share the trainer's memory: a folder for each version.

The folder is where all processes of a stage can read it. A sampler that is started later finds the newest
version there, so nothing is sent twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kascade.errors import TrainingStopped
from kascade.models.adapters import copy_adapter, has_adapter, read_adapter, write_adapter
from kascade.models.checksum import weights_checksum
from kascade.models.load import load_model, save_model
from kascade.models.transformer_engine import is_swapped
from kascade.recipe.schema import ModelPart
from kascade.rollout.canary import Rows, logprobs_of
from kascade.rollout.types import Prompt, RolloutEngine, Sample, SamplingParams
from kascade.rollout.weight_sync import WeightSender, computes_in

MakeEngine = Callable[[PreTrainedModel], RolloutEngine]
KEPT = 2  # versions: one may still be read while the next is written


class WeightSource(Protocol):
    """Who holds the current weights."""

    def checksum(self) -> int:
        """`weights_checksum` of the weights as a sampler has them."""
        ...

    def write(self, folder: Path) -> None:
        """Write them, with all that a model folder holds, into a new folder; of an adapter, that alone."""
        ...

    def write_whole(self, folder: Path) -> None:
        """As `write`, an adapter merged: a folder that needs no other one."""
        ...

    def computes_in(self) -> str:
        """The name of the type in which they are computed with."""
        ...

    def send(self, sender: WeightSender) -> None:
        """Let `sender` hand them over from the process that holds them, or the first of several."""
        ...

    def logprobs_of(self, rows: Rows) -> list[Tensor]:
        """Per row of token ids the log-probabilities of every token after the first."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A whole model in this process."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def checksum(self) -> int:
        return weights_checksum(self.model)

    def write(self, folder: Path) -> None:
        if has_adapter(self.model):
            write_adapter(self.model, self.tokenizer, folder, base="")
        else:
            self.write_whole(folder)

    def write_whole(self, folder: Path) -> None:
        save_model(self.model, self.tokenizer, folder)

    def computes_in(self) -> str:
        return computes_in(self.model)

    def send(self, sender: WeightSender) -> None:
        sender.send(self.model)

    def logprobs_of(self, rows: Rows) -> list[Tensor]:
        return logprobs_of(self.model, rows)


@dataclass(frozen=True, slots=True)
class Handover:
    """Versions of a source's weights under `root`: of an adapter, that alone.

    part: in what precision samplers load them. base: folder of the model that an adapter belongs to.
    """

    source: WeightSource
    root: Path
    part: ModelPart
    base: Path | None = None

    def write(self, version: int) -> tuple[Path, int]:
        """Write the current weights as `version`; returns their folder and checksum."""
        folder = self.folder(version)
        # Left by a run that was killed while writing.
        shutil.rmtree(folder, ignore_errors=True)
        self.source.write(folder)
        self._remove_others(folder)
        return folder, self.source.checksum()

    def _remove_others(self, newest: Path) -> None:
        """All versions but the newest and those just before it. Later ones are of a run that was killed."""
        written = sorted(self.root.glob("version-*"))
        earlier = [one for one in written if one.name < newest.name]
        for one in [*earlier[: len(earlier) - (KEPT - 1)], *written[len(earlier) + 1 :]]:
            shutil.rmtree(one, ignore_errors=True)

    def folder(self, version: int) -> Path:
        return self.root / f"version-{version:08d}"


class Sampler:
    """An engine around a model of its own, whose weights come from folders."""

    def __init__(self, folder: Path, base: Path | None, part: ModelPart, make: MakeEngine) -> None:
        """base: of the adapter in `folder`; None: there is a whole model."""
        self._part = part
        self._model = load_model(base or folder, precision=part.precision, low_precision=part.low_precision)
        if base is not None:
            read_adapter(self._model, folder)
        self._engine = make(self._model)
        self._version: int | None = None

    def load_weights(self, folder: Path, version: int, expected: int) -> int:
        """The checksum of the weights that the engine took over.

        Raises TrainingStopped when what arrived has another one than `expected`.
        """
        self._version = None  # until the new ones have proved right
        self._copy(folder)
        self._engine.load_weights(version)
        # Computed from what the engine holds, not from the file: a partial copy must show.
        found = self._engine.weights_checksum
        if found != expected:
            raise TrainingStopped(
                f"weights version {version}: a sampler holds {found:016x}, the trainer {expected:016x}"
            )
        self._version = version
        return found

    @torch.no_grad()
    def _copy(self, folder: Path) -> None:
        """Into the tensors that the engine works with, from new ones: on the CPU where layers are plain."""
        if has_adapter(self._model):
            copy_adapter(self._model, folder)
            return
        where = self._model.device if is_swapped(self._model) else "cpu"
        fresh = load_model(
            folder, device=where, precision=self._part.precision, low_precision=self._part.low_precision
        )
        for kind in ("named_parameters", "named_buffers"):
            new = dict(getattr(fresh, kind)())
            for name, tensor in getattr(self._model, kind)():
                tensor.copy_(new[name])

    def sample(self, version: int, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """Raises TrainingStopped when this sampler holds other weights."""
        if version != self._version:
            raise TrainingStopped(f"a sampler holds weights {self._version}, {version} are asked for")
        return self._engine.sample(prompts, params)


class HandedEngine:
    """A `RolloutEngine` in this process for weights that other processes hold."""

    def __init__(self, handover: Handover, make: MakeEngine) -> None:
        self._handover, self._make = handover, make
        self._sampler: Sampler | None = None
        self._version = 0
        self.weights_checksum = 0

    def load_weights(self, version: int) -> None:
        folder, expected = self._handover.write(version)
        self._sampler = self._sampler or Sampler(folder, self._handover.base, self._handover.part, self._make)
        self.weights_checksum = self._sampler.load_weights(folder, version, expected)
        self._version = version

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        if self._sampler is None:
            raise TrainingStopped("the sampler was given no weights yet")
        return self._sampler.sample(self._version, prompts, params)


class NoSampler:
    """In the place of an engine where a model's weights are spread over processes: it refuses to sample."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.weights_checksum = 0

    def load_weights(self, version: int) -> None:
        self.weights_checksum = weights_checksum(self._model)

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """Raises TrainingStopped."""
        raise TrainingStopped(
            "a model that is spread over processes does not sample. To do: train this stage with `workers`"
        )
