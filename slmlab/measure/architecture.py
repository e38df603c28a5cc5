"""The weight matrices of a decoder, counted from any config with Hugging Face's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slmlab.models.fields import check_whole

_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
# Two-matrix MLPs and expert mixtures read other bytes a token than is counted here.
_PLAIN_MLP = ("phi", "starcoder2", "gpt_neox", "nemotron", "stablelm_epoch")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class Architecture:
    """Weights of one decoder.

    linears: (rows, columns, how many of them) of the layers' matrices, rows = outputs.
    vectors: values in norms and biases, all layers together. table: (vocabulary, width) of the
    embedding, and of the head. tied: the head IS the embedding table.
    """

    linears: tuple[tuple[int, int, int], ...]
    vectors: int
    table: tuple[int, int]
    tied: bool
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def linear_parameters(self) -> int:
        """Weights in the layers' matrices; embedding and head are not among them."""
        return sum(rows * columns * count for rows, columns, count in self.linears)

    @property
    def table_parameters(self) -> int:
        """Weights in one vocabulary table."""
        return self.table[0] * self.table[1]

    @property
    def parameters(self) -> int:
        """All weights; a tied table counts once."""
        tables = self.table_parameters * (1 if self.tied else 2)
        return self.linear_parameters + tables + self.vectors


def _field(config: Any, name: str, default: Any = None) -> Any:
    value = getattr(config, name, None)
    return default if value is None else value


def read_architecture(config: Any) -> Architecture:
    """Count the matrices of a Llama-like decoder (gated MLP, grouped-query attention).

    config: a ModelConfig, a transformers config, or any object with their attribute names; a
    missing num_key_value_heads means one for each head, a missing head_dim hidden_size / heads.
    Norms and biases follow Llama, Qwen2 and Qwen3; other families differ there by less than a
    thousandth of the whole. Raises ValueError for a missing or non-positive size, an expert
    mixture, or an MLP without a gate; TypeError for a size that is no int.
    """
    sizes: dict[str, int] = {}
    for name in _NEEDED:
        value = _field(config, name)
        if value is None:
            raise ValueError(
                f"config has {name}=None: a positive int is needed (pass a config with Hugging "
                "Face names, as model.config)"
            )
        sizes[name] = check_whole(f"config field {name}", value)
    family = str(_field(config, "model_type", ""))
    experts = [name for name in _EXPERTS if _field(config, name, 0)]
    if experts:
        raise ValueError(f"config has {experts[0]}: mixtures of experts are not counted here")
    if family in _PLAIN_MLP:
        raise ValueError(
            f"config has model_type {family!r}, whose MLP has no gate: only gated MLPs are counted"
        )
    width, wide = sizes["hidden_size"], sizes["intermediate_size"]
    layers, heads = sizes["num_hidden_layers"], sizes["num_attention_heads"]
    kv_heads = check_whole(
        "config field num_key_value_heads", _field(config, "num_key_value_heads", heads)
    )
    head_dim = check_whole("config field head_dim", _field(config, "head_dim", width // heads))
    queries, keys = heads * head_dim, kv_heads * head_dim
    linears = (
        (queries, width, layers),
        (keys, width, 2 * layers),
        (width, queries, layers),
        (wide, width, 2 * layers),
        (width, wide, layers),
    )
    attention_bias = bool(_field(config, "attention_bias", False)) and family != "mistral"
    qkv_bias = bool(_field(config, "qkv_bias", family == "qwen2" or attention_bias))
    o_bias = bool(_field(config, "o_bias", family != "qwen2" and attention_bias))
    mlp_bias = bool(_field(config, "mlp_bias", False))
    qk_norm = bool(_field(config, "qk_norm", family == "qwen3"))
    a_layer = 2 * width + qk_norm * 2 * head_dim
    a_layer += qkv_bias * (queries + 2 * keys) + o_bias * width + mlp_bias * (2 * wide + width)
    return Architecture(
        linears=linears,
        vectors=layers * a_layer + width,
        table=(sizes["vocab_size"], width),
        tied=bool(_field(config, "tie_word_embeddings", False)),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
    )
