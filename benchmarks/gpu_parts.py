"""The parts of `make gpu-check`: each returns its numbers, and raises where what it checks is not so.

On a GPU in the size that matters there; without one, tiny.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from kascade.learning.objectives import Supervised
from kascade.learning.trainer import Example, Trainer
from kascade.models.adapters import add_adapter, trained_tensors
from kascade.models.batch import TokenBatch
from kascade.models.logprobs import token_logprobs
from kascade.recipe.adapter import Adapter
from kascade.recipe.schema import Optimizer
from kascade.rollout.lean_qwen3 import Qwen3Decoder
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, SamplingParams

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
UPDATES, RATE = 100, 3e-6  # of the recipes' RL
SHARE_MOVED = 0.95  # of the way that float32 goes
PARITY = 0.05  # mean gap of log-probabilities in bf16: the default of limits.max_logprob_gap
SAME = 1e-5  # of log-probabilities in float32


def model_of(dtype: torch.dtype, *, small: bool = False) -> PreTrainedModel:
    """Random weights: as wide as 0.6B on a GPU (28 layers; small: 4), tiny on a CPU."""
    wide = {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "head_dim": 128}
    tiny = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
    layers = (4 if small else 28) if CUDA else 2
    vocabulary = 151_936 if CUDA else 512
    config = Qwen3Config(
        vocab_size=vocabulary, num_hidden_layers=layers, num_key_value_heads=2, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, **(wide if CUDA else tiny),
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def rows(vocabulary: int, count: int, length: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(4, vocabulary, (count, length), generator=generator).tolist()


def examples(model: PreTrainedModel, count: int, length: int) -> list[Example]:
    weight = 1.0 / (count * (length - 1))
    scored = [False] + [True] * (length - 1)
    columns = {"weights": torch.full((length - 1,), weight)}
    return [Example(ids, scored, columns) for ids in rows(model.config.vocab_size, count, length)]


def scores(model: PreTrainedModel, ids: list[list[int]], *, packed: bool = False) -> Tensor:
    batch = TokenBatch.collate(ids, [[i > 0 for i in range(len(row))] for row in ids], 0, packed=packed)
    return token_logprobs(model, batch.to(model.device)).logprobs


def nccl() -> dict[str, float]:
    """One rank: the library is there and moves data."""
    from torch import distributed

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    distributed.init_process_group("nccl", rank=0, world_size=1)
    x = torch.ones(2**24, device="cuda")
    distributed.all_reduce(x)
    gathered = torch.empty_like(x)
    distributed.all_gather_into_tensor(gathered, x)
    torch.cuda.synchronize()
    right = float((gathered == 1).float().mean())
    distributed.destroy_process_group()
    assert right == 1.0
    return {"share_right": right}


def masters() -> dict[str, float]:
    """Steady gradients at the rate of RL move bf16 weights as far as float32 ones."""
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = model_of(dtype, small=True)
        trainer = Trainer(
            model, Optimizer(learning_rate=RATE, weight_decay=0.0), total_steps=UPDATES,
            micro_batch_tokens=10**6, pad_id=0,
        )  # fmt: skip
        batch = examples(model, 4, 32)
        before = [p.detach().float().clone() for p in model.parameters()]
        for step in range(UPDATES):
            trainer.update(step, batch, Supervised())
        pairs = zip(model.parameters(), before, strict=True)
        ways = [(trainer.masters.of(p).detach().float() - old).abs().sum() for p, old in pairs]
        moved[dtype] = float(torch.stack(ways).sum())
    share = moved[torch.bfloat16] / moved[torch.float32]
    assert share >= SHARE_MOVED, f"bf16 weights move {share:.1%} as far as float32 ones"
    return {"share_moved": share}


def parity() -> dict[str, float]:
    """What the sampler says of its tokens and what the trainer says, in bf16."""
    model = model_of(torch.bfloat16)
    prompts = [Prompt(tuple(ids), 4, seed=i) for i, ids in enumerate(rows(model.config.vocab_size, 8, 16))]
    groups = NativeEngine(model, end_ids=()).sample(prompts, SamplingParams(64 if CUDA else 8))
    gaps = []
    with torch.no_grad():
        for prompt, samples in zip(prompts, groups, strict=True):
            for sample in samples:
                found = scores(model, [[*prompt.token_ids, *sample.token_ids]])[len(prompt.token_ids) - 1 :]
                gaps.append((found.cpu() - torch.tensor(sample.logprobs)).abs())
    gap = torch.cat(gaps)
    assert float(gap.mean()) <= PARITY, f"mean gap {float(gap.mean()):.4f}"
    return {"mean_gap": float(gap.mean()), "largest_gap": float(gap.max())}


def graphs() -> dict[str, float]:
    """Decoding over memory that stays (recorded on a GPU) gives what decoding over growing caches does."""
    model: Any = model_of(torch.float32, small=True)
    prompts = [Prompt(tuple(ids), 2, seed=i) for i, ids in enumerate(rows(model.config.vocab_size, 4, 12))]
    drawn = [
        NativeEngine(model, end_ids=(), decoder=Qwen3Decoder(model, static=static)).sample(
            prompts, SamplingParams(24)
        )
        for static in (False, True)
    ]
    flat = [[sample for group in groups for sample in group] for groups in drawn]
    same = [a.token_ids == b.token_ids for a, b in zip(*flat, strict=True)]
    found = [torch.tensor([p for sample in one for p in sample.logprobs]) for one in flat]
    assert all(same), f"{same.count(False)} of {len(same)} answers differ"
    return {"answers": float(len(same)), "largest_gap": float((found[0] - found[1]).abs().max())}


def packed() -> dict[str, float]:
    """Rows of any lengths in one launch, against each row alone."""
    model = model_of(torch.bfloat16, small=True)
    whole = rows(model.config.vocab_size, 6, 300)
    ids = [row[:length] for row, length in zip(whole, (5, 300, 64, 17, 128, 33), strict=True)]
    with torch.no_grad():
        together = scores(model, ids, packed=True)
        alone = torch.cat([scores(model, [row]) for row in ids])
    gap = (together.float() - alone.float()).abs()
    assert float(gap.mean()) <= PARITY
    return {"mean_gap": float(gap.mean()), "largest_gap": float(gap.max())}


def adapters() -> dict[str, float]:
    """A LoRA update moves the adapter alone; sampler and trainer then agree on it."""
    model = model_of(torch.bfloat16 if CUDA else torch.float32, small=True)
    add_adapter(model, Adapter(rank=16), 0)
    base = [p.detach().clone() for p in model.parameters() if not p.requires_grad]
    trainer = Trainer(model, Optimizer(learning_rate=1e-3), total_steps=3, micro_batch_tokens=10**6, pad_id=0)
    losses = [trainer.update(step, examples(model, 4, 32), Supervised())["loss"] for step in range(3)]
    kept = [p.detach() for p in model.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(base, kept, strict=True)), "the base moved"
    assert losses[-1] < losses[0], f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f}"
    (ids,) = rows(model.config.vocab_size, 1, 16)
    (samples,) = NativeEngine(model, end_ids=()).sample([Prompt(tuple(ids), 4, seed=0)], SamplingParams(16))
    with torch.no_grad():
        each = [scores(model, [[*ids, *sample.token_ids]])[len(ids) - 1 :] for sample in samples]
    found = torch.stack(each).cpu().float()
    gap = (found - torch.tensor([s.logprobs for s in samples])).abs()
    assert float(gap.mean()) <= (PARITY if CUDA else SAME)
    trained = sum(t.numel() for t in trained_tensors(model).values())
    share = trained / sum(p.numel() for p in model.parameters())
    return {"mean_gap": float(gap.mean()), "share_trained": share}


def fits() -> dict[str, float]:
    """The formula of `kascade plan` against the allocator's peak, all weights and rank 16."""
    from kascade.recipe.layout import Layout
    from kascade.recipe.memory import memory_of, total_of
    from kascade.recipe.shapes import shape_of

    found = {}
    for name, adapter in (("all", None), ("rank16", (16, None))):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        model = model_of(torch.bfloat16)
        if adapter is not None:
            add_adapter(model, Adapter(rank=adapter[0]), 0)
        trainer = Trainer(model, Optimizer(), total_steps=2, micro_batch_tokens=8192, pad_id=0)
        for step in range(2):
            trainer.update(step, examples(model, 24, 1024), Supervised())
        measured = torch.cuda.max_memory_allocated()
        shape = shape_of(model.config.to_dict())
        assert shape is not None
        parts = memory_of(shape, Layout(tokens=8192, adapter=adapter))
        del parts["runtime"]  # the allocator does not see it
        found[f"{name}_measured_gib"] = measured / 2**30
        found[f"{name}_off"] = total_of(parts).expected / measured - 1
        del model, trainer
    return found


