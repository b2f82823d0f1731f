"""Pretraining of the built-in miniatures, from nothing, with one command (`make mini-base`).

Everything is seeded: the same command gives the same tokenizer and, on the same machine, the same
weights. Source of the shape: Nemotron 3 (arXiv 2512.20848); of the schedule: warm-up, then linear to 0.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kascade.clock import cpu_seconds
from kascade.data.chat import template
from kascade.data.packing import micro_batches
from kascade.miniature.config import mini_config
from kascade.miniature.corpus import LOOKUPS, MIXTURE, Document, Weights, documents
from kascade.models.batch import TokenBatch
from kascade.models.load import save_model
from kascade.models.logprobs import token_logprobs
from kascade.storage.checkpoint import file_digest

log = logging.getLogger("kascade.mini_base")

SPECIAL_TOKENS = (
    "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>",
)  # fmt: skip
ROLE_WORDS = "system user assistant "  # so that the chat template's words are whole tokens
LOG_EVERY = 50  # steps
SHUFFLED_DOCUMENTS = 1024  # encoded at a time, so that documents of like length are found
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Phase:
    """One warm-up and decay. tokens: how many are seen; weights: the mixture of the corpus."""

    tokens: int
    learning_rate: float
    weights: Weights
    curriculum_documents: int = 0


PHASES = (
    Phase(9_000_000, 2e-3, MIXTURE, curriculum_documents=30_000),
    Phase(3_000_000, 1e-3, LOOKUPS),
)


@dataclass(frozen=True, slots=True)
class Pretraining:
    """How a miniature is pretrained. question_weight: loss weight of questions' tokens."""

    model: str = "mini-nemotron-h"
    seed: int = 0
    vocab_size: int = 1024
    tokenizer_documents: int = 20_000
    phases: tuple[Phase, ...] = PHASES
    batch_tokens: int = 2048
    max_document_tokens: int = 320
    warmup_share: float = 0.03
    weight_decay: float = 0.1
    question_weight: float = 0.15
    threads: int = 1


def train_tokenizer(part: Pretraining) -> Any:
    """Byte-level BPE over the corpus, digits one by one."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|\n+| ?[A-Za-z_]+| ?[^\sA-Za-z_\d]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=part.vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [document.text for document in islice(documents(part.seed), part.tokenizer_documents)]
    tokenizer.train_from_iterator([*texts, *[ROLE_WORDS] * (part.tokenizer_documents // 20)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=[
            token for token in SPECIAL_TOKENS if token not in ("<|pad|>", "<|im_end|>")
        ],
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: Any, document: Document, part: Pretraining) -> tuple[list[int], list[float]]:
    """Token ids of a document and the loss weight of each; it ends with the end-of-text token."""
    ids: list[int] = []
    weights: list[float] = []
    for text, answers in document.segments:
        piece = tokenizer.encode(text, add_special_tokens=False)
        ids += piece
        weights += [1.0 if answers else part.question_weight] * len(piece)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    kept = part.max_document_tokens - 1
    return [*ids[:kept], end], [*weights[:kept], 1.0]


def batches(tokenizer: Any, part: Pretraining, number: int) -> Iterator[tuple[TokenBatch, Tensor]]:
    """For phase `number`, endless batches with all tokens scored but first ones, and their weights [N].

    Documents of like lengths go together.
    """
    phase = part.phases[number]
    stream = documents(part.seed + 1 + number, phase.curriculum_documents, phase.weights)
    rng = random.Random(part.seed + number)
    while True:
        encoded = [encode(tokenizer, document, part) for document in islice(stream, SHUFFLED_DOCUMENTS)]
        grouped = micro_batches([len(ids) for ids, _ in encoded], part.batch_tokens)
        rng.shuffle(grouped)
        for rows in grouped:
            sequences = [encoded[row][0] for row in rows]
            scored = [[False] + [True] * (len(ids) - 1) for ids in sequences]
            weights = torch.tensor([weight for row in rows for weight in encoded[row][1][1:]])
            yield TokenBatch.collate(sequences, scored, tokenizer.pad_token_id), weights


def learning_rate(part: Pretraining, phase: Phase, seen: int) -> float:
    """Warm-up over the first share of a phase's tokens, then linear to zero."""
    progress = seen / phase.tokens
    return phase.learning_rate * min(1.0, progress / part.warmup_share, max(0.0, 1 - progress) * 1.05)


def build_model(part: Pretraining, tokenizer: Any) -> Any:
    """The miniature with random weights, the same for the same seed."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(part.seed)
    config = mini_config(part.model, len(tokenizer), tokenizer.pad_token_id, None, tokenizer.eos_token_id)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def build_optimizer(part: Pretraining, model: Any) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": part.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )


def weighted_loss(model: Any, batch: TokenBatch, weights: Tensor) -> Tensor:
    """Mean cross-entropy of the next token, weighted. weights: [N]."""
    logprobs = token_logprobs(model, batch).logprobs
    return -(logprobs * weights).sum() / weights.sum()


def train_phase(part: Pretraining, number: int, model: Any, tokenizer: Any) -> tuple[int, int, float]:
    """Pretrain in place through one phase. Returns (steps, tokens seen, smoothed loss at the end)."""
    phase = part.phases[number]
    optimizer = build_optimizer(part, model)
    started, seen, step, smooth = cpu_seconds(), 0, 0, math.nan
    model.train()
    for batch, weights in batches(tokenizer, part, number):
        if seen >= phase.tokens:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(part, phase, seen)
        loss = weighted_loss(model, batch, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        seen += len(weights)
        step += 1
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        if step % LOG_EVERY == 0:
            log.info(
                "phase %d step %d tokens %d loss %.3f cpu %.0fs",
                number,
                step,
                seen,
                smooth,
                cpu_seconds() - started,
            )
    return step, seen, smooth


def pretrain(part: Pretraining, folder: Path) -> dict[str, Any]:
    """Train tokenizer and model, save both and the facts of the training into `folder`; returns the facts."""
    torch.set_num_threads(part.threads)
    tokenizer = train_tokenizer(part)
    model = build_model(part, tokenizer)
    started, start_cpu = time.time(), cpu_seconds()
    ends = [train_phase(part, number, model, tokenizer) for number in range(len(part.phases))]
    tokenizer.chat_template = template("nemotron-cascade-2")
    save_model(model.eval(), tokenizer, folder)
    facts = {
        "settings": asdict(part),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": sum(steps for steps, _, _ in ends),
        "tokens": sum(tokens for _, tokens, _ in ends),
        "final_loss": round(ends[-1][2], 4),
        "cpu_hours": round((cpu_seconds() - start_cpu) / 3600, 3),
        "wall_hours": round((time.time() - started) / 3600, 3),
        "sha256": file_digest(folder / WEIGHTS),
    }
    (folder / "pretraining.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = Pretraining()
    parser.add_argument("--model", default=defaults.model)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the model")
    parser.add_argument("--threads", type=int, default=defaults.threads)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists; give a new folder")
    part = Pretraining(model=arguments.model, threads=arguments.threads)
    log.info("%s", pretrain(part, arguments.out))


if __name__ == "__main__":
    main()
