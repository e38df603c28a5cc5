"""Small random models: a Decoder and a transformers Llama."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from slmlab.models import Decoder, ModelConfig


def _hf_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=67,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="session")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(_hf_config()).eval()
    with torch.no_grad():
        # Larger weights than the default, so that the guesses are far from uniform.
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


@pytest.fixture(scope="session")
def decoder() -> Decoder:
    torch.manual_seed(1)
    return Decoder(ModelConfig.from_hf(_hf_config())).eval()


@pytest.fixture(scope="session")
def ids() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 67, (50,), generator=generator)
