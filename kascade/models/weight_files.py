"""The files that hold a model's weights: one, or shards that an index names."""

from __future__ import annotations

import json
from pathlib import Path

from kascade.errors import Fault

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def weight_map(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the index of a model in shards. Raises ValueError for one that is none."""
    index = json.loads((folder / WEIGHTS_INDEX).read_text(encoding="utf-8"))
    found = index.get("weight_map") if isinstance(index, dict) else None
    names = found.values() if isinstance(found, dict) else []
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise ValueError("is no index of weights: `weight_map` must name a file of this folder per tensor")
    return dict(found or {})


def weight_faults(folder: Path) -> list[Fault]:
    """Weights of a model's folder that are not there, or that nobody should load. Light: no torch."""
    if (folder / WEIGHTS).exists():
        return []
    index = folder / WEIGHTS_INDEX
    if index.exists():
        remedy = "copy or download the whole model again"
        try:
            shards = sorted(set(weight_map(folder).values()))
        except ValueError as error:
            return [Fault(str(index), str(error), remedy=remedy)]
        absent = [folder / name for name in shards if not (folder / name).exists()]
        return [Fault(str(path), "does not exist", remedy=remedy) for path in absent]
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    what = f"has pickled weights only ({', '.join(pickles)})" if pickles else "has no weights"
    remedy = "load it where you trust it and save it again: model.save_pretrained(FOLDER)"
    return [Fault(str(folder), what, f"{WEIGHTS}, or shards with {WEIGHTS_INDEX}", remedy)]
