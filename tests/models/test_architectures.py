"""Every architecture trains, samples, is saved and comes back the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tiny_architectures import CONFIGS, END, PAD, VOCABULARY, nemotron_h_config, tiny_model, tiny_tokenizer
from transformers import AutoConfig, NemotronHConfig

from kascade.learning.example import Example
from kascade.learning.losses import per_token_weights
from kascade.learning.objectives import Supervised
from kascade.learning.trainer import Trainer
from kascade.models.load import load_model, save_model
from kascade.models.logprobs import TokenBatch, token_logprobs
from kascade.recipe.schema import Optimizer
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, SamplingParams

PROMPTS = [Prompt((5, 6, 7, 8), 2, seed=1), Prompt((9, 10, 11, 12), 2, seed=2)]


def counting_examples(count: int = 8, length: int = 10) -> list[Example]:
    """Sequences that count upwards: learnable in a few updates."""
    rng = random.Random(0)
    weights = per_token_weights([length - 1] * count)
    starts = [rng.randrange(2, VOCABULARY - length) for _ in range(count)]
    return [
        Example(
            list(range(start, start + length)),
            [False] + [True] * (length - 1),
            {"weights": torch.full((length - 1,), weight)},
        )
        for start, weight in zip(starts, weights, strict=True)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_train_sample_save_reload(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    trainer = Trainer(model, Optimizer(learning_rate=5e-3), total_steps=12, micro_batch_tokens=64, pad_id=PAD)
    losses = [trainer.update(step, counting_examples(), Supervised())["loss"] for step in range(12)]
    assert losses[-1] < 0.6 * losses[0]

    sampled = NativeEngine(model, end_ids=[END]).sample(PROMPTS, SamplingParams(8))
    for prompt, samples in zip(PROMPTS, sampled, strict=True):
        for sample in samples:
            ids = [*prompt.token_ids, *sample.token_ids]
            scored = [i >= len(prompt.token_ids) for i in range(len(ids))]
            own = token_logprobs(model, TokenBatch.collate([ids], [scored], PAD)).logprobs
            torch.testing.assert_close(torch.tensor(sample.logprobs), own.detach(), atol=1e-5, rtol=0)

    save_model(model, tiny_tokenizer(), tmp_path)
    again = load_model(tmp_path, device="cpu")
    expected, found = model.state_dict(), again.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[key]) for key, tensor in expected.items())
    assert NativeEngine(again, end_ids=[END]).sample(PROMPTS, SamplingParams(8)) == sampled


def test_both_spellings_of_the_pattern_are_one_model(tmp_path: Path) -> None:
    """`hybrid_override_pattern` (Nano, Super) and `layers_block_type` (Ultra, num_hidden_layers null)."""
    by_pattern = nemotron_h_config()
    by_names = nemotron_h_config(
        layers_block_type=["mamba", "moe", "attention", "mlp"], num_hidden_layers=None
    )
    kinds = ["linear_attention", "moe", "full_attention", "mlp"]
    assert by_pattern.layers_block_type == by_names.layers_block_type == kinds
    by_names.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(read, NemotronHConfig)
    assert (read.layers_block_type, read.num_hidden_layers) == (kinds, 4)
