"""Load, save and check Hugging Face model folders: safetensors only, no remote code."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kascade.errors import Fault, UserError
from kascade.models.precision import apply_precision, dtype_of, precision_faults
from kascade.recipe.schema import LowPrecision, PrecisionName

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUILTIN_SCHEME = "builtin://"
BUILTIN_ROOT = Path(__file__).parent / "builtin"
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Heads that transform the logits after the projection; `logprobs.head_logprobs` does not repeat that.
LOGIT_TRANSFORMS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def resolve_source(source: str) -> Path:
    """The folder behind `builtin://NAME`, a local path, or a hub id (downloaded and cached).

    Raises UserError when there is no such model.
    """
    if source.startswith(BUILTIN_SCHEME):
        return _builtin_folder(source)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    looks_like_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    if not looks_like_hub_id:
        remedy = "give an existing folder, a hub id (ORGANISATION/NAME) or a builtin model"
        raise UserError(Fault("model.source", f"{source!r} is not a folder", _builtin_names(), remedy))
    return _download(source)


def _builtin_names() -> str:
    found = sorted(folder.name for folder in BUILTIN_ROOT.glob("*") if folder.is_dir())
    return ", ".join(BUILTIN_SCHEME + name for name in found)


def _builtin_folder(source: str) -> Path:
    folder = BUILTIN_ROOT / source.removeprefix(BUILTIN_SCHEME)
    if folder.parent != BUILTIN_ROOT or not folder.is_dir():
        raise UserError(Fault("model.source", f"{source!r} does not exist", _builtin_names()))
    return folder


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # the hub client raises errors of several libraries; all mean the same here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "check the id, the network and HF_TOKEN, or give a local folder"
        raise UserError(
            Fault("model.source", f"{hub_id!r} cannot be fetched: {reason}", remedy=remedy)
        ) from error


def check_model_folder(folder: Path) -> list[Fault]:
    """What keeps `folder` from being loaded; empty when nothing does. Light: no torch."""
    if not folder.is_dir():
        return [Fault(str(folder), "is not a folder", remedy="give the folder that save_pretrained wrote")]
    faults = _config_faults(folder / "config.json") + _weight_faults(folder)
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        remedy = "save the tokenizer into the same folder: tokenizer.save_pretrained(FOLDER)"
        faults.append(Fault(str(folder), "has no tokenizer", " or ".join(TOKENIZER_FILES), remedy))
    return faults


def _config_faults(path: Path) -> list[Fault]:
    if not path.exists():
        return [Fault(str(path), "does not exist", remedy="save the model with save_pretrained")]
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return [Fault(str(path), f"is not JSON: {error}")]
    if not isinstance(config, dict) or not config.get("model_type"):
        return [Fault(str(path), "has no model_type", remedy="save the model with save_pretrained")]
    return [
        Fault(str(path), f"{name} = {config[name]} is not supported: log-probabilities would be wrong")
        for name in LOGIT_TRANSFORMS
        if config.get(name) not in (None, 1, 1.0)
    ]


def _weight_faults(folder: Path) -> list[Fault]:
    if (folder / WEIGHTS).exists():
        return []
    index = folder / WEIGHTS_INDEX
    if index.exists():
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [
            Fault(str(folder / name), "does not exist") for name in shards if not (folder / name).exists()
        ]
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    what = f"has pickled weights only ({', '.join(pickles)})" if pickles else "has no weights"
    remedy = "load it where you trust it and save it again: model.save_pretrained(FOLDER)"
    return [Fault(str(folder), what, f"{WEIGHTS}, or shards with {WEIGHTS_INDEX}", remedy)]


def load_model(
    folder: Path,
    *,
    device: torch.device | str | None = None,
    precision: PrecisionName | None = None,
    low_precision: LowPrecision | None = None,
) -> PreTrainedModel:
    """The causal language model in `folder`, in eval mode, with its draft head where it has one.

    device None: CUDA where there is one. precision None: fp32 on CPU, bf16 elsewhere. Raises UserError with
    every fault of the folder, and where this machine lacks the precision, before anything is loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    low = low_precision or LowPrecision()
    if faults := [*check_model_folder(folder), *precision_faults(precision, low)]:
        raise UserError(faults)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _silence_missing_kernels(target)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype_of(precision, target),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    if getattr(model.config, "num_nextn_predict_layers", 0):
        from kascade.models.mtp import load_mtp_head

        load_mtp_head(model, folder)
    model = model.to(target).eval()
    apply_precision(model, precision, low)
    return model


def _silence_missing_kernels(device: torch.device) -> None:
    """On CPU no Mamba kernel exists, so advice to install one would only confuse."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if device.type == "cpu":
        logging.getLogger("transformers.integrations.hub_kernels").addFilter(_is_not_kernel_advice)


def _is_not_kernel_advice(record: logging.LogRecord) -> bool:
    return "falling back to its reference PyTorch implementation" not in record.getMessage()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. Raises UserError when it has no end-of-sequence token."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if tokenizer.eos_token_id is None:
        remedy = 'set it: tokenizer.eos_token = "..."; tokenizer.save_pretrained(FOLDER)'
        raise UserError(Fault(str(folder), "the tokenizer has no end-of-sequence token", remedy=remedy))
    result: PreTrainedTokenizerBase = tokenizer
    return result


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights, config, generation config, tokenizer and chat template; `from_pretrained` loads it.

    Weights have the names and the layout they came with, whatever layers computed with them.
    """
    from kascade.models.transformer_engine import is_swapped, plain_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, state_dict=plain_state_dict(model) if is_swapped(model) else None)
    tokenizer.save_pretrained(folder)
