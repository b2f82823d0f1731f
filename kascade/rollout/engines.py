"""The engine that a recipe asks for, made for a model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kascade.data.chat import ChatFormat
from kascade.recipe.schema import Rollout
from kascade.recipe.vllm import NO_RESULTS
from kascade.rollout.canary import Watch
from kascade.rollout.handover import ModelSource, WeightSource
from kascade.rollout.native import NativeEngine
from kascade.rollout.routed import RoutedEngine
from kascade.rollout.speculative import SpeculativeEngine
from kascade.rollout.types import RolloutEngine
from kascade.rollout.vllm import AnyVLLM, VLLMEngine
from kascade.rollout.vllm_local import LocalVLLM, VLLMSettings
from kascade.rollout.vllm_served import RemoteVLLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

THINK_END = "</think>"


def make_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, part: Rollout
) -> RolloutEngine:
    """Raises UserError when the engine's package is not installed."""
    if part.engine == "native":
        return NativeEngine(model, max_batch_rows=part.max_batch_rows, **_words(tokenizer, chat))
    return make_vllm_engine(ModelSource(model, tokenizer), model, tokenizer, chat, part)


def make_vllm_engine(
    source: WeightSource,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    part: Rollout,
) -> VLLMEngine:
    """vLLM for the weights of a source. model: of that kind, perhaps without weights.

    Raises UserError when vllm is not installed here, or its server is not as it must be.
    """
    settings = part.vllm
    vllm: AnyVLLM
    if settings.served is not None:
        vllm = RemoteVLLM(source, settings, model.config, tokenizer)
    else:
        own = VLLMSettings(**settings.model_dump(exclude=NO_RESULTS))
        vllm = LocalVLLM(None, source.write_whole, source.computes_in(), own)  # it reads no adapters
    vocabulary = min(len(tokenizer), int(model.config.vocab_size))
    return VLLMEngine(
        vllm,
        source,
        watch=Watch.of(settings.canary, vocabulary, settings.max_model_len),
        end_ids=chat.end_ids,
        think_end_ids=tokenizer.encode(THINK_END, add_special_tokens=False),
    )


def make_routed_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, part: Rollout
) -> RoutedEngine:
    """The native engine, recording which experts are used."""
    return RoutedEngine(model, max_batch_rows=part.max_batch_rows, **_words(tokenizer, chat))


def make_drafting_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, draft_tokens: int
) -> SpeculativeEngine:
    """The one that lets the model's multi-token-prediction head draft. Raises ValueError without a head."""
    words = _words(tokenizer, chat)
    return SpeculativeEngine(
        model, draft_tokens=draft_tokens, end_ids=words["end_ids"], decode=words["decode"]
    )


def _words(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> dict[str, Any]:
    """What an engine in this process has to know of the tokens."""
    return {
        "end_ids": chat.end_ids,
        "think_end_ids": tokenizer.encode(THINK_END, add_special_tokens=False),
        "decode": partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False),
    }
