"""Stages as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping

from kascade.recipe.schema import Stage, StageKind

KIND_TITLES: Mapping[StageKind, str] = {
    "sft": "SFT",
    "if_rl": "IF-RL",
    "multi_domain_rl": "Multi-domain RL",
    "mopd": "MOPD",
    "rlhf": "RLHF",
    "long_context_rl": "Long-context RL",
    "code_rl": "Code RL",
    "swe_rl": "SWE RL",
}


def stage_title(stage: Stage) -> str:
    """The stage's own title; that of its kind where the recipe gives none."""
    return stage.title or KIND_TITLES[stage.kind]
