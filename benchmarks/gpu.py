"""Speeds on a GPU: tokens a second of rollout beside `generate`, FLOPs utilisation of the train step.

Method. Random weights in the shapes of Qwen3-0.6B and 1.7B, bf16, wall time with the GPU waited for, the
median over rounds after one to warm up.

Utilisation is useful arithmetic over the card's dense bf16 peak: a token
costs 6 N FLOPs forward and backward (N parameters of matrices, the head included, embeddings as look-ups
not), and attention 6 layers x heads x head size x length more, of which causal masking leaves half
(arXiv 2204.02311, appendix B). Nothing that is computed twice counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from benchmarks.measure import Measurement
from benchmarks.rollout import PROMPTS, SAMPLES, GivenLengths, random_prompts, sample_ours, sample_peer
from benchmarks.training import example
from kascade.learning.objectives import Supervised
from kascade.learning.trainer import Trainer
from kascade.recipe.schema import Optimizer

ROLLOUT_LENGTH, TRAIN_ROWS, TRAIN_LENGTH = 512, 16, 2048
SHAPES = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144},
}
# Dense bf16 TFLOP/s by the makers' data sheets, the longest matching name counts.
PEAK = {
    "A100": 312, "H100 PCIe": 756, "H100": 989, "H200": 989, "B200": 2250, "L40S": 362, "L4": 121, "A10": 125,
    "RTX 4090": 165,
}  # fmt: skip


def rollout(quick: bool) -> list[Measurement]:
    """Tokens per second, rows as on the CPU; nothing where there is no GPU."""
    if not there_is_one("gpu-rollout"):
        return []
    model = make_model("0.6B")
    lengths = [64 if quick else ROLLOUT_LENGTH] * (PROMPTS * SAMPLES)
    ids = random_prompts()
    ours = partial(sample_ours, GivenLengths(model, lengths), ids, max(lengths))
    peer = partial(sample_peer, model, ids, lengths)
    seconds(ours), seconds(peer)
    times = [(seconds(ours), seconds(peer)) for _ in range(1 if quick else 5)]
    own, other = median(own for own, _ in times), median(other for _, other in times)
    name = f"rollout on {torch.cuda.get_device_name()}, qwen3 0.6B bf16, {len(lengths)} x {lengths[0]} tokens"
    tokens = sum(lengths)
    return [Measurement(name, tokens / own, "tokens / s", tokens / other, "transformers generate")]


def training(quick: bool) -> list[Measurement]:
    """FLOPs utilisation of an SFT step at 0.6B and 1.7B; nothing where there is no GPU."""
    if not there_is_one("gpu-training"):
        return []
    measured = []
    for size in SHAPES:
        model = make_model(size).train()
        work, tokens = train_step(model, TRAIN_ROWS, TRAIN_LENGTH)
        seconds(work)
        took = median(seconds(work) for _ in range(1 if quick else 5))
        rate = tokens / took
        name = f"SFT step on {torch.cuda.get_device_name()}, qwen3 {size} bf16, {TRAIN_ROWS} x {TRAIN_LENGTH}"
        measured.append(Measurement(name, rate, "tokens / s"))
        peak = peak_flops(torch.cuda.get_device_name())
        if peak is not None:
            used = rate * flops_a_token(model, TRAIN_LENGTH) / peak
            measured.append(Measurement(f"{name}, model FLOPs utilisation", 100 * used, "% of peak"))
    return measured


def there_is_one(name: str) -> bool:
    """Whether there is a GPU; says loudly what was not measured if not."""
    if torch.cuda.is_available():
        return True
    print(f"*** NO GPU: {name} WAS NOT MEASURED. With one: python -m benchmarks {name} ***", file=sys.stderr)
    return False


def make_model(size: str) -> PreTrainedModel:
    config = Qwen3Config(
        vocab_size=151_936, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        tie_word_embeddings=True, **SHAPES[size],
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    return model


def train_step(model: PreTrainedModel, rows: int, length: int) -> tuple[Callable[[], object], int]:
    """One update on random rows of one length, and its tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, model.config.vocab_size, (rows, length), generator=generator).tolist()
    tokens = rows * length
    examples = [example(row[:1], row[1:], 1 / tokens, 0.0) for row in ids]
    trainer = Trainer(
        model, Optimizer(learning_rate=1e-6), total_steps=10**6, micro_batch_tokens=8 * length, pad_id=0
    )
    return partial(trainer.update, 0, examples, Supervised()), tokens


def flops_a_token(model: PreTrainedModel, length: int) -> float:
    """Of forward and backward, on rows of one length (see the method)."""
    config: Any = model.config
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)  # tied: the embedding is the head
    if not config.tie_word_embeddings:
        matrices -= config.vocab_size * config.hidden_size
    heads = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return float(6 * matrices + 6 * heads * length)


def peak_flops(device: str) -> float | None:
    """FLOP/s of a card by its name; None for one that is not known here."""
    known = [name for name in PEAK if name in device]
    return PEAK[max(known, key=len)] * 1e12 if known else None


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call, the GPU waited for."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start
