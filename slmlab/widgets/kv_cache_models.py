"""Shapes whose caches differ most: every head its own keys, shared ones, windows, both kinds of layer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from slmlab.widgets.published import Published, published_configs

_GEMMA_3_LAYERS = 26

# Layers, heads, head_dim and windows agree with the model table of LitGPT (Lightning-AI/litgpt,
# litgpt/config.py at commit 26857050fe3f).
MORE: tuple[Published, ...] = (
    Published(
        "Gemma-3-1B",
        "huggingface.co/google/gemma-3-1b-pt, config.json",
        {
            "model_type": "gemma3_text",
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": _GEMMA_3_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "max_position_embeddings": 32768,
            "sliding_window": 512,
            # Every sixth layer attends to everything (Gemma 3 report, arXiv:2503.19786, section 2).
            "layer_types": [
                "full_attention" if layer % 6 == 5 else "sliding_attention"
                for layer in range(_GEMMA_3_LAYERS)
            ],
            "tie_word_embeddings": True,
        },
    ),
    Published(
        "Llama-2-7B",
        "huggingface.co/meta-llama/Llama-2-7b-hf, config.json",
        {
            "model_type": "llama",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
        },
    ),
    Published(
        "Mistral-7B-v0.1",
        "huggingface.co/mistralai/Mistral-7B-v0.1, config.json",
        {
            "model_type": "mistral",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
        },
    ),
)


def cache_configs() -> dict[str, Any]:
    """Name -> shape, the workbook's published models first. Enough for bytes, not to run one."""
    return {**published_configs(), **{row.name: SimpleNamespace(**row.fields) for row in MORE}}
