"""Runs in vLLM's environment: its server as a child that ends with its parent, and a way for weights on CPUs.

    python kascade_vllm.py OPTIONS...        vLLM's own server with its own options

`--worker-extension-cls kascade_vllm.SharedMemoryWorker` makes the backend `shared_memory` known to vLLM: each
part of the weights is one safetensors file in memory that both processes see. Written for vllm 0.32.
"""

from __future__ import annotations

import ctypes
import runpy
import signal
import sys
from dataclasses import dataclass
from typing import Any

SERVER = "vllm.entrypoints.openai.api_server"
PR_SET_PDEATHSIG = 1
BACKEND = "shared_memory"


class SharedMemoryWorker:
    """Added to vLLM's worker. It has no methods: that its module is imported is enough."""


def main() -> None:
    """Become vLLM's server."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    sys.argv[0] = SERVER
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


def register() -> None:
    """Make the backend known. Called where a worker imports this module."""
    from safetensors.torch import load_file
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.model_executor.model_loader.reload import (
        finalize_layerwise_reload,
        initialize_layerwise_reload,
    )

    @dataclass
    class Begin(WeightTransferInitInfo):  # type: ignore[misc]
        """Nothing is agreed on beforehand."""

    @dataclass
    class Part(WeightTransferUpdateInfo):  # type: ignore[misc]
        """One file of weights."""

        path: str

    class Engine(WeightTransferEngine):  # type: ignore[misc]
        """Weights from files, by vLLM's layerwise reload."""

        init_info_cls, update_info_cls = Begin, Part

        def init_transfer_engine(self, init_info: Begin) -> None:
            """There is nothing to open."""

        def start_weight_update(self) -> None:
            initialize_layerwise_reload(self.model)

        def update_weights(self, update_info: dict[str, Any]) -> None:
            self.receive_weights(self.parse_update_info(update_info))  # no device to wait for

        def receive_weights(self, update_info: Part) -> None:
            self.model.load_weights(load_file(update_info.path).items())

        def finish_weight_update(self) -> None:
            finalize_layerwise_reload(self.model, self.model_config)

        def shutdown(self) -> None:
            """There is nothing to close."""

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, Engine)


if __name__ == "__main__":
    main()
elif __name__ == "kascade_vllm":  # as vLLM's worker names it
    register()