def fp8() -> dict[str, float]:
    """Layers in fp8 by Transformer Engine, beside bf16."""
    from kascade.models.low_precision import apply_precision
    from kascade.recipe.schema import LowPrecision

    ids = rows(151_936, 4, 64)
    exact, low = model_of(torch.bfloat16, small=True), model_of(torch.bfloat16, small=True)
    apply_precision(low, "fp8", LowPrecision())
    with torch.no_grad():
        gap = (scores(exact, ids).float() - scores(low, ids).float()).abs()
    trainer = Trainer(low, Optimizer(), total_steps=1, micro_batch_tokens=10**6, pad_id=0)
    loss = trainer.update(0, examples(low, 4, 64), Supervised())["loss"]
    return {"mean_gap": float(gap.mean()), "loss": loss}


def vllm() -> dict[str, float]:
    """The canary: fixed tokens scored by vLLM and by us, before and after weights are handed over again."""
    from tempfile import TemporaryDirectory

    from vllm import LLM, SamplingParams

    model = model_of(torch.bfloat16, small=True)
    ids = rows(model.config.vocab_size, 4, 48)
    asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    with torch.no_grad():
        ours = scores(model, ids).float().cpu()
    gaps = {}
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        llm = LLM(folder, skip_tokenizer_init=True, dtype="bfloat16", gpu_memory_utilization=0.3)
        for when in ("first", "after_a_reload"):
            outputs = llm.generate([{"prompt_token_ids": row} for row in ids], asked)
            theirs = [
                place[token].logprob
                for row, out in zip(ids, outputs, strict=True)
                for token, place in zip(row[1:], out.prompt_logprobs[1:], strict=True)
            ]
            gaps[f"{when}_mean_gap"] = float((ours - torch.tensor(theirs)).abs().mean())
            llm.collective_rpc("reload_weights")
    assert max(gaps.values()) <= PARITY, str(gaps)
    return gaps


def mfu() -> dict[str, float]:
    """FLOPs utilisation of an SFT step at 0.6B and 1.7B."""
    from benchmarks.gpu import training

    return {one.name: one.ours for one in training(quick=True)}


def rollout() -> dict[str, float]:
    """Tokens per second of rollouts, and of transformers' generate."""
    from benchmarks.gpu import rollout as measure

    (one,) = measure(quick=True)
    return {"tokens_per_s": one.ours, "generate_tokens_per_s": one.peer or 0.0, "ratio": one.ratio or 0.0}
