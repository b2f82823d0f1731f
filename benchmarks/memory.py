"""Peak memory beside peers: what the work adds to a process of its own, at its highest.

Linux: the peak of resident memory is reset (/proc/self/clear_refs) when model and data are there, and read
(VmHWM) after two steps. Library code and the model are not counted, for neither side.
"""

from __future__ import annotations

import gc
import random
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import psutil

from benchmarks.measure import Measurement

UNIT = "MiB"
LARGE_VOCABULARY, LENGTH, HIDDEN = 151_936, 8192, 64
PLAIN_COPIES = 3  # of [length, vocabulary] in float32: logits, log-probabilities, their gradient
SHORTER = 16  # the plain way at this part of the length, where memory does not allow all of it


def grpo(quick: bool) -> list[Measurement]:
    return [_compared("peak memory, GRPO step, 16 x 8 x 64 tokens", our_grpo, trl_grpo, "TRL")]


def sft(quick: bool) -> list[Measurement]:
    return [_compared("peak memory, SFT step, 128 x 16 to 160 tokens", our_sft, trl_sft, "TRL, padded")]


def logprobs(quick: bool) -> list[Measurement]:
    """Log-probabilities of 8,192 tokens among 151,936 words, and their gradient.

    Where there is no room for the plain way, a sixteenth of the length is measured (its memory is linear in
    the length), and the row says so.
    """
    wanted = PLAIN_COPIES * LENGTH * LARGE_VOCABULARY * 4
    part = 1 if not quick and psutil.virtual_memory().available > 1.2 * wanted else SHORTER
    length = LENGTH // SHORTER if quick else LENGTH
    ours = in_own_process(partial(score, length, plain=False))
    peer = in_own_process(partial(score, LENGTH // part, plain=True)) * part * length / LENGTH
    how = "whole logits" if part == 1 else f"whole logits, measured at {LENGTH // part} tokens"
    name = f"peak memory, log-probabilities, vocabulary {LARGE_VOCABULARY}, {length} tokens"
    return [Measurement(name, ours, UNIT, peer, how, less_is_better=True)]


def _compared(name: str, ours: Work, peer: Work, peer_name: str) -> Measurement:
    return Measurement(name, in_own_process(ours), UNIT, in_own_process(peer), peer_name, less_is_better=True)


Work = Callable[[], Callable[[], object]]  # prepares, and returns what to measure


def in_own_process(work: Work) -> float:
    """MiB that the work adds at its highest."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_of, work).result()


def peak_of(work: Work) -> float:
    """As `in_own_process`, in this one."""
    import torch

    import kascade.rollout.kernels  # noqa: F401 - numba's memory is a library's, not the work's

    torch.set_num_threads(1)
    run = work()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """KiB of this process."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {name}")
    return int(found[1])


def our_grpo() -> Callable[[], object]:
    from benchmarks import training

    parts = training.make_own_grpo(_prompts())
    return lambda: [training.our_step(parts) for _ in range(2)]


def trl_grpo() -> Callable[[], object]:
    from benchmarks import training

    trl = training.grpo_of_trl(_prompts(), 2)
    return trl.train  # type: ignore[no-any-return]


def _prompts() -> list[list[int]]:
    from benchmarks import training

    rng = random.Random(0)
    return [training.ids(rng, training.PROMPT_TOKENS) for _ in range(training.PROMPTS)]


def our_sft() -> Callable[[], object]:
    from benchmarks import training

    step = training.make_own_sft()
    return lambda: [step() for _ in range(2)]


def trl_sft() -> Callable[[], object]:
    from benchmarks import training

    trl = training.sft_of_trl(2)
    return trl.train  # type: ignore[no-any-return]


def score(length: int, *, plain: bool, vocabulary: int = LARGE_VOCABULARY) -> Callable[[], object]:
    """Log-probabilities of `length` random tokens from random states, and their gradient."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    from kascade.models.logprobs import head_logprobs

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=HIDDEN, intermediate_size=HIDDEN, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    hidden = torch.randn(length, HIDDEN, requires_grad=True)
    targets = torch.randint(vocabulary, (length,))

    def run() -> None:
        if plain:
            scores = model.get_output_embeddings()(hidden).log_softmax(-1)
            found = scores.gather(1, targets[:, None]).squeeze(1)
        else:
            found = head_logprobs(model, hidden, targets).logprobs
        found.sum().backward()

    return run
