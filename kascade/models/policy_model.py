"""The model that a stage trains: whole or an adapter, in one process or spread over several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from kascade.models.activations import use_activations
from kascade.models.adapters import add_adapter, read_adapter, refuse_other_shape
from kascade.models.load import is_adapter, load_model
from kascade.recipe.adapter import Adapter
from kascade.recipe.parallel import Activations, Parallel
from kascade.recipe.schema import ModelPart
from kascade.storage.checkpoint import base_of


@dataclass(frozen=True, slots=True)
class NewAdapter:
    """An adapter to train. start: reference of the checkpoint that is loaded. seed: of its first weights."""

    part: Adapter
    start: str
    seed: int


def load_policy_model(
    folder: Path,
    part: ModelPart,
    *,
    parallel: Parallel | None = None,
    activations: Activations = "keep",
    adapter: NewAdapter | None = None,
) -> tuple[PreTrainedModel, str | None]:
    """The model to train, and the reference of its base where only an adapter is trained.

    An adapter in `folder` is trained on; a whole model gets a new one. Without `adapter` all weights are
    trained, and an adapter in `folder` is merged. parallel: how the processes that have met share the
    weights; an adapter is whole on each of them.
    """

    def load(source: Path) -> PreTrainedModel:
        model = load_model(
            source,
            precision=part.precision,
            low_precision=part.low_precision,
            parallel=parallel or Parallel(),
            trained=adapter is None,
        )
        use_activations(model, activations)
        return model

    if adapter is None:
        return load(folder), None
    if not is_adapter(folder):
        model = load(folder)
        add_adapter(model, adapter.part, adapter.seed)
        return model, adapter.start
    # An adapter is trained on over its own base, never over a merged copy: it stays one file.
    refuse_other_shape(folder, adapter.part)
    reference, base = base_of(folder)
    model = load(base)
    read_adapter(model, folder, adapter.part)
    return model, reference


def base_folder(folder: Path) -> Path:
    """Where the weights of the model in `folder` are: there, or, for an adapter, with its base."""
    return base_of(folder)[1] if is_adapter(folder) else folder


def base_reference(folder: Path, adapter: NewAdapter | None) -> str | None:
    """The reference of the model whose adapter is trained from `folder`; None: all weights are trained."""
    if adapter is None:
        return None
    return base_of(folder)[0] if is_adapter(folder) else adapter.start
