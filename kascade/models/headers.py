"""What weights hold, read from the headers of their safetensors files. Nothing is loaded. Light: no torch.

A safetensors file is eight bytes with the header's length, the header as JSON, then the tensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kascade.errors import Fault
from kascade.models.weight_files import WEIGHTS, WEIGHTS_INDEX, weight_map

LFS_POINTER = b"version https://git-lfs"
LENGTH_BYTES = 8
LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself
COPY_AGAIN = "copy or download the file again"
FETCH_LFS = "fetch the real file: git lfs pull"
SAVE_AGAIN = "save the whole model again: model.save_pretrained(FOLDER)"
SHOWN = 5  # names of tensors in one error
LAYER = re.compile(r"^(?P<prefix>.*?layers)\.(?P<number>\d+)\.(?P<rest>.+)$")
EMBEDDINGS = ("embed_tokens.weight", "embeddings.weight", "wte.weight", "embed_in.weight")
# Types whose layers of one kind all have the same tensors.
REGULAR = frozenset({"llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "nemotron_h"})

Shapes = Mapping[str, tuple[int, ...]]


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in a safetensors file. Raises ValueError, which says what is wrong with it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise ValueError("is a Git LFS pointer, not the weights")
        file.seek(0)
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > LONGEST_HEADER:
            raise ValueError(f"is not a safetensors file ({size:,} bytes)")
        if LENGTH_BYTES + length > size:
            raise ValueError(
                f"is cut: the header alone needs {LENGTH_BYTES + length:,} bytes, {size:,} are there"
            )
        try:
            header = json.loads(file.read(length))
            found = {name: part for name, part in header.items() if name != "__metadata__"}
            ends = [int(part["data_offsets"][1]) for part in found.values()]
            shapes = {name: tuple(map(int, part["shape"])) for name, part in found.items()}
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(f"has no readable header: {error}") from error
    wanted = LENGTH_BYTES + length + max(ends, default=0)
    if size != wanted:
        state = "is cut" if size < wanted else "is longer than its header says"
        raise ValueError(f"{state}: {wanted:,} bytes are expected, {size:,} are there")
    return shapes


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights of a model: one, or the shards that the index names."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    return [folder / name for name in sorted(set(weight_map(folder).values()))]


def read_shapes(folder: Path) -> tuple[dict[str, tuple[int, ...]], list[Fault]]:
    """Shape of each tensor of a model, and the errors of files that cannot be read."""
    shapes: dict[str, tuple[int, ...]] = {}
    faults: list[Fault] = []
    for path in weight_files(folder):
        try:
            shapes |= read_header(path)
        except ValueError as error:
            remedy = FETCH_LFS if "Git LFS" in str(error) else COPY_AGAIN
            faults.append(Fault(str(path), str(error), remedy=remedy))
        except OSError as error:
            faults.append(Fault(str(path), f"cannot be read: {error.strerror}", remedy=COPY_AGAIN))
    return shapes, faults


def tensor_faults(folder: Path, shapes: Shapes, config: Mapping[str, Any]) -> list[Fault]:
    """Tensors that the index or the config names and that no file of the folder holds."""
    lacking = list(dict.fromkeys([*_indexed(folder, shapes), *_expected(shapes, config)]))
    if not lacking:
        return []
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    what = f"lacks tensors: {', '.join(lacking[:SHOWN])}{more}"
    return [Fault(str(folder), what, remedy=SAVE_AGAIN)]


def embedding_rows(shapes: Shapes, config: Mapping[str, Any]) -> int | None:
    """How many tokens the model has an embedding for; None where neither weights nor config say so."""
    rows = [shape[0] for name, shape in shapes.items() if name.endswith(EMBEDDINGS) and shape]
    if rows:
        return max(rows)
    found = config.get("vocab_size")
    return found if isinstance(found, int) else None


def _indexed(folder: Path, shapes: Shapes) -> Iterator[str]:
    index = folder / WEIGHTS_INDEX
    if index.exists() and not (folder / WEIGHTS).exists():
        yield from sorted(name for name in weight_map(folder) if name not in shapes)


def _expected(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[str]:
    """What a model of this config has beside `shapes`, as far as its own layers tell."""
    if config.get("model_type") not in REGULAR:
        return
    if not any(name.endswith(EMBEDDINGS) for name in shapes):
        yield "the embeddings of tokens"
    if config.get("tie_word_embeddings") is False and not any(n.endswith("lm_head.weight") for n in shapes):
        yield "lm_head.weight"
    layers = layers_of(shapes)
    if not layers:
        yield "every layer"
        return
    prefix = max(layers, key=lambda name: len(layers[name]))
    found, kinds = layers[prefix], _kinds(config)
    yield from (f"{prefix}.{number}.*" for number in range(len(kinds)) if number not in found)
    for number, names in sorted(found.items()):
        kind = _kind(kinds, number, names)
        alike = [other for place, other in found.items() if _kind(kinds, place, other) == kind]
        usual = {name for other in alike for name in other}
        for name in sorted(usual - names):
            if 2 * sum(name in other for other in alike) >= len(alike):
                yield f"{prefix}.{number}.{name}"


def layers_of(shapes: Shapes) -> dict[str, dict[int, set[str]]]:
    """Names of tensors of each layer, by the prefix of the stack they belong to."""
    layers: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in shapes:
        if match := LAYER.match(name):
            layers[match["prefix"]][int(match["number"])].add(match["rest"])
    return layers


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """The kind of each layer, where the config distinguishes several."""
    named = config.get("layers_block_type") or list(config.get("hybrid_override_pattern") or "")
    number = config.get("num_hidden_layers")
    return list(map(str, named)) or [""] * (number if isinstance(number, int) else 0)


def _kind(kinds: list[str], number: int, names: set[str]) -> tuple[str, bool]:
    """Layers of one kind have the same tensors: the block's type, and whether it has experts."""
    block = kinds[number] if number < len(kinds) else ""
    return block, any(".experts." in name for name in names)
