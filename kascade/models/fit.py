"""Whether a model can do what a recipe asks of it; read from config.json, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kascade.errors import Fault
from kascade.models.adapter_targets import known_targets, target_faults
from kascade.models.fit_spread import spread_faults
from kascade.models.load import model_config
from kascade.models.long_context import long_context_faults
from kascade.recipe.adapter import Adapter
from kascade.recipe.schema import MoE, Recipe, Sampling
from kascade.recipe.shapes import shape_of

WITH_EXPERT_BIAS = ("nemotron_h",)


def fit_faults(folder: Path, recipe: Recipe) -> list[Fault]:
    """What the recipe asks for and the model in `folder` does not have. Light: no torch.

    Only for a folder without `check_model_folder` faults.
    """
    config = model_config(folder)
    faults = [
        *_stage_faults(config, recipe),
        *_adapter_faults(config, recipe),
        *spread_faults(config, recipe),
    ]
    if recipe.model.long_context is not None:
        faults += long_context_faults(config, recipe.model.long_context)
    if recipe.model.draft_tokens is not None:
        faults += _draft_faults(config, recipe)
    return faults


def _stage_faults(config: Mapping[str, Any], recipe: Recipe) -> Iterator[Fault]:
    for stage in recipe.stages:
        if stage.moe is not None:
            yield from _moe_faults(config, stage.moe, f"stages.{stage.name}.moe")
            if stage.moe.routing_replay and recipe.model.rollout.engine != "native":
                what = f"the engine {recipe.model.rollout.engine} does not record routing here"
                yield Fault(f"stages.{stage.name}.moe.routing_replay", what, allowed="false")
        if stage.mtp is not None and not num_draft_steps(config):
            where, what = f"stages.{stage.name}.mtp", "the model has no multi-token-prediction head to train"
            yield Fault(where, what, remedy="leave it out (config: num_nextn_predict_layers)")


def _adapter_faults(config: Mapping[str, Any], recipe: Recipe) -> Iterator[Fault]:
    """Targets that the model lacks; of a model that is not known here, loading it tells."""
    there = known_targets(config)
    for adapter, where in _adapters(recipe):
        if adapter.targets is not None and there is not None:
            yield from target_faults(config.get("model_type"), adapter.targets, there, f"{where}.targets")
        widths = _widths(config, adapter)
        if widths and adapter.rank > (most := max(widths.values())):
            what = f"the layers are at most {most} wide, and a product of matrices has no higher rank"
            yield Fault(f"{where}.rank", what, f"at most {most}", f"set {where}.rank to {most} or less")


def wide_ranks(folder: Path, recipe: Recipe) -> Iterator[Fault]:
    """Adapters with a higher rank than some of their layers can use; above all of them is an error."""
    config = model_config(folder)
    for adapter, where in _adapters(recipe):
        widths = _widths(config, adapter)
        narrow = {name: width for name, width in widths.items() if width < adapter.rank}
        if narrow and len(narrow) < len(widths):
            said = ", ".join(f"{name} ({width})" for name, width in narrow.items())
            what = (
                f"{adapter.rank} is more than some layers are wide, where it takes memory for nothing: {said}"
            )
            yield Fault(f"{where}.rank", what, remedy="lower it, or leave these layers out of `targets`")


def _adapters(recipe: Recipe) -> Iterator[tuple[Adapter, str]]:
    places = [(recipe.adapter, "adapter"), *((s.adapter, f"stages.{s.name}.adapter") for s in recipe.stages)]
    return ((adapter, where) for adapter, where in places if adapter is not None)


def _widths(config: Mapping[str, Any], adapter: Adapter) -> dict[str, int]:
    """The narrower side of each kind of layer that gets an adapter; empty for a model that is not known."""
    shape = shape_of(config)
    sizes = [one for layer in (shape.layers if shape else ()) for one in layer.linear.items()]
    wanted = [one for one in sizes if adapter.targets is None or one[0] in adapter.targets]
    return {name: min(size) for name, size in wanted}


def _moe_faults(config: Mapping[str, Any], moe: MoE, where: str) -> Iterator[Fault]:
    kind = config.get("model_type")
    if not has_experts(config):
        what = f"the model ({kind}) has no experts whose routing is known here"
        yield Fault(where, what, "nemotron_h with MoE layers, qwen3_moe", "leave it out")
    elif moe.expert_bias_rate > 0 and kind not in WITH_EXPERT_BIAS:
        what = f"the routers of a {kind} model have no bias to balance loads with"
        yield Fault(f"{where}.expert_bias_rate", what, allowed="0")


def _draft_faults(config: Mapping[str, Any], recipe: Recipe) -> Iterator[Fault]:
    where = "model.draft_tokens"
    if num_draft_steps(config) != 1 or "mamba" in draft_pattern(config):
        what = (
            "drafting takes a model with a multi-token-prediction head of one step and no Mamba layer in it"
        )
        yield Fault(where, what, remedy="leave it out (config: num_nextn_predict_layers)")
    if recipe.model.rollout.engine != "native":
        what = f"the engine {recipe.model.rollout.engine} drafts by its own settings, not by this one"
        yield Fault(where, what, remedy="leave out draft_tokens, or sample with the native engine")
    for stage in recipe.stages:
        if stage.moe is not None and stage.moe.routing_replay:
            what = f"stage {stage.name!r} replays routing, which drafted tokens do not record"
            yield Fault(where, what, remedy="leave out draft_tokens or moe.routing_replay")
    for name, sampling in _samplings(recipe):
        if sampling.thinking_budget is not None:
            what = f"{name} has a thinking budget, whose end cannot be drafted"
            yield Fault(where, what, remedy="leave out draft_tokens or thinking_budget")


def _samplings(recipe: Recipe) -> Iterator[tuple[str, Sampling]]:
    """How each stage that samples, and each benchmark, does it."""
    for stage in recipe.stages:
        if (sampling := stage.answers_by()) is not None:
            yield f"stage {stage.name!r}", sampling
    for benchmark in recipe.benchmarks:
        yield f"benchmark {benchmark.name!r}", benchmark.sampling


def has_experts(config: Mapping[str, Any]) -> bool:
    """Whether a config.json describes experts that `kascade.models.routing` knows."""
    if config.get("model_type") == "qwen3_moe":
        return True
    named = config.get("layers_block_type") or list(config.get("hybrid_override_pattern") or "")
    return config.get("model_type") == "nemotron_h" and any(block in ("moe", "E") for block in named)


def num_draft_steps(config: Mapping[str, Any]) -> int:
    """Steps of the multi-token-prediction head; 0 where there is none that Kascade knows."""
    return int(config.get("num_nextn_predict_layers") or 0) if config.get("model_type") == "nemotron_h" else 0


def draft_pattern(config: Mapping[str, Any]) -> set[str]:
    """Kinds of layers of the head, in either spelling; "mamba" stands for all names of it."""
    named = config.get("mtp_layers_block_type") or list(config.get("mtp_hybrid_override_pattern") or "")
    return {"mamba" if block in ("M", "mamba", "linear_attention") else str(block) for block in named}
