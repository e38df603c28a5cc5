"""A model folder of SmolLM2-135M's shape with random weights, for measuring speed only.

Sizes: config.json of HuggingFaceTB/SmolLM2-135M. Speed depends on sizes, not on what was learned.
"""

from __future__ import annotations

from pathlib import Path

import torch

from slmlab.models import Decoder, ModelConfig, RopeConfig, save_decoder

SMOLLM2_135M = ModelConfig(
    model_type="llama",
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope=RopeConfig(theta=100000.0),
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_ids=(0,),
)


def write_random_model(directory: Path, config: ModelConfig = SMOLLM2_135M, seed: int = 0) -> None:
    """Write config.json and model.safetensors in float16: drawn from ``seed``, never trained.

    float16, because then the float32, the float16 and the GGUF form hold the same numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() == 2:  # a norm's gains stay 1
                parameter.normal_(std=config.hidden_size**-0.5, generator=generator)
    save_decoder(decoder, directory, torch.float16)
