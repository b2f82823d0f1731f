"""Which experts a token goes to: recorded in the sampler, replayed in the trainer, counted and balanced.

A mixture-of-experts layer that routes a token elsewhere in the trainer than in the sampler computes another
policy than the one that was sampled. Replaying the sampler's choice removes that mismatch: the trainer takes
the recorded experts and weighs them by its own scores, so that gradients still reach the router (routing
replay, R3: arXiv 2510.11370).

N: tokens of a forward, row-major; L: sparse layers; K: experts a token; E: experts a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kascade.models.mesh import add_up

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Weigh = Callable[[Any, Tensor, Tensor], Tensor]


def _sigmoid_weights(router: Any, logits: Tensor, chosen: Tensor) -> Tensor:
    """Of `nemotron_h`: sigmoid scores, normalised over the chosen experts, scaled."""
    weights = logits.sigmoid().gather(1, chosen)
    if router.norm_topk_prob:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    scaled: Tensor = weights * router.routed_scaling_factor
    return scaled


def _softmax_weights(router: Any, logits: Tensor, chosen: Tensor) -> Tensor:
    """Of Qwen3-MoE: softmax over all experts, normalised over the chosen ones where the model does so."""
    weights = torch.softmax(logits, dim=-1, dtype=torch.float).gather(1, chosen)
    if router.norm_topk_prob:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights.to(logits.dtype)


# Routers return (logits [N, E], weights [N, K], experts [N, K]); each has its own way from logits to weights.
ROUTERS: dict[str, Weigh] = {
    "NemotronHTopkRouter": _sigmoid_weights,
    "Qwen3MoeTopKRouter": _softmax_weights,
}


def routers(model: PreTrainedModel) -> list[Any]:
    """The routers of the model's sparse layers, first layer first; a draft head's are not among them."""
    return [module for module in model.base_model.modules() if _kind(module) is not None]


def _kind(module: Any) -> str | None:
    """The router class of a module, also under the class that FSDP2 puts on top; None for other modules."""
    return next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in ROUTERS), None)


@dataclass(frozen=True, slots=True)
class Routing:
    """Experts of N tokens: [N, L, K]. recorded [N]: tokens without a record route by themselves."""

    experts: Tensor
    recorded: Tensor

    @classmethod
    def collate(cls, records: Sequence[Tensor], length: int) -> Routing:
        """Of right-padded rows of `length` tokens; record i covers the first t_i tokens: [t_i, L, K].

        Raises ValueError when a record is longer than its row.
        """
        if any(len(record) > length for record in records):
            raise ValueError(f"a routing record is longer than its row of {length} tokens")
        experts = records[0].new_zeros((len(records), length, *records[0].shape[1:]), dtype=torch.long)
        recorded = torch.zeros(len(records), length, dtype=torch.bool, device=experts.device)
        for row, record in enumerate(records):
            experts[row, : len(record)] = record
            recorded[row, : len(record)] = True
        return cls(experts.flatten(0, 1), recorded.flatten())

    def to(self, device: torch.device | str) -> Routing:
        return Routing(self.experts.to(device), self.recorded.to(device))


class RoutingRecorder:
    """Collects what the routers choose, forward by forward."""

    def __init__(self, num_layers: int) -> None:
        self._calls: list[list[Tensor]] = [[] for _ in range(num_layers)]

    def add(self, layer: int, experts: Tensor) -> None:
        # int16: 32,768 experts are enough, and a record of a long answer is as large as its text.
        self._calls[layer].append(experts.detach().to(torch.int16))

    def take(self) -> Tensor:
        """Experts of all tokens since the last `take`: [N, L, K] int16."""
        taken = torch.stack([torch.cat(calls) for calls in self._calls], dim=1)
        self._calls = [[] for _ in self._calls]
        return taken


@contextmanager
def record_routing(model: PreTrainedModel) -> Iterator[RoutingRecorder]:
    """Record the experts of every forward within. Raises ValueError for a model without known routers."""
    found = _known_routers(model)
    recorder = RoutingRecorder(len(found))

    def hook_of(layer: int) -> Callable[..., None]:
        return lambda module, args, output: recorder.add(layer, output[2])

    with _hooked(found, hook_of):
        yield recorder


@dataclass(slots=True)
class Replay:
    """How far the model's own choices agree with those replayed."""

    agreeing: float = 0.0
    replayed: float = 0.0

    @classmethod
    def total(cls, replays: Sequence[Replay]) -> Replay:
        return cls(sum(r.agreeing for r in replays), sum(r.replayed for r in replays))

    def add(self, own: Tensor, replayed: Tensor) -> None:
        self.agreeing += float((own[:, :, None] == replayed[:, None, :]).any(-1).sum())
        self.replayed += own.numel()

    @property
    def agreement(self) -> float:
        """Share of replayed experts that the model would have chosen itself; 1 when none was replayed."""
        return self.agreeing / self.replayed if self.replayed else 1.0


