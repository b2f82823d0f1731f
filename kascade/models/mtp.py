"""Multi-token prediction of `nemotron_h`: the head that transformers drops, loaded, trained, saved.

One step of the head takes, at position i, the backbone's final hidden state h_i and the embedding of the
token at i + 1, and predicts the token at i + 2 through the backbone's own output layer:

    x_i = eh_proj [enorm(embed(t_{i+1})); hnorm(h_i)],  blocks of mtp_layers_block_type,  final_layernorm

(arXiv 2512.20856 §2.3). Its own output stands in for h_{i+1} to look one token further. Weights are named
as in NVIDIA's checkpoints and Megatron-Bridge: the blocks of step s of length L are mtp.layers.{s L ... s L +
L - 1}, the first also holds enorm, hnorm and eh_proj, the last final_layernorm.
"""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHBlock, NemotronHRMSNorm

from kascade.models.logprobs import head_logprobs
from kascade.models.mesh import spread_module
from kascade.models.seams import is_sharded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFIX = "mtp."
WEIGHTS_INDEX = "model.safetensors.index.json"
log = logging.getLogger(__name__)


class MTPHead(nn.Module):
    """`num_nextn_predict_layers` steps; those looked further ahead than there are steps reuse the last."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.pattern: list[str] = list(config.mtp_layers_block_type)
        self.num_steps: int = config.num_nextn_predict_layers
        self.config = copy.deepcopy(config)
        self.config.layers_block_type = self.pattern * self.num_steps
        size, eps = config.hidden_size, config.layer_norm_epsilon
        self.layers = nn.ModuleList()
        for index in range(len(self.config.layers_block_type)):
            block: Any = NemotronHBlock(self.config, index)
            # The first block of a step takes embedding and state together, the last one ends it.
            if index % len(self.pattern) == 0:
                block.enorm, block.hnorm = NemotronHRMSNorm(size, eps=eps), NemotronHRMSNorm(size, eps=eps)
                block.eh_proj = nn.Linear(2 * size, size, bias=False)
            if (index + 1) % len(self.pattern) == 0:
                block.final_layernorm = NemotronHRMSNorm(size, eps=eps)
            self.layers.append(block)

    def forward(
        self, embeddings: Tensor, hidden: Tensor, *, step: int = 0, cache: Any | None = None
    ) -> Tensor:
        """Hidden states [B, T, H] for the output layer, from embeddings of the next tokens and hidden states.

        step: how many tokens beyond the next but one. cache: a `DynamicCache` of this head's config, one
        step's use only; None: the whole sequence is given.
        """
        start = min(step, self.num_steps - 1) * len(self.pattern)
        blocks: list[Any] = list(self.layers[start : start + len(self.pattern)])
        x = blocks[0].eh_proj(torch.cat([blocks[0].enorm(embeddings), blocks[0].hnorm(hidden)], dim=-1))
        # Mamba and MLP blocks take no mask; making one costs as much as a small layer.
        mask = None
        if "full_attention" in self.pattern:
            mask = create_causal_mask(
                config=self.config, inputs_embeds=x, attention_mask=None, past_key_values=cache
            )
        for block in blocks:
            attention = mask if block.block_type == "full_attention" else None
            x = block(x, attention_mask=attention, past_key_values=cache, use_cache=cache is not None)
        result: Tensor = blocks[-1].final_layernorm(x)
        return result


def mtp_head(model: PreTrainedModel) -> MTPHead | None:
    """The model's head, None when it has none."""
    head = getattr(model, "mtp", None)
    return head if isinstance(head, MTPHead) else None


def add_mtp_head(model: PreTrainedModel) -> MTPHead:
    """A new head, drawn as the model's own weights are, for a config with num_nextn_predict_layers > 0."""
    head = MTPHead(model.config)
    head.apply(model._init_weights)
    return _attach(model, head)


