"""The tensors of a model, told from its config.json: how many there are, how large, and what a token keeps.

Families that are known: Qwen3, Qwen3-MoE and nemotron_h. No torch: `kascade plan` starts in under a second.
"Kept" is what a forward leaves for its backward, in elements of the type of computing, for each token. Two
numbers: of the model's own forward in transformers, and of Kascade's (`kascade.models.trunk`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

Config = Mapping[str, Any]
Tensors = tuple[tuple[int, ...], ...]
SCAN_CHUNK = 64  # tokens of one chunk of Kascade's Mamba-2 scan
PATTERN = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}
DRAFT = "*E"  # blocks of a step of the draft head, where the config names none
NAMES = {"linear_attention": "mamba", "full_attention": "attention"}


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One block.

    linear: [out, in] of each linear layer that can have an adapter. kept, kept_by_trunk: by transformers'
    forward, by Kascade's. experts: stacked over experts in the first dimension. spared: of `kept`, what
    frozen weights do not ask for. copied: elements of weights that Kascade's forward lays side by side.
    cached: keys and values of a token. state: float32 elements of a row's recurrent state. chosen: part of
    the experts that a token meets.
    """

    weights: Tensors
    linear: Mapping[str, tuple[int, int]]
    kept: int
    kept_by_trunk: int
    experts: Tensors = ()
    spared: int = 0
    copied: int = 0
    cached: int = 0
    state: int = 0
    chosen: float = 1.0

    @property
    def size(self) -> int:
        return count(self.weights) + count(self.experts)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A causal language model. tied: the output layer is the embedding. draft: blocks of all `draft_steps`
    of the multi-token-prediction head, which is no part of `size`."""

    family: str
    hidden: int
    vocabulary: int
    tied: bool
    layers: tuple[LayerShape, ...]
    draft: tuple[LayerShape, ...] = ()
    draft_steps: int = 0

    @property
    def draft_size(self) -> int:
        """Parameters of the draft head."""
        return sum(layer.size for layer in self.draft)

    @property
    def root(self) -> Tensors:
        """Weights outside the layers: embedding, last norm, output layer."""
        embedding = (self.vocabulary, self.hidden)
        return (embedding, (self.hidden,)) if self.tied else (embedding, (self.hidden,), embedding)

    @property
    def size(self) -> int:
        """Parameters."""
        return count(self.root) + sum(layer.size for layer in self.layers)

    def adapter_size(self, rank: int, targets: tuple[str, ...] | None) -> int:
        """Parameters of an adapter. targets: None: every layer that can have one."""
        return sum(
            rank * (out + into)
            for layer in self.layers
            for name, (out, into) in layer.linear.items()
            if targets is None or name in targets
        )


def count(tensors: Tensors) -> int:
    return sum(map(prod, tensors))


def shape_of(config: Config) -> ModelShape | None:
    """The shape that a config.json describes; None for a family that is not known here."""
    try:
        return _shape_of(config)
    except (KeyError, TypeError, ValueError):  # written by hand: the check of the weights says what is wrong
        return None


def _shape_of(config: Config) -> ModelShape | None:
    kind = config.get("model_type")
    draft: tuple[LayerShape, ...] = ()
    steps = int(config.get("num_nextn_predict_layers") or 0)
    if kind in ("qwen3", "qwen3_moe"):
        layers = tuple(_qwen3(config, index) for index in range(int(config["num_hidden_layers"])))
    elif kind == "nemotron_h":
        layers = tuple(_hybrid(config, block) for block in block_kinds(config))
        draft = _draft_step(config) * steps
    else:
        return None
    tied = kind != "nemotron_h" and bool(config.get("tie_word_embeddings"))  # transformers ties no hybrid
    sizes = int(config["hidden_size"]), int(config["vocab_size"])
    return ModelShape(str(kind), *sizes, tied, layers, draft, steps if draft else 0)


def block_kinds(config: Config) -> list[str]:
    """Of a hybrid model: mamba, attention, moe or mlp for each block, in either spelling of its config."""
    named = config.get("layers_block_type") or list(config["hybrid_override_pattern"])
    return [NAMES.get(block, PATTERN.get(block, block)) for block in named]


@dataclass(frozen=True, slots=True)
class _Attention:
    """heads and kv: widths of all query heads, and of all key heads, together."""

    hidden: int
    heads: int
    kv: int
    num_heads: int
    num_kv: int

    @classmethod
    def of(cls, config: Config) -> _Attention:
        heads, kv = int(config["num_attention_heads"]), int(config["num_key_value_heads"])
        width = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
        return cls(int(config["hidden_size"]), heads * width, kv * width, heads, kv)

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        key = (self.kv, self.hidden)
        query, out = (self.heads, self.hidden), (self.hidden, self.heads)
        return {"q_proj": query, "k_proj": key, "v_proj": key, "o_proj": out}


def _qwen3(config: Config, index: int) -> LayerShape:
    at, hidden = _Attention.of(config), int(config["hidden_size"])
    width = at.heads // at.num_heads
    norms: Tensors = ((hidden,), (hidden,), (width,), (width,))
    if config.get("attention_bias"):
        norms = (*norms, *((out,) for out, _ in at.linear.values()))
    both = at.heads + at.kv
    kept, spared = 6 * hidden + 4 * both + 2 + 2 * at.num_heads + at.num_kv, 2 * hidden + both
    trunk = 4 * hidden + both + (at.heads + 2 * at.kv) + at.heads + 2 + 2 * at.num_heads + at.num_kv
    if config["model_type"] == "qwen3_moe" and _is_sparse(config, index):
        experts = int(config.get("num_experts") or config["num_local_experts"])  # transformers renamed it
        chosen, inner = int(config["num_experts_per_tok"]), int(config["moe_intermediate_size"])
        kept += chosen * (2 * hidden + 4 * inner + 4) + 3 * experts
        stacked: Tensors = ((experts, 2 * inner, hidden), (experts, hidden, inner))
        weights = (*norms, *at.linear.values(), (experts, hidden))
        spared += hidden + chosen * (hidden + inner)
        part = chosen / experts
        return LayerShape(weights, at.linear, kept, kept, stacked, spared, cached=2 * at.kv, chosen=part)
    inner = int(config["intermediate_size"])
    up, down = (inner, hidden), (hidden, inner)
    linear = at.linear | {"gate_proj": up, "up_proj": up, "down_proj": down}
    weights, kept = (*norms, *linear.values()), kept + 4 * inner
    if config["model_type"] == "qwen3_moe":  # its dense layers take no adapter (`models.adapter_targets`)
        return LayerShape(weights, at.linear, kept, kept, spared=spared + hidden + inner, cached=2 * at.kv)
    copied = hidden * (at.heads + 2 * at.kv + 2 * inner)
    forwards = (kept, trunk + 2 * inner)
    return LayerShape(weights, linear, *forwards, spared=spared, copied=copied, cached=2 * at.kv)


def _is_sparse(config: Config, index: int) -> bool:
    step = int(config.get("decoder_sparse_step") or 1)
    return index not in (config.get("mlp_only_layers") or []) and (index + 1) % step == 0


def _hybrid(config: Config, block: str) -> LayerShape:
    hidden = int(config["hidden_size"])
    if block == "mamba":
        return _mamba(config)
    if block == "attention":
        at = _Attention.of(config)
        joined = at.heads + 2 * at.kv
        kept = joined + at.heads + at.num_heads + 1
        weights = ((hidden,), *at.linear.values())
        forwards = (3 * hidden + kept, 2 * hidden + kept)
        copied = hidden * joined
        return LayerShape(weights, at.linear, *forwards, spared=hidden, copied=copied, cached=2 * at.kv)
    if block == "moe":
        return _moe(config)
    inner = int(config["intermediate_size"])
    linear, kept = {"up_proj": (inner, hidden), "down_proj": (hidden, inner)}, 2 * inner + 1
    forwards = (3 * hidden + kept, 2 * hidden + kept)
    weights = ((hidden,), *linear.values(), *_mlp_biases(config, linear))
    return LayerShape(weights, linear, *forwards, spared=hidden)


def _draft_step(config: Config) -> tuple[LayerShape, ...]:
    """Blocks of a step of the draft head, with the norms and the projection around them (`models.mtp`)."""
    hidden = int(config["hidden_size"])
    named = config.get("mtp_layers_block_type") or list(config.get("mtp_hybrid_override_pattern") or DRAFT)
    pattern = [NAMES.get(block, PATTERN.get(block, block)) for block in named]
    made = [_hybrid(config, block) for block in pattern]
    into: Tensors = ((hidden,), (hidden,), (hidden, 2 * hidden))
    first = made[0]
    made[0] = replace(first, weights=(*first.weights, *into), kept=first.kept + 6 * hidden)
    last = made[-1]
    made[-1] = replace(last, weights=(*last.weights, (hidden,)), kept=last.kept + 2 * hidden)
    return tuple(made)


def _mlp_biases(config: Config, linear: Mapping[str, tuple[int, int]]) -> Tensors:
    """Of a hybrid's dense and shared MLPs, and of the way into a latent space."""
    return tuple((out,) for out, _ in linear.values()) if config.get("mlp_bias") else ()


