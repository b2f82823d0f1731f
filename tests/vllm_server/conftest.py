"""vLLM's server on a CPU, in an environment of its own. Skipped loudly where that was not built."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_cascade import ENVIRONMENTS, make_tokenizer
from transformers import AutoModelForCausalLM, PretrainedConfig, Qwen3Config, Qwen3MoeConfig

from kascade.environments import BUILTIN
from kascade.recipe.schema import Rollout
from kascade.rollout import vllm_process

OUTSIDE = Path(os.environ.get("KASCADE_OUTSIDE", Path(__file__).parents[2] / "build" / "outside"))
COMMON: dict[str, Any] = {
    "vocab_size": 13, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.2, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True,
}  # fmt: skip
LONGEST = 64  # tokens that the servers take


@pytest.fixture(autouse=True)
def toy_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's environments are registered as a user's would be."""
    for name, place in ENVIRONMENTS.items():
        monkeypatch.setitem(BUILTIN, name, place)


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter of vLLM's environment."""
    python = OUTSIDE / "vllm" / "bin" / "python"
    if not python.exists():
        pytest.skip("vLLM was not run: build its environment with `make vllm` (KASCADE_OUTSIDE names it)")
    return str(python)


@pytest.fixture(scope="session")
def rollout(vllm_python: str) -> Iterator[Rollout]:
    """What a recipe says of a vLLM server on this machine; servers that it started end with the session."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    served = {"python": vllm_python, "transfer": "shared_memory", "start_timeout_s": 400.0}
    canary = {"max_gap_fp32": 1e-5, "tokens": 64, "rows": 2}
    settings = {"max_model_len": LONGEST, "dtype": "float32", "served": served, "canary": canary}
    yield Rollout.model_validate({"engine": "vllm", "vllm": settings})
    for started in list(vllm_process._started.values()):
        vllm_process.end_server(started)


def save_model(folder: Path, config: PretrainedConfig) -> Path:
    """A model folder with weights of chance and the toy's tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("dense"), Qwen3Config(**COMMON))


@pytest.fixture(scope="session")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("experts"), Qwen3MoeConfig(**COMMON, **EXPERTS))