def load_mtp_head(model: PreTrainedModel, folder: Path) -> MTPHead | None:
    """Give the model the head that its checkpoint in `folder` holds; None when it holds none.

    A config that promises a head without weights is corrected, so that what is saved is consistent.
    Raises RuntimeError when weights and config do not fit.
    """
    promised = getattr(model.config, "num_nextn_predict_layers", 0) or 0
    if not promised or model.config.model_type != "nemotron_h":
        return None
    weights = _read_weights(folder)
    if not weights:
        log.warning("%s: num_nextn_predict_layers is %d, but there are no mtp weights", folder, promised)
        model.config.num_nextn_predict_layers = 0
        return None
    head = MTPHead(model.config)
    head.load_state_dict(weights, strict=True)
    return _attach(model, head)


@dataclass(frozen=True, slots=True)
class MTPScores:
    """Of one look-ahead: log-probability of each token that it predicts [n], and which of the N scored tokens
    those are [N] bool."""

    logprobs: Tensor
    predicted: Tensor


def mtp_scores(
    model: PreTrainedModel,
    input_ids: Tensor,
    scored: Tensor,
    hidden: Tensor,
    *,
    depth: int,
    train_backbone: bool,
) -> list[MTPScores]:
    """How the head predicts scored tokens, for look-aheads of 1 ... depth tokens beyond the next one.

    input_ids, scored: [B, T]; hidden: [B, T, H], the backbone's states after its final norm. A scored token
    with fewer tokens before it than a look-ahead needs is not among its predictions. train_backbone false:
    no gradient reaches the backbone, its embeddings or the output layer. Raises ValueError without a head.
    """
    head = mtp_head(model)
    if head is None:
        raise ValueError("the model has no multi-token-prediction head")
    embeddings: Tensor = model.get_input_embeddings()(input_ids)
    if not train_backbone:
        hidden, embeddings = hidden.detach(), embeddings.detach()
    position = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    found = []
    for ahead in range(1, min(depth, input_ids.shape[1] - 2) + 1):
        hidden = head(embeddings[:, ahead:], hidden[:, :-1], step=ahead - 1)
        mask = scored[:, ahead + 1 :]  # state i predicts token i + 1 + ahead
        targets = input_ids[:, ahead + 1 :][mask]
        # Without the backbone the output layer is held, too: the head must not pull the policy.
        scores = head_logprobs(model, hidden[:, :-1][mask], targets, train_head=train_backbone)
        found.append(MTPScores(scores.logprobs, (position > ahead)[scored]))
    return found


def _attach(model: PreTrainedModel, head: MTPHead) -> MTPHead:
    """As a part of the model: saved, copied and resumed with it. Frozen until a stage trains it."""
    head.to(model.device)
    for parameter in head.parameters():  # not the buffers: biases of routers stay in float32
        parameter.data = parameter.data.to(model.dtype)
    head.requires_grad_(False)
    model.add_module("mtp", head.train(model.training))
    if is_sharded(model):
        spread_module(model, head)
    return head


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The head's tensors by their names in `MTPHead`; experts, stored one by one, are stacked."""
    found: dict[str, Tensor] = {}
    for path in _files_with_head(folder):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - the file is no mapping
                if key.startswith(PREFIX):
                    found[key.removeprefix(PREFIX)] = file.get_tensor(key)
    return _stack_experts(found)


def _files_with_head(folder: Path) -> list[Path]:
    index = folder / WEIGHTS_INDEX
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return sorted({folder / file for key, file in names.items() if key.startswith(PREFIX)})


def _stack_experts(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """`….experts.E.up_proj.weight` [I, D] of every expert E as one `….experts.up_proj` [E, I, D]."""
    result: dict[str, Tensor] = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for key, tensor in weights.items():
        layer, marker, rest = key.partition(".experts.")
        number, _, projection = rest.partition(".")
        if marker and number.isdigit():
            name = f"{layer}.experts.{projection.removesuffix('.weight')}"
            experts.setdefault(name, {})[int(number)] = tensor
        else:
            result[key] = tensor
    stacked = {name: torch.stack([parts[i] for i in sorted(parts)]) for name, parts in experts.items()}
    return {**result, **stacked}
