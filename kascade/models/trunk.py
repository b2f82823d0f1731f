"""Hidden states for training: a model without its head, on tokens laid out in blocks.

For architectures that are known here the forward is written out on the model's own weights, so that a prompt
shared by a group of rollouts is computed once for all of them (its keys and values, convolution windows and
recurrent states are carried over, with gradient; shared-prefix forward, arXiv 2506.05433) and padding
touches only what mixes tokens. Values and gradients are those of the model's own forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from kascade.models.attention import varlen_kernel
from kascade.models.batch import TokenBatch
from kascade.models.seams import is_sharded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTED = "peft.tuners.lora."  # the trunks compute through these layers


def knows(model: PreTrainedModel) -> bool:
    """Whether there is a trunk that computes exactly what `model` does."""
    return _trunk_of(model) is not None


def predicting_states(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Final-norm hidden states that predict the scored tokens, in their order: [N, H].

    Raises ValueError for a batch in blocks when the model's architecture is not known here.
    """
    trunk = _trunk_of(model)
    if trunk is not None:
        states: Tensor = trunk.forward(model, batch)
        return states
    rectangle = batch.rectangle
    if rectangle is None:
        raise ValueError(f"{model.config.model_type} models take one rectangle of tokens, not blocks")
    # No attention mask: causal layers never see what is to the right, so padding reaches no scored token.
    hidden: Tensor = model.base_model(input_ids=rectangle, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1).index_select(0, batch.predictors)


def _trunk_of(model: PreTrainedModel) -> Any:
    from kascade.models.trunks import nemotron_h as trunk_nemotron_h
    from kascade.models.trunks import qwen3 as trunk_qwen3

    trunks = {"nemotron_h": trunk_nemotron_h, "qwen3": trunk_qwen3}
    trunk: Any = trunks.get(model.config.model_type)
    return trunk if trunk is not None and _is_plain(model) and trunk.supports(model) else None


def _is_plain(model: PreTrainedModel) -> bool:
    """Whether the model's layers are the architecture's own, whole and unwatched.

    A trunk reads weights only: hooks (routing replay, counts), swapped layers (low precision) and gradient
    checkpointing would be passed by, and of a sharded weight it would find one process's part. Adapters are
    seen (`kascade.models.projections`).
    """
    return not is_sharded(model) and all(
        type(module).__module__.startswith(("torch.nn.", "transformers.", ADAPTED))
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not getattr(module, "gradient_checkpointing", False)
        for module in model.base_model.modules()
    )


def packs(model: PreTrainedModel) -> bool:
    """Whether batches for the model should be packed: rows of any lengths cost no more than even ones."""
    return knows(model) and varlen_kernel(model.device, model.dtype) is not None
