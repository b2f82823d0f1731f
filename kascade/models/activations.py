"""What a forward keeps for its backward: everything, or each layer's input, here or in the host's memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kascade.recipe.parallel import Activations

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def use_activations(model: PreTrainedModel, kept: Activations) -> None:
    """Have training forwards keep what `kept` says; what is computed does not change.

    Layers look at their own training flag. Only theirs is set, so that nothing else in the model behaves as
    in training. Raises ValueError for an architecture that cannot compute its layers again.
    """
    if kept == "keep":
        return
    from transformers.modeling_layers import GradientCheckpointingLayer

    elsewhere = model.device.type != "cpu"  # on a CPU they are in the host's memory as it is
    model.activation_checkpointing_enable(offload=kept == "offload" and elsewhere)
    model.disable_input_require_grads()  # only the reentrant way of recomputing needs those
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True


@contextmanager
def evaluated(model: PreTrainedModel) -> Iterator[None]:
    """Within, no part of the model behaves as in training, nor does a part that is added to it.

    After it, each part does as before: `model.train(False)` would end what `use_activations` began.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        model.eval()
        for module in training:
            module.training = True
