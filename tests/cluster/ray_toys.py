"""A tiny model and fixed examples; as a program, one process of a group that trains on them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from kascade.learning.distributed import ShardedTrainer, join_group, world
from kascade.learning.objectives import PolicyGradient
from kascade.learning.trainer import Example, Trainer
from kascade.recipe.schema import Optimizer

STEPS = 8


def tiny_model(seed: int = 0) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=13, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def examples(step: int, count: int = 7) -> list[Example]:
    """Of uneven lengths, so that the processes' shares differ in tokens and micro-batches."""
    draw = torch.Generator().manual_seed(step)
    found = []
    for row in range(count):
        length = 4 + (3 * row + step) % 6
        tokens = torch.randint(2, 13, (length + 2,), generator=draw).tolist()
        found.append(
            Example(
                tokens,
                [False, False] + [True] * length,
                {
                    "weights": torch.full((length,), 1 / 50),
                    "advantages": torch.randn(length, generator=draw),
                    "sampler_logprobs": torch.full((length,), -2.5),
                },
            )
        )
    return found


def run_steps(folder: Path, first: int, last: int) -> list[dict[str, float]]:
    """Updates `first` to `last` - 1, from the state in `folder` on, which is saved at the end."""
    model = tiny_model()
    kind = ShardedTrainer if world() > 1 else Trainer
    part = Optimizer(learning_rate=1e-2)
    trainer = kind(model, part, total_steps=STEPS, micro_batch_tokens=24, pad_id=0)
    assert trainer.load(folder) == first
    metrics = []
    for step in range(first, last):
        found = trainer.update(step, examples(step), PolicyGradient(1.0))
        metrics.append({**found, "weights": sum(float(p.detach().abs().sum()) for p in model.parameters())})
    trainer.save(folder, last)
    trainer.finish_saving()
    return metrics


if __name__ == "__main__":
    torch.set_num_threads(1)
    join_group()
    print(json.dumps(run_steps(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