def _mamba(config: Config) -> LayerShape:
    """Mamba-2: projection, convolution, scan in chunks, gated norm."""
    hidden, heads = int(config["hidden_size"]), int(config["mamba_num_heads"])
    inner, groups = heads * int(config["mamba_head_dim"]), int(config["n_groups"])
    states = int(config["ssm_state_size"])
    channels = inner + 2 * groups * states
    kernel = int(config.get("conv_kernel") or 4)
    into = inner + channels + heads
    weights: Tensors = (
        (hidden,), (into, hidden), (channels, 1, kernel), (channels,), (heads,), (heads,), (heads,), (inner,),
        (hidden, inner),
    )  # fmt: skip
    if config.get("use_bias"):
        weights = (*weights, (into,), (hidden,))
    if not config.get("use_conv_bias", True):
        weights = (*weights[:3], *weights[4:])
    scan = (3 * heads + groups) * SCAN_CHUNK + 3 * inner + 3 * heads
    trunk = 2 * hidden + into + 4 * channels + 5 * inner + scan
    fused = 3 * hidden + into + 2 * inner + heads  # by Mamba's kernels, which compute the rest again
    state = states * inner + (kernel - 1) * channels
    return LayerShape(weights, {"in_proj": (into, hidden)}, fused, trunk, spared=hidden, state=state)


def _moe(config: Config) -> LayerShape:
    """Routed experts, in a latent space where there is one, beside a shared expert."""
    hidden, latent = int(config["hidden_size"]), config.get("moe_latent_size")
    experts, chosen = int(config["n_routed_experts"]), int(config["num_experts_per_tok"])
    inner, shared = int(config["moe_intermediate_size"]), int(config["moe_shared_expert_intermediate_size"])
    width = int(latent or hidden)
    stacked: Tensors = ((experts, inner, width), (experts, width, inner))
    linear = {"up_proj": (shared, hidden), "down_proj": (hidden, shared)}
    if latent:
        linear |= {"fc1_latent_proj": (width, hidden), "fc2_latent_proj": (hidden, width)}
    routed = chosen * (2 * width + 2 * inner) + (2 * width if latent else 0)
    kept = 2 * shared + routed + 3 * chosen + 1
    weights = ((hidden,), (experts, hidden), *linear.values(), *_mlp_biases(config, linear))
    forwards = (3 * hidden + kept + 4 * experts, 2 * hidden + kept + 2 * experts)
    spared = hidden + chosen * (width + inner)
    return LayerShape(weights, linear, *forwards, stacked, spared=spared, chosen=chosen / experts)
