"""Small random checkpoints of every supported layout, written by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SMALL: dict[str, Any] = dict(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-multi-head": {"model_type": "llama", "num_key_value_heads": 6},
    "llama3-rope": {"model_type": "llama", "rope_parameters": LLAMA3_ROPE, "head_dim": 16},
    "llama-linear-rope": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    },
    "smollm2": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral-window": {"model_type": "mistral", "sliding_window": 7},
    "mistral-head-dim": {"model_type": "mistral", "sliding_window": 7, "head_dim": 16},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2-mixed-window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "qwen3-tied-biases": {
        "model_type": "qwen3",
        "head_dim": 8,
        "tie_word_embeddings": True,
        "attention_bias": True,
    },
}


def random_model(layout: str, seed: int = 0) -> Any:
    """A transformers model whose every parameter is random, gains and biases included."""
    values = {**SMALL, **LAYOUTS[layout]}
    model_type = values.pop("model_type")
    config = AutoConfig.for_model(model_type, **values)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    return model.requires_grad_(False)


def saved(layout: str, folder: Path, **options: Any) -> Any:
    """The model, after it was written to ``folder``."""
    model = random_model(layout)
    model.save_pretrained(folder, **options)
    return model


def assert_same_logits(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """DESIGN's tolerance: 1e-4, relative to the largest logit where that exceeds one."""
    assert ours.shape == theirs.shape and ours.numel() > 0
    bound = 1e-4 * max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max().item() <= bound