@contextmanager
def replay_routing(model: PreTrainedModel, routing: Routing) -> Iterator[Replay]:
    """Send every recorded token to its recorded experts, in every forward within.

    Weights come from the model's own scores of those experts, computed as its router does, so a model
    whose weights have not changed gives the same bits. Forwards must be of the N tokens of `routing`;
    with activation checkpointing the backward belongs within, too, because it runs them again. Raises
    ValueError for a forward of another size, and for a model without known routers.
    """
    found = _known_routers(model)
    if routing.experts.shape[1] != len(found):
        raise ValueError(f"routing of {routing.experts.shape[1]} layers for a model with {len(found)}")
    replay = Replay()

    def hook_of(layer: int) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
        # Taken apart once, not in every forward.
        recorded, experts = routing.recorded, routing.experts[:, layer].long()

        def hook(router: Any, args: Any, output: tuple[Tensor, Tensor, Tensor]) -> Any:
            logits, _, own = output
            if len(own) != len(experts):
                raise ValueError(f"routing of {len(experts)} tokens for a forward of {len(own)}")
            replay.add(own[recorded], experts[recorded])
            # Tokens that the sampler never routed (the answer's last one) keep the model's own choice.
            chosen = torch.where(recorded[:, None], experts, own)
            return logits, ROUTERS[_kind(router) or ""](router, logits, chosen), chosen

        return hook

    with _hooked(found, hook_of):
        yield replay


@dataclass(slots=True)
class ExpertLoads:
    """Tokens each expert got, by layer: list of [E]."""

    counts: list[Tensor] = field(default_factory=list)

    @contextmanager
    def counting(self, model: PreTrainedModel, counted: Tensor) -> Iterator[None]:
        """Add the loads of the one forward within; counted [B, T] bool says which tokens are no padding."""
        found = _known_routers(model)
        if not self.counts:
            self.counts = [torch.zeros(r.weight.shape[0], device=r.weight.device) for r in found]
        rows = counted.flatten()

        def hook_of(layer: int) -> Callable[..., None]:
            def hook(router: Any, args: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
                self.counts[layer] += torch.bincount(
                    output[2][rows].flatten(), minlength=len(self.counts[layer])
                )

            return hook

        with _hooked(found, hook_of):
            yield

    def add_processes(self) -> None:
        """Add up what the processes of a group counted, each on its share of the batch."""
        for counts in self.counts:
            add_up(counts)

    def imbalance(self) -> float:
        """Largest load of an expert over the mean load, averaged over layers; 1 is perfect balance."""
        return float(torch.stack([counts.max() / counts.mean() for counts in self.counts]).mean())


@torch.no_grad()
def update_expert_bias(model: PreTrainedModel, loads: ExpertLoads, rate: float) -> None:
    """Balance without an auxiliary loss: raise the bias of experts below the mean load, lower the others'.

    b_e += rate * sign(mean load - load_e); the bias takes part in the choice of experts, not in their weights
    (arXiv 2408.15664 §3; kept up in RL while the router is frozen: arXiv 2512.20848 §3.2.5). Raises
    ValueError for a model whose routers have no bias.
    """
    if not has_expert_bias(model):
        raise ValueError("the routers of this model have no bias to balance loads with")
    for router, counts in zip(routers(model), loads.counts, strict=True):
        # The sign alone: how far a load is off does not change how fast its bias moves.
        router.e_score_correction_bias += rate * torch.sign(counts.mean() - counts)


def has_expert_bias(model: PreTrainedModel) -> bool:
    """Whether loads can be balanced by a bias (`nemotron_h`; Qwen3-MoE has none)."""
    found = routers(model)
    return bool(found) and all(hasattr(router, "e_score_correction_bias") for router in found)


def _known_routers(model: PreTrainedModel) -> list[Any]:
    if found := routers(model):
        return found
    raise ValueError(f"{model.config.model_type} has no router that is known ({', '.join(ROUTERS)})")


@contextmanager
def _hooked(modules: Sequence[Any], hook_of: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer, module in enumerate(modules):
            stack.callback(module.register_forward_hook(hook_of(layer)).remove)
        yield
