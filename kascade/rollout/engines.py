"""The engine that a recipe asks for, made for a model."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kascade.data.chat import ChatFormat
from kascade.models.load import save_model
from kascade.recipe.schema import Rollout
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import RolloutEngine
from kascade.rollout.vllm import VLLMEngine, VLLMSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

THINK_END = "</think>"


def make_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, part: Rollout
) -> RolloutEngine:
    """Raises UserError when the engine's package is not installed."""
    think_end_ids = tokenizer.encode(THINK_END, add_special_tokens=False)
    if part.engine == "native":
        return NativeEngine(
            model,
            end_ids=chat.end_ids,
            think_end_ids=think_end_ids,
            decode=partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False),
            max_batch_rows=part.max_batch_rows,
        )
    return VLLMEngine(
        Path(tempfile.mkdtemp(prefix="kascade-vllm-")),
        lambda folder: save_model(model, tokenizer, folder),
        settings=VLLMSettings(**part.vllm.model_dump()),
        end_ids=chat.end_ids,
        think_end_ids=think_end_ids,
    )
