"""The engine that a recipe asks for, made for a model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kascade.data.chat import ChatFormat
from kascade.models.checksum import weights_checksum
from kascade.models.load import save_model
from kascade.recipe.schema import Rollout
from kascade.rollout.native import NativeEngine
from kascade.rollout.routed import RoutedEngine
from kascade.rollout.speculative import SpeculativeEngine
from kascade.rollout.types import RolloutEngine
from kascade.rollout.vllm import VLLMEngine, VLLMSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

THINK_END = "</think>"


def make_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, part: Rollout
) -> RolloutEngine:
    """Raises UserError when the engine's package is not installed."""
    if part.engine == "native":
        return NativeEngine(model, max_batch_rows=part.max_batch_rows, **_words(tokenizer, chat))
    return VLLMEngine(
        None,
        lambda folder: save_model(model, tokenizer, folder),
        checksum=partial(weights_checksum, model),
        settings=VLLMSettings(**part.vllm.model_dump()),
        end_ids=chat.end_ids,
        think_end_ids=tokenizer.encode(THINK_END, add_special_tokens=False),
    )


def make_routed_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat
) -> RoutedEngine:
    """The native engine, recording which experts are used."""
    return RoutedEngine(model, **_words(tokenizer, chat))


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
