"""The shape of a decoder, read from a Hugging Face config.

Field names are those of Hugging Face's ``config.json``, so that a learner who knows one knows
the other. ``from_hf`` normalises what the model families write differently: rope parameters,
sliding windows, biases, norms on queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slmlab.models.fields import check_positive, check_whole

SUPPORTED_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
SUPPORTED_ROPE_TYPES = ("default", "linear", "llama3")
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding: base frequency ``theta`` and, for ``llama3``, its context scaling."""

    theta: float = 10000.0
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        for name in ("theta", "factor", "low_freq_factor", "high_freq_factor"):
            check_positive(f"rope field {name}", getattr(self, name))
        check_whole(
            "rope field original_max_position_embeddings", self.original_max_position_embeddings
        )
        if self.rope_type == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"rope field low_freq_factor={self.low_freq_factor} must be below "
                f"high_freq_factor={self.high_freq_factor}: llama3 blends between the two"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shapes and the arithmetic of a :class:`Decoder`.

    ``layer_windows`` holds one entry a layer: ``None`` for full attention, else the number of
    tokens a query sees, itself included (Mistral's sliding window).
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope: RopeConfig = RopeConfig()
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    layer_windows: tuple[int | None, ...] = ()
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        ):
            check_whole(f"config field {name}", getattr(self, name))
        check_positive("config field rms_norm_eps", self.rms_norm_eps)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"config field num_key_value_heads={self.num_key_value_heads} must divide "
                f"num_attention_heads={self.num_attention_heads}: each KV head serves a whole "
                "group of query heads"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"config field head_dim={self.head_dim} must be even: RoPE turns pairs of values"
            )
        if not self.layer_windows:
            object.__setattr__(self, "layer_windows", (None,) * self.num_hidden_layers)
        if len(self.layer_windows) != self.num_hidden_layers:
            raise ValueError(
                f"config field layer_types names {len(self.layer_windows)} layers, "
                f"num_hidden_layers says {self.num_hidden_layers}"
            )
        for window in self.layer_windows:
            if window is not None:
                check_whole("config field sliding_window", window)
        for token in (self.bos_token_id, *self.eos_token_ids):
            if token is not None:
                check_whole("config field bos_token_id or eos_token_id", token, at_least=0)

    @classmethod
    def from_hf(cls, config: Any) -> ModelConfig:
        """Read any object with Hugging Face attribute names (a ``PretrainedConfig``).

        Raises:
            ValueError: a missing field, an unknown ``model_type``, rope type or activation, or
                impossible sizes.
            TypeError: a field of the wrong type.
        """
        model_type = str(getattr(config, "model_type", ""))
        if model_type not in SUPPORTED_MODEL_TYPES:
            raise ValueError(
                f"model_type {model_type!r} has no Decoder layout here (supported: "
                f"{', '.join(SUPPORTED_MODEL_TYPES)}); load it with transformers' "
                "AutoModelForCausalLM, which slmlab's techniques accept too"
            )
        activation = getattr(config, "hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise ValueError(
                f"config field hidden_act={activation!r} is not supported: the decoder's MLP is "
                "SwiGLU, which needs 'silu'"
            )
        for name in _REQUIRED:
            if getattr(config, name, None) is None:
                raise ValueError(f"config field {name} is missing")
        heads = check_whole("config field num_attention_heads", config.num_attention_heads)
        hidden_size = check_whole("config field hidden_size", config.hidden_size)
        kv_heads = getattr(config, "num_key_value_heads", None)
        head_dim = getattr(config, "head_dim", None)
        llama_like_bias = bool(getattr(config, "attention_bias", False))
        return cls(
            model_type=model_type,
            vocab_size=config.vocab_size,
            hidden_size=hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=heads,
            num_key_value_heads=heads if kv_heads is None else kv_heads,
            head_dim=hidden_size // heads if head_dim is None else head_dim,
            max_position_embeddings=config.max_position_embeddings,
            rms_norm_eps=config.rms_norm_eps,
            rope=_rope_config(config),
            tie_word_embeddings=bool(getattr(config, "tie_word_embeddings", False)),
            qkv_bias=model_type == "qwen2" or (model_type != "mistral" and llama_like_bias),
            o_bias=model_type in ("llama", "qwen3") and llama_like_bias,
            mlp_bias=model_type == "llama" and bool(getattr(config, "mlp_bias", False)),
            qk_norm=model_type == "qwen3",
            layer_windows=_layer_windows(config, model_type),
            bos_token_id=getattr(config, "bos_token_id", None),
            eos_token_ids=_token_ids(getattr(config, "eos_token_id", None)),
        )

    def parameter_count(self) -> int:
        """Number of trained values; a tied head is counted once."""
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        hidden, wide = self.hidden_size, self.intermediate_size
        attention = hidden * (queries + 2 * keys) + queries * hidden
        attention += self.qkv_bias * (queries + 2 * keys) + self.o_bias * hidden
        attention += self.qk_norm * 2 * self.head_dim
        mlp = 3 * hidden * wide + self.mlp_bias * (2 * wide + hidden)
        tables = self.vocab_size * hidden * (1 if self.tie_word_embeddings else 2)
        return tables + self.num_hidden_layers * (attention + mlp + 2 * hidden) + hidden


def _token_ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _rope_config(config: Any) -> RopeConfig:
    # transformers 5 writes rope_parameters; older files write rope_theta and rope_scaling.
    raw: dict[str, Any] = {"rope_theta": getattr(config, "rope_theta", None)}
    for name in ("rope_scaling", "rope_parameters"):
        written = getattr(config, name, None)
        if written is None:
            continue
        if not isinstance(written, dict):
            raise TypeError(f"config field {name} must be a dict or absent, not {written!r}")
        raw.update({key: value for key, value in written.items() if value is not None})
    rope_type = raw.get("rope_type", raw.get("type", "default"))
    if rope_type not in SUPPORTED_ROPE_TYPES:
        raise ValueError(
            f"rope_type {rope_type!r} is not supported (supported: "
            f"{', '.join(SUPPORTED_ROPE_TYPES)}); load this model with transformers"
        )
    if raw.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("partial_rotary_factor other than 1 is not supported: use transformers")
    theta = 10000.0 if raw["rope_theta"] is None else raw["rope_theta"]
    return RopeConfig(
        theta=check_positive("rope field rope_theta", theta),
        rope_type=rope_type,
        factor=check_positive("rope field factor", raw.get("factor", 1.0)),
        low_freq_factor=check_positive(
            "rope field low_freq_factor", raw.get("low_freq_factor", 1.0)
        ),
        high_freq_factor=check_positive(
            "rope field high_freq_factor", raw.get("high_freq_factor", 4.0)
        ),
        original_max_position_embeddings=raw.get("original_max_position_embeddings", 8192),
    )


def _layer_windows(config: Any, model_type: str) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    layers = check_whole("config field num_hidden_layers", config.num_hidden_layers)
    if model_type == "llama" or window is None:
        return (None,) * layers
    check_whole("config field sliding_window", window)
    if model_type == "mistral":
        return (window,) * layers
    types = getattr(config, "layer_types", None)
    if types is None:
        return (None,) * layers
    if not isinstance(types, list | tuple):
        raise TypeError(f"config field layer_types must be a list, not {types!r}")
    for kind in types:
        if kind not in ("full_attention", "sliding_attention"):
            raise ValueError(
                f"config field layer_types holds {kind!r}: only 'full_attention' and "
                "'sliding_attention' are supported"
            )
    return tuple(window if kind == "sliding_attention" else None for kind in types)
