"""Speculative decoding with the model's own draft head beside the native engine, a few long answers."""

from __future__ import annotations

from functools import partial

import torch
from transformers import AutoModelForCausalLM

from benchmarks.measure import Measurement, compare
from benchmarks.rollout import VOCABULARY, random_prompts
from kascade.models.mini import mini_config
from kascade.models.mtp import add_mtp_head
from kascade.rollout.native import NativeEngine
from kascade.rollout.speculative import SpeculativeEngine
from kascade.rollout.types import Prompt, SamplingParams

ANSWERS, LENGTH, DRAFT_TOKENS = 2, 64, 3


def run(quick: bool) -> list[Measurement]:
    """Random weights: their flat distributions make drafts easy to accept, so the rate is no model's.

    It shows what a forward over drafted tokens costs beside one step a token, and the acceptance then.
    """
    torch.manual_seed(0)
    config = mini_config("mini-nemotron-h", VOCABULARY, pad_token_id=0, bos_token_id=None, eos_token_id=1)
    config.num_nextn_predict_layers = 1
    model = AutoModelForCausalLM.from_config(config).eval()
    add_mtp_head(model)
    drafting = SpeculativeEngine(model, end_ids=[], draft_tokens=DRAFT_TOKENS)
    prompts = [Prompt(tuple(ids), 1, seed) for seed, ids in enumerate(random_prompts()[:ANSWERS])]
    params = SamplingParams(max_new_tokens=LENGTH)
    own, other = compare(
        partial(drafting.sample, prompts, params),
        partial(NativeEngine(model, end_ids=[]).sample, prompts, params),
        1 if quick else 5,
    )
    tokens, found = ANSWERS * LENGTH, drafting.stats.metrics()
    name = f"speculative decoding, mini-nemotron-h, {DRAFT_TOKENS} drafted tokens"
    return [
        Measurement(name, tokens / own, "tokens / CPU s", tokens / other, "native engine, a token a step"),
        Measurement(f"{name}, accepted", 100 * found["draft_acceptance"], "% of drafted tokens"),
        Measurement(f"{name}, tokens won a forward", found["tokens_per_forward"], "tokens"),
    ]
