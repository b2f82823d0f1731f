"""Whether config.json and the weights beside it are of one model: the same sizes, told from headers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kascade.errors import Fault
from kascade.models.headers import EMBEDDINGS, SAVE_AGAIN, Shapes, layers_of

COUNTS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
AUTO = ("models/auto/configuration_auto.py", "models/auto/auto_mappings.py")  # of transformers


def size_faults(folder: Path, shapes: Shapes, config: Mapping[str, Any]) -> list[Fault]:
    """Sizes in config.json that are none, or that are not those of the weights. Light: no torch."""
    path = str(folder / "config.json")
    bad = [
        Fault(path, f"{name} is {config[name]!r}", "a whole number above 0", SAVE_AGAIN)
        for name in COUNTS
        if config.get(name) is not None and not _is_count(config[name])
    ]
    return bad or [
        Fault(path, f"{name} is {config[name]:,}, and the weights have {found:,}", remedy=SAVE_AGAIN)
        for name, found in _measured(shapes)
        if config.get(name) not in (None, found)
    ]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _measured(shapes: Shapes) -> Iterator[tuple[str, int]]:
    """Sizes by their names in config.json, as far as names of tensors tell."""
    tables = [shape for name, shape in shapes.items() if name.endswith(EMBEDDINGS) and len(shape) == 2]
    if len(tables) == 1:
        yield "vocab_size", tables[0][0]
        yield "hidden_size", tables[0][1]
    layers = layers_of(shapes)
    if layers:
        yield "num_hidden_layers", max(len(numbers) for numbers in layers.values())


def unknown_type(folder: Path, config: Mapping[str, Any]) -> list[Fault]:
    """A model_type that neither the installed transformers nor code of the model's own knows."""
    kind = str(config.get("model_type"))
    package = importlib.util.find_spec("transformers")
    if config.get("auto_map") or package is None or package.origin is None:
        return []
    files = [path for name in AUTO if (path := Path(package.origin).parent / name).exists()]
    if not files or any(f'"{kind}"' in path.read_text(encoding="utf-8") for path in files):
        return []
    what = f"model_type {kind!r} is none that the installed transformers knows"
    return [Fault(str(folder / "config.json"), what, remedy="check the name, or install a newer version")]
