"""The multi-token-prediction head: named as NVIDIA's checkpoints name it, causal, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_architectures import VOCABULARY, nemotron_h_config, tiny_tokenizer
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from kascade.models.load import load_model, save_model
from kascade.models.mtp import MTPHead, add_mtp_head, mtp_head, mtp_scores
from kascade.recipe.schema import PrecisionName


def model_with_head(seed: int = 0, **changes: object) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = nemotron_h_config(num_nextn_predict_layers=1, **changes)
    model = AutoModelForCausalLM.from_config(config).eval()
    add_mtp_head(model)
    return model


def head_inputs(model: PreTrainedModel, length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the next tokens and hidden states: [1, T, H] each."""
    ids = torch.randint(2, VOCABULARY, (1, length + 1), generator=torch.Generator().manual_seed(5))
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return model.get_input_embeddings()(ids[:, 1:]), hidden[:, :-1]


def test_saved_under_the_names_of_nvidias_checkpoints(tmp_path: Path) -> None:
    save_model(model_with_head(), tiny_tokenizer(), tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = {key for key in file.keys() if key.startswith("mtp.")}  # noqa: SIM118
    experts = {f"mtp.layers.1.mixer.experts.{e}.{p}_proj.weight" for e in range(4) for p in ("up", "down")}
    assert names == experts | {
        "mtp.layers.0.enorm.weight", "mtp.layers.0.hnorm.weight", "mtp.layers.0.eh_proj.weight",
        "mtp.layers.0.norm.weight", "mtp.layers.0.mixer.q_proj.weight", "mtp.layers.0.mixer.k_proj.weight",
        "mtp.layers.0.mixer.v_proj.weight", "mtp.layers.0.mixer.o_proj.weight",
        "mtp.layers.1.norm.weight", "mtp.layers.1.mixer.gate.weight",
        "mtp.layers.1.mixer.gate.e_score_correction_bias",
        "mtp.layers.1.mixer.fc1_latent_proj.weight", "mtp.layers.1.mixer.fc2_latent_proj.weight",
        "mtp.layers.1.mixer.shared_experts.up_proj.weight",
        "mtp.layers.1.mixer.shared_experts.down_proj.weight", "mtp.layers.1.final_layernorm.weight",
    }  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_load_save_and_load_again_keep_every_bit(tmp_path: Path, precision: PrecisionName) -> None:
    model = model_with_head()
    save_model(model, tiny_tokenizer(), tmp_path / "first")
    once = load_model(tmp_path / "first", device="cpu", precision=precision)
    save_model(once, tiny_tokenizer(), tmp_path / "second")
    twice = load_model(tmp_path / "second", device="cpu", precision=precision)
    for (name, tensor), again in zip(once.state_dict().items(), twice.state_dict().values(), strict=True):
        assert torch.equal(tensor, again), name
    assert any(name.startswith("mtp.") for name in once.state_dict())
    gate = mtp_head(once).layers[1].mixer.gate
    assert gate.e_score_correction_bias.dtype == torch.float32
    if precision == "fp32":
        embeddings, hidden = head_inputs(model)
        assert torch.equal(mtp_head(once)(embeddings, hidden), mtp_head(model)(embeddings, hidden))


def test_sharded_weights_are_found(tmp_path: Path) -> None:
    model = model_with_head()
    save_model(model, tiny_tokenizer(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    parts = {
        "model-00001-of-00002.safetensors": {
            k: v for k, v in tensors.items() if not k.startswith("mtp.layers.1")
        },
        "model-00002-of-00002.safetensors": {
            k: v for k, v in tensors.items() if k.startswith("mtp.layers.1")
        },
    }
    for name, part in parts.items():
        save_file(part, tmp_path / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {k: name for name, part in parts.items() for k in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = load_model(tmp_path, device="cpu")
    for name, tensor in mtp_head(model).state_dict().items():
        assert torch.equal(tensor, mtp_head(loaded).state_dict()[name]), name


def test_a_promised_head_without_weights_is_said_and_corrected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    bare = AutoModelForCausalLM.from_config(nemotron_h_config(num_nextn_predict_layers=1))
    save_model(bare, tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    assert mtp_head(loaded) is None
    assert loaded.config.num_nextn_predict_layers == 0
    assert "no mtp weights" in caplog.text


@pytest.mark.parametrize(
    ("spelling", "pattern"),
    [
        ({"mtp_hybrid_override_pattern": "*E"}, ["full_attention", "moe"]),  # Super
        ({"mtp_layers_block_type": ["attention", "moe"]}, ["full_attention", "moe"]),  # Ultra
        ({"mtp_hybrid_override_pattern": "*-"}, ["full_attention", "mlp"]),
    ],
)
def test_both_spellings_of_its_pattern(spelling: dict[str, object], pattern: list[str]) -> None:
    assert [b.block_type for b in mtp_head(model_with_head(**spelling)).layers] == pattern


def test_several_steps_are_flattened_and_the_last_serves_further_ones() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(nemotron_h_config(num_nextn_predict_layers=2)).eval()
    head = add_mtp_head(model)
    names = dict(head.named_parameters())
    assert len(head.layers) == 4
    assert {"layers.0.eh_proj.weight", "layers.2.eh_proj.weight", "layers.3.final_layernorm.weight"} <= set(
        names
    )
    embeddings, hidden = head_inputs(model)
    first, second, third = (head(embeddings, hidden, step=step) for step in range(3))
    assert not torch.allclose(first, second)
    assert torch.equal(second, third)


def test_the_head_never_sees_what_lies_to_the_right() -> None:
    model = model_with_head()
    embeddings, hidden = head_inputs(model)
    whole = mtp_head(model)(embeddings, hidden)
    other = embeddings.clone()
    other[:, 5:] += 1.0
    changed = mtp_head(model)(other, hidden)
    torch.testing.assert_close(whole[:, :5], changed[:, :5])
    assert not torch.allclose(whole[:, 5], changed[:, 5])


def test_piece_by_piece_through_a_cache_is_the_same() -> None:
    model = model_with_head()
    head: MTPHead = mtp_head(model)
    embeddings, hidden = head_inputs(model)
    cache = DynamicCache(config=head.config)
    pieces = [
        head(embeddings[:, part], hidden[:, part], cache=cache)
        for part in (slice(0, 4), slice(4, 5), slice(5, 9))
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), head(embeddings, hidden), atol=1e-6, rtol=1e-5)


def test_a_head_is_frozen_until_a_stage_trains_it() -> None:
    assert not any(p.requires_grad for p in mtp_head(model_with_head()).parameters())


def scores_by_hand(model: PreTrainedModel, ids: torch.Tensor, depth: int) -> list[torch.Tensor]:
    """Log-probability of token i + 1 + d from (h_i, t_{i+1} ... t_{i+d}) of one row: [T - 1 - d] each."""
    head = mtp_head(model)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    found = []
    for ahead in range(1, depth + 1):
        embeddings = model.get_input_embeddings()(ids[:, ahead:])
        hidden = head(embeddings, hidden[:, : embeddings.shape[1]], step=ahead - 1)
        logprobs = model.get_output_embeddings()(hidden[:, :-1]).log_softmax(-1)
        found.append(logprobs.gather(-1, ids[:, ahead + 1 :, None]).squeeze(-1)[0])
    return found


def test_scores_are_those_of_the_tokens_ahead() -> None:
    model = model_with_head()
    ids = torch.randint(2, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(1))
    scored = torch.tensor([[False] + [True] * 7, [False] * 4 + [True, True, False, True]])
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    found = mtp_scores(model, ids, scored, hidden, depth=2, train_backbone=True)
    for ahead, scores in enumerate(found, start=1):
        rows = [scores_by_hand(model, ids[i : i + 1], 2)[ahead - 1] for i in range(2)]
        expected = torch.cat([row[scored[i, ahead + 1 :]] for i, row in enumerate(rows)])
        torch.testing.assert_close(scores.logprobs, expected, atol=1e-5, rtol=1e-5)
        assert int(scores.predicted.sum()) == len(expected)
    assert found[0].predicted.tolist() == [False] + [True] * 6 + [True] * 3


@pytest.mark.parametrize("train_backbone", [True, False])
def test_its_loss_reaches_the_backbone_only_where_wanted(train_backbone: bool) -> None:
    model = model_with_head()
    mtp_head(model).requires_grad_(True)
    ids = torch.randint(2, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(1))
    scored = torch.ones_like(ids, dtype=torch.bool)
    scored[:, 0] = False
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    (scores,) = mtp_scores(model, ids, scored, hidden, depth=1, train_backbone=train_backbone)
    scores.logprobs.sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"mtp.layers.0.eh_proj.weight", "mtp.layers.1.mixer.experts.up_proj"} <= reached
    backbone = {name for name in reached if not name.startswith("mtp.")}
    assert (("lm_head.weight" in backbone) and ("model.embeddings.weight" in backbone)) == train_backbone
    assert train_backbone or not backbone


def test_two_tokens_are_too_few_to_look_ahead() -> None:
    model = model_with_head()
    ids, scored = torch.tensor([[5, 6]]), torch.tensor([[False, True]])
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    assert mtp_scores(model, ids, scored, hidden, depth=1, train_backbone=True) == []
    bare = AutoModelForCausalLM.from_config(nemotron_h_config())
    with pytest.raises(ValueError, match="no multi-token-prediction head"):
        mtp_scores(bare, ids, scored, hidden, depth=1, train_backbone=True)
