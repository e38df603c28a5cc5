"""Configs drawn by hypothesis, and the transformers model that each describes, without values."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM


@st.composite
def configs(draw: st.DrawFn, multiple: int = 2) -> dict[str, int]:
    """Llama-like sizes; every optional field is sometimes missing. Widths divide by `multiple`."""
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads = kv_heads * group
    config = {
        "vocab_size": draw(st.integers(2, 60)),
        "hidden_size": heads * multiple * draw(st.integers(1, 3)),
        "intermediate_size": multiple * draw(st.integers(1, 9)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
    }
    if group > 1 or draw(st.booleans()):
        config["num_key_value_heads"] = kv_heads
    if draw(st.booleans()):
        config["head_dim"] = multiple * draw(st.integers(1, 4))
    if draw(st.booleans()):
        config["tie_word_embeddings"] = draw(st.booleans())
    return config


def meta_model(config: dict[str, Any]) -> Any:
    """transformers' model of these sizes on the meta device: shapes only."""
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(**config))
