"""Experts and draft heads in the update: frozen, balanced, replayed, trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_trainer import make_examples, weights_of
from transformers import NemotronHConfig, PreTrainedModel
from transformers.models.nemotron_h import NemotronHForCausalLM

from kascade.learning.example import Example
from kascade.learning.model_trainer import ModelTrainer
from kascade.learning.objectives import PolicyGradient, Supervised
from kascade.learning.trainer import Trainer
from kascade.models.mtp import add_mtp_head, mtp_head
from kascade.models.routing import record_routing, routers
from kascade.recipe.schema import MTP, MoE, Optimizer

PART = Optimizer(learning_rate=5e-3)


def tiny(seed: int = 0, head: bool = False) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = NemotronHConfig(
        vocab_size=32, hidden_size=32, hybrid_override_pattern="ME*E", num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=16,
        n_groups=1, chunk_size=16, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        moe_shared_expert_intermediate_size=32, intermediate_size=64, pad_token_id=0, bos_token_id=None,
        eos_token_id=1, initializer_range=0.2, num_nextn_predict_layers=int(head),
    )  # fmt: skip
    model = NemotronHForCausalLM(config).eval()
    if head:
        add_mtp_head(model)
    return model


def trainer_of(
    model: PreTrainedModel, moe: MoE | None = None, mtp: MTP | None = None, budget: int = 64
) -> ModelTrainer:
    return ModelTrainer(
        model, PART, total_steps=10, micro_batch_tokens=budget, pad_id=0, moe=moe, mtp=mtp
    )  # fmt: skip


def with_routing(model: PreTrainedModel, examples: list[Example]) -> list[Example]:
    """As a sampler with `model`'s weights would give them: with the experts of all tokens but the last."""
    found = []
    for example in examples:
        with torch.no_grad(), record_routing(model) as recorder:
            model.base_model(input_ids=torch.tensor([list(example.token_ids)]), use_cache=False)
        found.append(replace(example, routing=recorder.take()[:-1]))
    return found


def test_without_parts_it_is_the_plain_trainer() -> None:
    plain, ours = tiny(), tiny()
    expected = Trainer(plain, PART, total_steps=10, micro_batch_tokens=64, pad_id=0).update(
        0, make_examples(0), Supervised()
    )
    assert trainer_of(ours).update(0, make_examples(0), Supervised()) == expected
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True))


def test_routers_stay_and_the_bias_moves() -> None:
    model = tiny()
    before = weights_of(model)
    metrics = trainer_of(model, MoE(expert_bias_rate=1e-3)).update(0, make_examples(0), Supervised())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.endswith("gate.weight"), name
    for router in routers(model):
        moved = router.e_score_correction_bias.abs()
        assert ((moved - 1e-3).abs() < 1e-9).logical_or(moved == 0).all() and moved.any()
    assert metrics["expert_imbalance"] >= 1


def test_a_refused_update_moves_no_bias() -> None:
    model = tiny()

    def refuse(metrics: object) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        trainer_of(model, MoE()).update(0, make_examples(0), Supervised(), check=refuse)
    assert not any(router.e_score_correction_bias.any() for router in routers(model))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("budget", [24, 10_000])
def test_the_samplers_routing_is_replayed_however_the_batch_is_cut(budget: int) -> None:
    sampler, model = tiny(), tiny()
    examples = with_routing(sampler, make_examples(0))
    with torch.no_grad():
        for router in routers(model):  # the trainer would now route otherwise
            router.e_score_correction_bias += torch.tensor([3.0, 0.0, 0.0, -3.0])
    parts = MoE(routing_replay=True, expert_bias_rate=0.0, freeze_router=False)
    same = trainer_of(tiny(), parts, budget=budget).update(0, examples, PolicyGradient(1.0))
    replayed = trainer_of(model, parts, budget=budget).update(0, examples, PolicyGradient(1.0))
    assert same["routing_agreement"] == 1.0
    assert replayed["routing_agreement"] < 0.9
    for name in ("loss", "entropy", "logprob_gap", "grad_norm"):
        assert replayed[name] == pytest.approx(same[name], rel=1e-5, abs=1e-6), name


def test_replay_without_a_record_is_refused() -> None:
    trainer = trainer_of(tiny(), MoE(routing_replay=True))
    with pytest.raises(ValueError, match="routing of every example"):
        trainer.update(0, make_examples(0), PolicyGradient(1.0))


@pytest.mark.parametrize("train_backbone", [True, False])
def test_the_draft_head_learns_what_comes_after_next(train_backbone: bool) -> None:
    model = tiny(head=True)
    trainer = trainer_of(model, mtp=MTP(loss_scale=0.3, depth=2, train_backbone=train_backbone))
    counting = [replace(e, token_ids=[2 + i for i in range(len(e.token_ids))]) for e in make_examples(0)]
    nll = [trainer.update(step, counting, Supervised())["mtp_nll"] for step in range(10)]
    assert nll[-1] < 0.6 * nll[0]


def test_the_loss_is_the_objectives_and_the_scaled_heads() -> None:
    examples = make_examples(0)
    alone = trainer_of(tiny(head=True)).update(0, examples, Supervised())
    both = {
        scale: trainer_of(tiny(head=True), mtp=MTP(loss_scale=scale)).update(0, examples, Supervised())
        for scale in (0.1, 0.3)
    }
    extra = {scale: metrics["loss"] - alone["loss"] for scale, metrics in both.items()}
    assert extra[0.3] == pytest.approx(3 * extra[0.1], rel=1e-4)
    # every scored token has two before it here, so the head's mean is over the same tokens
    assert extra[0.3] == pytest.approx(0.3 * both[0.3]["mtp_nll"], rel=1e-4)


def test_without_its_part_a_head_is_kept_bit_for_bit() -> None:
    model = tiny(head=True)
    before = {name: tensor.clone() for name, tensor in mtp_head(model).state_dict().items()}
    trainer_of(model).update(0, make_examples(0), Supervised())
    assert all(torch.equal(before[name], t) for name, t in mtp_head(model).state_dict().items())


def test_parts_that_the_model_has_nothing_for_are_refused() -> None:
    with pytest.raises(ValueError, match="no multi-token-prediction head"):
        trainer_of(tiny(), mtp=MTP())
    model = tiny()
    del model.model.layers[1], model.model.layers[2]
    with pytest.raises(ValueError, match="no experts"):
        trainer_of(model, MoE())
