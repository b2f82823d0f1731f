"""Every young name of vLLM that Kascade leans on: a new version fails here first."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def names(vllm_python: str) -> dict[str, Any]:
    script = Path(__file__).with_name("names_in_vllm.py")
    done = subprocess.run([vllm_python, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_an_engine_of_ones_own_is_written_as_ours(names: dict[str, Any]) -> None:
    written = {
        "init_transfer_engine", "start_weight_update", "receive_weights", "finish_weight_update", "shutdown"
    }  # fmt: skip
    assert set(names["abstract"]) <= written
    assert names["engine"] == ["parse_update_info", "update_weights"]
    assert "self.model = model" in names["engine holds"] and "self.model_config" in names["engine holds"]
    assert names["register"][:2] == ["name", "module_path_or_cls"]
    assert names["begin reload"] == ["model"]
    assert "finalize_layerwise_reload(self.model, self.model_config)" in names["end reload"]


def test_nccl_is_joined_by_a_unique_id_without_vllm(names: dict[str, Any]) -> None:
    assert {"nccl_unique_id_b64", "rank_offset", "world_size", "packed"} <= set(names["nccl begin"])
    assert set(names["nccl part"]) == {"names", "dtype_names", "shapes"}
    assert "data = torch.zeros(1, device=device)" in names["nccl first"]  # the first all-reduce: float32
    assert "self.model_update_group.broadcast" in names["nccl receives"]
    assert "nccl" in names["registered"]


def test_a_server_has_the_routes_and_options(names: dict[str, Any]) -> None:
    routes = (
        "init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update",
        "weight_info", "get_world_size", "reset_prefix_cache", "server_info",
    )  # fmt: skip
    assert {f"/{route}" for route in routes} <= set(names["routes"])
    assert "weight_version" in names["finish"] and names["transfer"] == ["backend"]
    assert {
        "logprobs_mode", "load_format", "weight_transfer_config", "worker_extension_cls", "enforce_eager"
    } <= set(names["options"])  # fmt: skip


def test_requests_and_samples_have_their_fields(names: dict[str, Any]) -> None:
    asked = {
        "prompt", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stop_token_ids",
        "ignore_eos", "include_stop_str_in_output", "logprobs", "prompt_logprobs", "return_token_ids",
    }  # fmt: skip
    assert asked <= set(names["completion"])
    assert asked - {"prompt", "return_token_ids"} <= set(names["sampling"])
    assert names["llm"] == ["generate", "collective_rpc", "reset_prefix_cache"]
