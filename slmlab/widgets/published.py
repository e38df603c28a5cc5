"""Shapes of published small models: the fields of their config.json that fix bytes and FLOP."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from slmlab.models import ModelConfig


@dataclass(frozen=True)
class Published:
    """A published model's shape. source: where its config.json stands. fields: as written there."""

    name: str
    source: str
    fields: dict[str, Any]

    def config(self) -> ModelConfig:
        """The shape as a `ModelConfig`."""
        return ModelConfig.from_hf(SimpleNamespace(**self.fields))


# Layers, KV heads and head_dim agree with the model table of LitGPT (Lightning-AI/litgpt,
# litgpt/config.py at commit 26857050fe3f).
PUBLISHED: dict[str, Published] = {
    row.name: row
    for row in (
        Published(
            "SmolLM2-135M",
            "huggingface.co/HuggingFaceTB/SmolLM2-135M, config.json",
            {
                "model_type": "llama",
                "vocab_size": 49152,
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "max_position_embeddings": 8192,
                "rms_norm_eps": 1e-5,
                "rope_theta": 100000.0,
                "tie_word_embeddings": True,
            },
        ),
        Published(
            "Qwen2.5-0.5B",
            "huggingface.co/Qwen/Qwen2.5-0.5B, config.json",
            {
                "model_type": "qwen2",
                "vocab_size": 151936,
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-6,
                "rope_theta": 1000000.0,
                "tie_word_embeddings": True,
            },
        ),
        Published(
            "Llama-3.2-1B",
            "huggingface.co/meta-llama/Llama-3.2-1B, config.json",
            {
                "model_type": "llama",
                "vocab_size": 128256,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 16,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 64,
                "max_position_embeddings": 131072,
                "rms_norm_eps": 1e-5,
                "rope_theta": 500000.0,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 32.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
                "tie_word_embeddings": True,
            },
        ),
    )
}


@cache
def published_configs() -> dict[str, ModelConfig]:
    """Name -> shape of every published model, smallest first."""
    return {name: row.config() for name, row in PUBLISHED.items()}
