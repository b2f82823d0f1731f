"""Load, save and check Hugging Face model folders: safetensors only, no remote code."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kascade.errors import CheckpointError, Fault, UserError
from kascade.models.adapter_targets import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from kascade.models.low_precision import apply_precision, precision_faults
from kascade.models.mesh import distributed_config, rank, shared_mesh, world
from kascade.models.precision import dtype_of
from kascade.models.weight_files import weight_faults
from kascade.recipe.parallel import Parallel
from kascade.recipe.schema import LowPrecision, PrecisionName
from kascade.storage.checkpoint import MANIFEST, base_of, damage, is_manifest, open_checkpoint
from kascade.storage.files import expanded, is_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUILTIN_SCHEME = "builtin://"
BUILTIN_ROOT = Path(__file__).parent / "builtin"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
SHOWN = 5  # names of weights in one error
# Heads that transform the logits after the projection; `logprobs.head_logprobs` does not repeat that.
LOGIT_TRANSFORMS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def resolve_source(source: str) -> Path:
    """The folder behind `builtin://NAME`, a local path, or a hub id (downloaded and cached).

    Raises UserError when there is no such model.
    """
    if source.startswith(BUILTIN_SCHEME):
        return _builtin_folder(source)
    if faults := source_faults(source):
        raise UserError(faults)
    folder = expanded(source)
    return folder.resolve() if is_folder(folder) else _download(source)


def source_faults(source: str) -> list[Fault]:
    """Why a source names no model, as far as this machine can tell: a hub id may."""
    if source.startswith(BUILTIN_SCHEME):
        try:
            _builtin_folder(source)
        except UserError as error:
            return list(error.faults)
        return []
    looks_like_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    if looks_like_hub_id or is_folder(expanded(source)):
        return []
    remedy = "give an existing folder, a hub id (ORGANISATION/NAME) or a builtin model"
    return [Fault("model.source", f"{source[:200]!r} is not a folder", _builtin_names(), remedy)]


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
    if is_adapter(folder):
        return _adapter_faults(folder)
    faults = _config_faults(folder / "config.json") + weight_faults(folder) + _manifest_faults(folder)
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        remedy = "save the tokenizer into the same folder: tokenizer.save_pretrained(FOLDER)"
        faults.append(Fault(str(folder), "has no tokenizer", " or ".join(TOKENIZER_FILES), remedy))
    return faults


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and no whole model."""
    return (folder / ADAPTER_CONFIG).exists() and not (folder / "config.json").exists()


def _adapter_faults(folder: Path) -> list[Fault]:
    if not (folder / ADAPTER_WEIGHTS).exists():
        return [Fault(str(folder / ADAPTER_WEIGHTS), "does not exist")]
    try:
        return _manifest_faults(folder) or check_model_folder(base_of(folder)[1])
    except CheckpointError as error:
        remedy = "give a checkpoint of a run, or merge the adapter into its base first"
        return [Fault(str(folder), str(error), remedy=remedy)]


def model_config(folder: Path) -> dict[str, Any]:
    """config.json of the model in `folder`, an adapter's base included. Raises CheckpointError."""
    whole = base_of(folder)[1] if is_adapter(folder) else folder
    found: dict[str, Any] = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    return found


def _manifest_faults(folder: Path) -> list[Fault]:
    """What a checkpoint's manifest, where there is one beside the model, says about changed files."""
    try:
        manifest = open_checkpoint(folder)[1] if is_manifest(folder / MANIFEST) else None
        problem = damage(folder, manifest) if manifest else None
    except CheckpointError as error:
        return [Fault(str(folder), str(error))]
    remedy = f"copy the checkpoint anew; for a model that you changed on purpose, remove its {MANIFEST}"
    return [Fault(str(folder), problem, remedy=remedy)] if problem else []


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


def load_model(
    folder: Path,
    *,
    device: torch.device | str | None = None,
    precision: PrecisionName | None = None,
    low_precision: LowPrecision | None = None,
    parallel: Parallel | None = None,
    trained: bool = False,
    rests: bool = False,
) -> PreTrainedModel:
    """The causal language model in `folder`, in eval mode, with its draft head where it has one.

    An adapter is merged into its base, so that the model is whole.
    device None: CUDA where there is one. precision None: fp32 on CPU, bf16 elsewhere. parallel: spread the
    weights over the processes that have met, where there are several; None: all of them here. trained: then
    the shards are float32 masters, whatever the precision of computing. rests: they lie in the host's memory.
    Raises UserError with every fault of the folder, and where this machine lacks the precision, at once.
    """
    import torch

    low = low_precision or LowPrecision()
    if faults := [*check_model_folder(folder), *precision_faults(precision, low)]:
        raise UserError(faults)
    if is_adapter(folder):
        if parallel is not None and world() > 1:
            what = "holds an adapter, which several processes do not merge"
            remedy = "train its stage with adapter.at_end: merge, or go on training the adapter"
            raise UserError(Fault(str(folder), what, remedy=remedy))
        return _merged(folder, device=device, precision=precision, low_precision=low)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _silence_missing_kernels(target)
    dtype = dtype_of(precision, target)
    mesh: dict[str, Any] = {}
    if parallel is not None and world() > 1:
        half = trained and dtype == torch.bfloat16
        mesh = {"distributed_config": distributed_config(parallel, half=half, rests=rests)}
        dtype = torch.float32 if half else dtype
    model = _read(folder, dtype, mesh)
    if mesh:
        return model.eval()
    model = model.to(target).eval()
    apply_precision(model, precision, low)
    return model


def _read(folder: Path, dtype: torch.dtype, mesh: Mapping[str, Any]) -> PreTrainedModel:
    """The model with its draft head. Raises UserError when the folder lacks some of its weights."""
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel
    with shared_mesh() if mesh else nullcontext():
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **mesh,
        )
    if missing := sorted(loaded["missing_keys"]):  # transformers would train them from random numbers
        what = f"lacks weights that the model has: {', '.join(missing[:SHOWN])} ({len(missing)} in all)"
        raise UserError(Fault(str(folder), what, remedy="save the whole model again with save_pretrained"))
    if getattr(model.config, "num_nextn_predict_layers", 0):
        from kascade.models.mtp import load_mtp_head

        load_mtp_head(model, folder)
    embeddings: Any = model.get_input_embeddings()
    embeddings.padding_idx = None  # a padding token within a text learns as any other, on every path
    return model


def empty_model(folder: Path) -> PreTrainedModel:
    """The model in `folder` without weights: its config and its layers on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if faults := check_model_folder(folder):
        raise UserError(faults)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


def _merged(folder: Path, **how: Any) -> PreTrainedModel:
    from kascade.models.adapters import merge_adapter, read_adapter

    model = load_model(base_of(folder)[1], **how)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    read_adapter(model, folder)
    merge_adapter(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
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

    Weights have the names and the layout they came with, whatever layers computed with them; an adapter is
    merged into what is written, and stays apart in `model`. All processes that share a spread model must call
    it; the first one writes.
    """
    from kascade.models.adapters import has_adapter, merge_adapter, sharing_copy
    from kascade.models.seams import is_sharded
    from kascade.models.transformer_engine import is_swapped, plain_state_dict

    if is_sharded(model):
        from kascade.models.export import export_model

        export_model(model, folder)
        if rank() == 0:
            tokenizer.save_pretrained(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    if has_adapter(model):
        model = sharing_copy(model)
        merge_adapter(model)
    model.save_pretrained(folder, state_dict=plain_state_dict(model) if is_swapped(model) else None)
    tokenizer.save_pretrained(folder)
