"""A checkpoint as a folder that transformers, peft and vLLM read: a whole model, or an adapter alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.models.load import (
    check_model_folder,
    is_adapter,
    load_model,
    load_tokenizer,
    model_config,
    save_model,
)
from kascade.recipe.model_parts import PrecisionName
from kascade.storage.checkpoint import OUR_FILES
from kascade.storage.manifest import file_names


def write_whole(folder: Path, out: Path) -> None:
    """Write the model in `folder` to `out`; an adapter merged into its base, in the base's own precision.

    Raises UserError when the folder cannot be loaded.
    """
    if faults := check_model_folder(folder):
        raise UserError(faults)
    if is_adapter(folder):
        save_model(load_model(folder, precision=own_precision(folder)), load_tokenizer(folder), out)
    else:
        _copy(folder, out)


def write_adapter_alone(folder: Path, out: Path) -> None:
    """Copy the adapter in `folder` to `out`. Raises UserError when the folder holds a whole model."""
    if not is_adapter(folder):
        what = "holds a whole model, and no adapter"
        raise UserError(Fault(str(folder), what, remedy="export it whole, without --adapter"))
    _copy(folder, out)


def own_precision(folder: Path) -> PrecisionName:
    """In what the weights of a folder, or of its adapter's base, are kept."""
    config = model_config(folder)
    kept = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return "bf16" if kept.endswith("bfloat16") else "fp32"


def _copy(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in file_names(folder):
        if name not in OUR_FILES:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, out / name)
