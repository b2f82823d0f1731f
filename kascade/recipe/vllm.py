"""Sampling by vLLM: in the stage's own process, or behind a server that takes weights without a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.addresses import web_address
from kascade.recipe.checks import CrossCheckError, Problem, entries_of
from kascade.recipe.parts import Part

# What decides how weights travel and are watched, and no result: left out of every key.
NO_RESULTS = {"served": True, "canary": True}


class Canary(Part):
    """Fixed tokens that vLLM and the trainer both score after every hand-over of weights."""

    tokens: PositiveInt = Field(256, description="how many; drawn once from the whole vocabulary")
    rows: PositiveInt = Field(4, description="sequences that they are divided into")
    max_gap: PositiveFloat = Field(
        0.05,
        description="mean |log p(trainer) - log p(vLLM)| in nats beyond which the run stops; "
        "as limits.max_logprob_gap",
    )
    max_gap_fp32: PositiveFloat = Field(
        1e-3, description="the same where both compute in float32, which agree to 1e-6 (docs/distributed.md)"
    )


class ServedVLLM(Part):
    """A vLLM server that gets weights by vLLM's own transfer. Give either `url` or `python`."""

    url: Annotated[str | None, AfterValidator(web_address)] = Field(
        None, description="of a server that runs already, without /v1"
    )
    python: str | None = Field(
        None, description="the interpreter of vLLM's environment, with which a server is started here"
    )
    transfer: Literal["nccl", "shared_memory"] = Field(
        "nccl", description="shared_memory: files in memory of one machine, for servers without a GPU"
    )
    requests: PositiveInt = Field(256, description="answers that are asked for at once")
    timeout_s: PositiveFloat = Field(3600.0, description="of one request")
    start_timeout_s: PositiveFloat = Field(900.0, description="how long a started server may take")

    @model_validator(mode="after")
    def _names_one_server(self) -> ServedVLLM:
        if (self.url is None) == (self.python is None):
            what = "names no server" if self.url is None else "names two servers"
            remedy = "give either url (of a server that runs) or python (of vLLM's environment)"
            raise CrossCheckError([Problem(("url",), what, remedy=remedy, also=(("python",),))])
        return self


class VLLM(Part):
    """What the vLLM engine asks for, where it is chosen; names and meanings are vLLM's own."""

    tensor_parallel_size: PositiveInt = Field(1, description="GPUs that share the model")
    gpu_memory_utilization: float = Field(
        0.45, gt=0, lt=1, description="share of GPU memory; the rest is the trainer's"
    )
    max_model_len: PositiveInt | None = Field(None, description="None: the model's own")
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", description="precision of sampling")
    served: ServedVLLM | None = Field(
        None, description="a server outside of the stage's process; None: vLLM in it, by a folder"
    )
    canary: Canary = Field(Canary(), description="the check after every hand-over of weights")


def served_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """What does not go with a vLLM server, in a recipe given as JSON value."""
    model = _part(recipe, "model")
    rollout = _part(model, "rollout")
    if not _part(_part(rollout, "vllm"), "served"):
        return
    where = ("model", "rollout", "vllm", "served")
    if rollout.get("engine") != "vllm":
        yield Problem(("model", "rollout", "engine"), "the recipe names a vLLM server", allowed="vllm")
    if model.get("precision") in ("fp8", "nvfp4"):
        what = f"{model['precision']} layers are not handed over to a server"
        yield Problem(where, what, remedy="set model.precision to bf16, or leave `served` out")
    for stage in entries_of(recipe, "stages"):
        workers = stage.value.get("workers")
        if isinstance(workers, dict) and workers.get("samplers"):
            what = "the vLLM server samples for all stages"
            yield Problem((*stage.path, "workers", "samplers"), what, allowed="0")


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}
