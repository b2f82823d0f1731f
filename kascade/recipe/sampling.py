"""How answers are sampled, and by which engine. [C2] is Nemotron-Cascade 2 (arXiv 2603.19220)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from kascade.recipe.parts import Filled, Part
from kascade.recipe.vllm import VLLM


class ConversationLimits(Part):
    """When a conversation of several turns ends though nobody said so. [C2 §4.8; NeMo-Gym swe_agents]"""

    max_turns: PositiveInt = Field(200, description="answers of the policy [C2 §4.8]")
    max_tokens: PositiveInt = Field(262_144, description="prompt, answers and tool results [C2 §4.8]")
    max_seconds: PositiveFloat = Field(3600.0, description="from its first turn on [NeMo-Gym swe_agents]")


class Sampling(Part):
    """How rollouts are drawn. [C2 App. B: temperature 1, top-p 1]"""

    temperature: float = Field(
        1.0, ge=1e-6, description="divides the logits before sampling [C2 App. B: 1]", allow_inf_nan=False
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="share of probability that the most likely tokens keep [C2 App. B: 1]"
    )
    top_k: PositiveInt | None = Field(
        None, description="sample among so many most likely tokens; None: among all"
    )
    max_new_tokens: PositiveInt = Field(49_152, description="of an answer; of each one in a conversation")
    thinking_budget: PositiveInt | None = Field(
        None, description="tokens after which an open think block is closed for the model; None: no budget"
    )
    stop: tuple[Filled, ...] = Field((), description="texts that end an answer, beside the end of its turn")
    conversation: ConversationLimits = Field(
        ConversationLimits(), description="limits of conversations of several turns"
    )


class Rollout(Part):
    """Which engine samples answers, and how many at a time."""

    engine: Literal["native", "vllm"] = Field("native", description="vllm: needs the package and a GPU")
    max_batch_rows: PositiveInt = Field(256, description="answers the native engine computes side by side")
    vllm: VLLM = Field(VLLM(), description="settings of vLLM")
