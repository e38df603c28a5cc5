"""Random models of a size that every kernel takes, and small text for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from slmlab.models import Decoder, ModelConfig

SIZES: dict[str, Any] = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
IDS = torch.arange(40).view(2, 20) % 90
STORIES260K = Path(
    os.environ.get("SLMLAB_STORIES260K", Path(__file__).parents[3] / "shared" / "stories260K")
)


def llama(tied: bool = True, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, tie_word_embeddings=tied, pad_token_id=0)
    # Not .to(dtype), which would round the rotary frequencies too.
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def decoder(tied: bool = True) -> Decoder:
    torch.manual_seed(0)
    config = ModelConfig.from_hf(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    return Decoder(config).eval().requires_grad_(False)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        out = model(IDS)
    return out if isinstance(out, torch.Tensor) else out.logits
