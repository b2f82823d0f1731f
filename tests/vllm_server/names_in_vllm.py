"""Runs in vLLM's environment: prints as JSON what it finds of every name that Kascade leans on."""

from __future__ import annotations

import inspect
import json
from typing import Any

from vllm import LLM, SamplingParams
from vllm.config import WeightTransferConfig
from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
from vllm.distributed.weight_transfer import base, factory, nccl_common, nccl_engine
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.rl.online.api_router import router
from vllm.entrypoints.serve.dev.cache.api_router import router as cache
from vllm.entrypoints.serve.dev.server_info.api_router import router as told
from vllm.model_executor.model_loader import reload


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def fields(kind: Any) -> list[str]:
    return list(getattr(kind, "__dataclass_fields__", None) or kind.model_fields)


engine = base.WeightTransferEngine
found = {
    "abstract": sorted(engine.__abstractmethods__),
    "engine": [name for name in ("parse_update_info", "update_weights") if hasattr(engine, name)],
    "engine holds": inspect.getsource(engine.__init__),
    "register": parameters(factory.WeightTransferEngineFactory.register_engine),
    "registered": sorted(factory.WeightTransferEngineFactory._registry),
    "begin reload": parameters(reload.initialize_layerwise_reload),
    "end reload": inspect.getsource(nccl_engine.NCCLWeightTransferEngine.finish_weight_update),
    "nccl begin": fields(nccl_common.NCCLWeightTransferInitInfo),
    "nccl part": fields(nccl_engine.NCCLWeightTransferUpdateInfo),
    "nccl first": inspect.getsource(PyNcclCommunicator),
    "nccl receives": inspect.getsource(nccl_engine.NCCLWeightTransferEngine.receive_weights),
    "routes": sorted(route.path for one in (router, cache, told) for route in one.routes),
    "finish": parameters(next(r.endpoint for r in router.routes if r.path == "/finish_weight_update")),
    "completion": fields(CompletionRequest),
    "options": fields(AsyncEngineArgs),
    "transfer": fields(WeightTransferConfig),
    "sampling": parameters(SamplingParams),
    "llm": [name for name in ("generate", "collective_rpc", "reset_prefix_cache") if hasattr(LLM, name)],
}
print(json.dumps(found))
