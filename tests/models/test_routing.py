"""Routing: recorded, replayed exactly, counted, balanced."""

from __future__ import annotations

import pytest
import torch
from tiny_architectures import VOCABULARY, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from kascade.models.routing import (
    ExpertLoads,
    Routing,
    has_expert_bias,
    record_routing,
    replay_routing,
    routers,
    update_expert_bias,
)

SPARSE = ["nemotron-h", "nemotron-h-no-latent", "qwen3-moe"]


def some_ids(rows: int = 3, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(2, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def hidden_of(model: PreTrainedModel, ids: Tensor) -> Tensor:
    hidden: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def recorded(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with record_routing(model) as recorder:
        hidden_of(model, ids)
    return recorder.take()


def routing_of(record: Tensor, rows: int) -> Routing:
    return Routing.collate(list(record.unflatten(0, (rows, -1))), len(record) // rows)


def perturbed(name: str) -> PreTrainedModel:
    """The tiny model a few updates later: its own routing has moved."""
    model = tiny_model(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.mark.parametrize("name", SPARSE)
def test_replay_with_the_same_weights_gives_the_same_bits(name: str) -> None:
    model, ids = tiny_model(name), some_ids()
    record = recorded(model, ids)
    assert record.shape == (ids.numel(), len(routers(model)), 2)
    with replay_routing(model, routing_of(record, len(ids))) as replay:
        replayed = hidden_of(model, ids)
    assert torch.equal(replayed, hidden_of(model, ids))
    assert replay.agreement == 1.0


@pytest.mark.parametrize("name", SPARSE)
def test_other_weights_still_use_the_recorded_experts(name: str) -> None:
    ids = some_ids()
    record, trainer = recorded(tiny_model(name), ids), perturbed(name)
    own = recorded(trainer, ids)
    assert not torch.equal(own.sort(-1).values, record.sort(-1).values)
    with replay_routing(trainer, routing_of(record, len(ids))) as replay, record_routing(trainer) as used:
        replayed = hidden_of(trainer, ids)
    assert torch.equal(used.take(), record)
    assert not torch.allclose(replayed, hidden_of(trainer, ids))
    assert 0 < replay.agreement < 1


@pytest.mark.parametrize("name", SPARSE)
def test_weights_and_gradients_are_those_of_the_trainers_scores(name: str) -> None:
    """The recorded experts are weighed by the trainer's own scores, so its routers still learn."""
    ids, trainer = some_ids(), perturbed(name)
    with replay_routing(trainer, routing_of(recorded(tiny_model(name), ids), len(ids))):
        hidden_of(trainer, ids).square().mean().backward()
    for router in routers(trainer):
        assert router.weight.grad.abs().sum() > 0


def test_tokens_without_a_record_route_by_themselves() -> None:
    ids, model, trainer = some_ids(rows=2), tiny_model("nemotron-h"), perturbed("nemotron-h")
    record, own = recorded(model, ids).unflatten(0, (2, -1)), recorded(trainer, ids).unflatten(0, (2, -1))
    kept = [record[0][:5], record[1][:9]]
    with replay_routing(trainer, Routing.collate(kept, ids.shape[1])), record_routing(trainer) as used:
        hidden_of(trainer, ids)
    taken = used.take().unflatten(0, (2, -1))
    assert torch.equal(taken[0, :5], kept[0]) and torch.equal(taken[1, :9], kept[1])
    # nothing before this one sparse layer was replayed, so the rest is the trainer's own choice
    assert torch.equal(taken[0, 5:], own[0, 5:]) and torch.equal(taken[1, 9:], own[1, 9:])


def test_what_does_not_fit_is_refused() -> None:
    model, ids = tiny_model("nemotron-h"), some_ids()
    routing = routing_of(recorded(model, ids), len(ids))
    with pytest.raises(ValueError, match="tokens"), replay_routing(model, routing):
        hidden_of(model, ids[:, :-1])
    hidden_of(model, ids[:, :-1])  # no hook is left behind
    with pytest.raises(ValueError, match="no router that is known"), record_routing(tiny_model("qwen3")):
        pass
    other = tiny_model("nemotron-h-no-latent")
    with pytest.raises(ValueError, match="layers"), replay_routing(other, routing):
        pass
    with pytest.raises(ValueError, match="longer"):
        Routing.collate([torch.zeros(4, 1, 2)], 3)


def test_loads_count_tokens_that_are_no_padding() -> None:
    model, ids = tiny_model("nemotron-h-no-latent"), some_ids()
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[0, 5:] = False
    loads = ExpertLoads()
    with loads.counting(model, counted):
        hidden_of(model, ids)
    record = recorded(model, ids)[counted.flatten()]
    for layer, counts in enumerate(loads.counts):
        assert torch.equal(counts, torch.bincount(record[:, layer].flatten().long(), minlength=4).float())


def test_the_bias_balances_loads_without_a_gradient() -> None:
    model, ids = tiny_model("nemotron-h"), some_ids(rows=16, length=16)
    routers(model)[0].e_score_correction_bias[0] += 0.5  # one expert gets nearly everything
    weights = {name: p.clone() for name, p in model.named_parameters()}
    imbalances = []
    for _ in range(60):
        loads = ExpertLoads()
        with torch.no_grad(), loads.counting(model, torch.ones_like(ids, dtype=torch.bool)):
            hidden_of(model, ids)
        imbalances.append(loads.imbalance())
        update_expert_bias(model, loads, rate=0.01)
    assert imbalances[0] > 1.5
    assert imbalances[-1] < 1 + 0.3 * (imbalances[0] - 1)
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())


def test_one_bias_update_follows_the_sign_of_the_load() -> None:
    model = tiny_model("nemotron-h")
    loads = ExpertLoads([torch.tensor([10.0, 0.0, 5.0, 5.0])])
    update_expert_bias(model, loads, rate=1e-3)
    torch.testing.assert_close(
        routers(model)[0].e_score_correction_bias, torch.tensor([-1e-3, 1e-3, 0.0, 0.0])
    )
    assert not has_expert_bias(tiny_model("qwen3-moe"))
    with pytest.raises(ValueError, match="no bias"):
        update_expert_bias(tiny_model("qwen3-moe"), loads, rate=1e-3)
