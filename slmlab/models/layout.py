"""Hugging Face tensor names and shapes, and how they map to the fused matrices of a Decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slmlab.models.config import ModelConfig

_HF_CLASS = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def hf_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of this config must hold, with its shape."""
    hidden, wide = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    linears = {
        "self_attn.q_proj": (queries, hidden, config.qkv_bias),
        "self_attn.k_proj": (keys, hidden, config.qkv_bias),
        "self_attn.v_proj": (keys, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, queries, config.o_bias),
        "mlp.gate_proj": (wide, hidden, config.mlp_bias),
        "mlp.up_proj": (wide, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, wide, config.mlp_bias),
    }
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for name, (rows, columns, bias) in linears.items():
            shapes[f"{prefix}{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"{prefix}{name}.bias"] = (rows,)
        shapes[f"{prefix}input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
        if config.qk_norm:
            shapes[f"{prefix}self_attn.q_norm.weight"] = (config.head_dim,)
            shapes[f"{prefix}self_attn.k_norm.weight"] = (config.head_dim,)
    return shapes


_FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


def from_hf_names(tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """State dict of a Decoder: parts of a fused matrix stacked along their rows."""
    state = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    for layer in range(config.num_hidden_layers):
        for fused, parts in _FUSED.items():
            for kind in ("weight", "bias"):
                names = [f"layers.{layer}.{part}.{kind}" for part in parts]
                if names[0] in state:
                    state[f"layers.{layer}.{fused}.{kind}"] = torch.cat(
                        [state.pop(name) for name in names]
                    )
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    return state


def to_hf_names(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The inverse of :func:`from_hf_names`; a tied head is left out."""
    shapes = hf_shapes(config)
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        prefix, _, leaf = module.partition(".self_attn.")
        fused = f"self_attn.{leaf}" if leaf else f"mlp.{module.rpartition('.mlp.')[2]}"
        base = prefix if leaf else module.rpartition(".mlp.")[0]
        if fused in _FUSED:
            names = [f"model.{base}.{part}.{kind}" for part in _FUSED[fused]]
            sizes = [shapes[n][0] for n in names]
            tensors.update(zip(names, tensor.split(sizes), strict=True))
        elif name == "lm_head.weight":
            if not config.tie_word_embeddings:
                tensors[name] = tensor
        else:
            tensors[f"model.{name}"] = tensor
    return tensors


def hf_config_dict(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """A ``config.json`` that transformers reads back to the same model."""
    eos = config.eos_token_ids
    rope = config.rope
    parameters: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": rope.rope_type}
    if rope.rope_type != "default":
        parameters["factor"] = rope.factor
    if rope.rope_type == "llama3":
        parameters["low_freq_factor"] = rope.low_freq_factor
        parameters["high_freq_factor"] = rope.high_freq_factor
        parameters["original_max_position_embeddings"] = rope.original_max_position_embeddings
    windows = [w for w in config.layer_windows if w is not None]
    values: dict[str, Any] = {
        "architectures": [_HF_CLASS[config.model_type]],
        "model_type": config.model_type,
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": parameters,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": config.qkv_bias,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(eos) if len(eos) > 1 else (eos[0] if eos else None),
    }
    if config.model_type == "llama":
        values["mlp_bias"] = config.mlp_bias
    else:
        values["sliding_window"] = windows[0] if windows else None
    if config.model_type.startswith("qwen"):
        values["use_sliding_window"] = bool(windows)
        values["layer_types"] = [
            "full_attention" if w is None else "sliding_attention" for w in config.layer_windows
        ]
    return values
