"""Two seams through which an objective reaches a model: inside the root's forward and inside its head's.

The layers of a sharded model gather their weights in hooks around their own forward. Code that reads
weights from outside finds shards. So an objective runs inside the root's forward and scores inside the
head's. A model in one process goes the same way: its forwards have no hooks, and a call costs microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kascade.models.mesh import device_here

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
UseHead = Callable[[Tensor, Tensor | None], T]


def inside(module: nn.Module, run: Callable[[], T], *inputs: Tensor) -> T:
    """`run()` in the place of the module's own forward, so that the module's hooks surround it.

    Within `run` the module has its own forward again. inputs: what gradients flow back to, for the hooks.
    Hooks find the tensors of the result in tuples, lists and dicts only.
    """
    own = module.__dict__.get("forward")

    def give_back() -> None:
        if own is None:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = own

    def forward(*_: Tensor) -> T:
        give_back()
        return run()

    module.__dict__["forward"] = forward
    try:
        result: T = module(*inputs)
    finally:
        give_back()
    return result


def through_head(model: PreTrainedModel, hidden: Tensor, use: UseHead[T]) -> T:
    """`use(weight, bias)` of the whole output layer, inside that layer's forward. hidden: its input, [N, H].

    A sharded model's norm and head may be one group, gathered when the first of them runs and let go after
    the last. Inside a root's forward each of them must therefore run exactly once.
    """
    head: Any = model.get_output_embeddings()
    # Of tied weights FSDP2 keeps the embedding's current: it does not know that the head's is the same.
    owner: Any = model.get_input_embeddings() if model.config.tie_word_embeddings else head
    return inside(
        head, lambda: use(whole(owner.weight), None if head.bias is None else whole(head.bias)), hidden
    )


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor on every process, with gradient; the tensor itself where it is no shard."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor


@contextmanager
def in_full_shape(model: nn.Module) -> Iterator[None]:
    """Within, spread weights of linear layers show the shape of the whole, and nothing can compute with them.

    peft sizes and places an adapter by the weight that it finds. With replicas it would take this process's
    shard for the layer, and for weights that rest elsewhere their place for the one of computing.
    """
    spread = [m for m in model.modules() if isinstance(m, nn.Linear) and isinstance(m.weight, DTensor)]
    weights: list[Any] = [module.weight for module in spread]
    for module, weight in zip(spread, weights, strict=True):
        one = torch.empty(1, dtype=weight.dtype, device=device_here())  # of any shape by expansion
        module._parameters["weight"] = nn.Parameter(one.expand(weight.shape), requires_grad=False)
    try:
        yield
    finally:
        for module, weight in zip(spread, weights, strict=True):
            module._parameters["weight"] = weight


def is_sharded(model: nn.Module) -> bool:
    """Whether some parameter of the model is spread over processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
