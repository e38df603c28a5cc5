from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from slmlab.measure import read_architecture, weight_bytes_stored
from slmlab.models import Decoder, ModelConfig

_SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (LlamaConfig(**_SIZES), LlamaForCausalLM),
        (LlamaConfig(**_SIZES, attention_bias=True, mlp_bias=True), LlamaForCausalLM),
        (LlamaConfig(**_SIZES, tie_word_embeddings=True), LlamaForCausalLM),
        (Qwen2Config(**_SIZES), Qwen2ForCausalLM),
        (Qwen3Config(**_SIZES, head_dim=24), Qwen3ForCausalLM),
    ],
)
def test_counts_equal_the_real_models(config, model):
    real = model(config)
    count = read_architecture(config).parameters
    assert count == sum(p.numel() for p in real.parameters())
    own = ModelConfig.from_hf(config)
    decoder = Decoder(own)
    assert read_architecture(own).parameters == own.parameter_count() == count
    assert weight_bytes_stored(own, "float32") == sum(p.nbytes for p in decoder.parameters())


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"num_key_value_heads": 0}, ValueError, "num_key_value_heads=0 must be at least 1"),
        ({"num_key_value_heads": "2"}, TypeError, "num_key_value_heads must be an int"),
        ({"head_dim": -16}, ValueError, "head_dim=-16 must be at least 1"),
        ({"head_dim": 16.0}, TypeError, "head_dim must be an int"),
        ({"hidden_size": 2}, ValueError, "head_dim=0 must be at least 1"),
        ({"vocab_size": 96.0}, TypeError, "vocab_size must be an int"),
        ({"num_hidden_layers": None}, ValueError, "num_hidden_layers=None"),
    ],
)
def test_sizes_are_positive_ints(changes, kind, message):
    with pytest.raises(kind, match=message):
        read_architecture(SimpleNamespace(**{**_SIZES, **changes}))
