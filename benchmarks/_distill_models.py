"""The pair of models that distillation is measured on, in both libraries, and its arithmetic."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import torch

from slmlab.models import Decoder, ModelConfig, save_decoder
from slmlab.models.layout import from_hf_names


@dataclass(frozen=True)
class Shape:
    """Width, layers, and width of the MLP; heads of 64, a key-value head for four of them."""

    width: int
    layers: int
    wide: int

    def config(self, vocabulary: int = 2048) -> ModelConfig:
        return ModelConfig(
            model_type="llama",
            vocab_size=vocabulary,
            hidden_size=self.width,
            intermediate_size=self.wide,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            num_key_value_heads=max(1, self.width // 256),
            head_dim=64,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )


TEACHER, STUDENT = Shape(512, 9, 1536), Shape(256, 5, 704)  # 28M and 4M parameters
SMALL_TEACHER, SMALL_STUDENT = Shape(128, 3, 256), Shape(64, 2, 128)


def decoder(shape: Shape, seed: int, scale: float = 1.0) -> Decoder:
    """Seeded weights. ``scale`` multiplies the embedding, which is the head too: a trained model
    is more certain than a fresh one."""
    torch.manual_seed(seed)
    made = Decoder(shape.config())
    with torch.no_grad():
        made.embed_tokens.weight.mul_(scale)
    return made


def in_transformers(made: Decoder) -> Any:
    """The same weights as transformers' LlamaForCausalLM, float32."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save_decoder(made, folder, torch.float32)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def decoder_names(tensors: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """transformers' named tensors (weights or gradients) under a Decoder's names."""
    named = from_hf_names(dict(tensors), config)
    if config.tie_word_embeddings:
        named.pop("lm_head.weight", None)
    return named


def product_flops(config: ModelConfig, tokens: int) -> int:
    """Floating-point operations of a forward pass in products with weights; a multiply-add is two.

    Scores and sums of attention are left out: 2 * 2 * heads * head_dim * keys a token and layer.
    """
    heads = (2 * config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    layer = heads * config.hidden_size + 3 * config.hidden_size * config.intermediate_size
    head = config.hidden_size * config.vocab_size
    return 2 * tokens * (config.num_hidden_layers * layer + head)


def step_flops(teacher: ModelConfig, student: ModelConfig, tokens: int) -> int:
    """Of one step: the teacher forward, the student forward and twice that back (to the inputs and
    to the weights)."""
    return product_flops(teacher, tokens) + 3 * product_flops(student, tokens)
