"""As a program: bytes of the first of many processes that hold a model, counted on the meta device.

    python meta_bytes.py HUB_ID SHARD EXPERTS

A fake process group of the full size stands in for the others, and transformers' own plan cuts the tensors.
"""

from __future__ import annotations

import json
import sys

import torch
from torch import distributed
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from kascade.recipe.model_config import known_models


def count(hub: str, shard: int, experts: int) -> dict[str, int]:
    """Elements in all, and on this process."""
    distributed.init_process_group("fake", rank=0, world_size=shard, store=FakeStore())
    own = dict(known_models()[hub])
    config = CONFIG_MAPPING[own.pop("model_type")](**own)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    whole = sum(p.numel() for p in model.parameters())
    spread = DistributedConfig(fsdp_size=shard, ep_size=experts)
    spread, _, mesh = type(model).prepare_distribute_model(spread)
    model = type(model).maybe_distribute_model(model, spread, mesh)
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    return {"whole": whole, "local": sum(part.numel() for part in parts), "shards": len(parts)}


if __name__ == "__main__":
    print(json.dumps(count(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
