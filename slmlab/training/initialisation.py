"""Seeded initial weights, with or without an induction circuit.

Two attention layers can find what followed the last time the present token was seen: a head that
looks one token back, and a head above it that compares (an induction circuit: Olsson et al. 2022,
arXiv:2209.11895). Recall, copying arguments and repeating names all stand on it. From random weights
a run of minutes ends before it forms: our first teacher had none after five million tokens. So the
first two layers can start with a rough one, as mimetic initialisation starts attention with the
pattern that training would reach (Trockman and Kolter 2023, arXiv:2305.09828). Training is free to
change every weight of it, and does lose it where the first batches give nothing to copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.models import Decoder
from slmlab.training.recipe import Recipe

_EMBEDDING_STD = 0.02
# With the circuit: embeddings of the size that training gives them, so that the first steps do not
# drown them in the layers' outputs, and a final gain that keeps the first logits small.
_CIRCUIT_EMBEDDING_STD = 0.4
_CONSTANT = 2.0  # every token's embedding in channel 0: what a head without content can look for
_FINAL_GAIN = 0.04
_SHARPNESS = 5.5  # of the heads that look back: about half of their weight lands on one token
_MATCH = 2.0  # of the comparison of two tokens
_COPY = 4.0  # how strongly the token found is written to the output


def initial_decoder(recipe: Recipe, device: torch.device | str = "cpu") -> Decoder:
    """Normal weights; the outputs of every block zero, so that it starts as the identity.

    With ``recipe.induction`` the first two layers hold an induction circuit.
    """
    decoder = Decoder(recipe.model_config())
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
            elif "embed" in name:
                std = _CIRCUIT_EMBEDDING_STD if recipe.induction else _EMBEDDING_STD
                parameter.normal_(0.0, std, generator=generator)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
        if recipe.induction:
            _plant_induction(decoder, generator)
    return decoder.to(device)


def _plant_induction(decoder: Decoder, generator: torch.Generator) -> None:
    """Layer 0 writes each token's predecessor beside it, layer 1 looks there for the present one.

    The identity of a token is a random projection ``read`` of its embedding to one head's width; a
    second one, ``note``, orthogonal to it, holds the predecessor's.
    """
    config = decoder.config
    dim, width = config.head_dim, config.hidden_size
    group = config.num_attention_heads // config.num_key_value_heads
    decoder.norm.weight.fill_(_FINAL_GAIN)
    decoder.embed_tokens.weight[:, 0] = _CONSTANT
    # Channel 0 stays out of both projections: it is the same for every token.
    basis = torch.linalg.qr(torch.randn(width - 1, 2 * dim, generator=generator)).Q
    basis = torch.cat((torch.zeros(1, 2 * dim), basis))  # (width, 2 * head_dim)
    read, note = basis[:, :dim].T, basis[:, dim:].T  # (head_dim, width) each

    q, k, v = _first_group(decoder, layer=0)
    _look_back(q, k, decoder)
    v.copy_(read)
    output = decoder.get_parameter("layers.0.self_attn.o_proj.weight")
    output[:, :dim] = note.T  # the head that looks one token back

    q, k, v = _first_group(decoder, layer=1)
    output = decoder.get_parameter("layers.1.self_attn.o_proj.weight")
    # Only the slowly turning pairs compare content: the fast ones disagree over any distance.
    slow = torch.arange(dim) % (dim // 2) >= dim // 4
    count = int(slow.sum())
    q.zero_()
    k.zero_()
    for head in range(group):
        q[head * dim : (head + 1) * dim][slow] = _MATCH * read[:count]
        output[:, head * dim : (head + 1) * dim] = _COPY / group * read.T
    k[slow] = _MATCH * note[:count]
    v.copy_(read)


def _look_back(q: Tensor, k: Tensor, decoder: Decoder) -> None:
    """Head j of the group attends j + 1 tokens back, by position alone.

    Every key is the same vector, and a query is that vector turned back by j + 1 positions.
    """
    dim, width = decoder.config.head_dim, decoder.config.hidden_size
    random_part = _CIRCUIT_EMBEDDING_STD**2 * (width - 1)
    seen = _CONSTANT * (width / (random_part + _CONSTANT**2)) ** 0.5  # the constant after the norm
    size = _SHARPNESS / seen
    frequencies = decoder.inverse_frequencies.cpu()
    q.zero_()
    k.zero_()
    k[: dim // 2, 0] = size
    for head in range(len(q) // dim):
        turn = (head + 1) * frequencies
        rows = q[head * dim : (head + 1) * dim]
        rows[: dim // 2, 0], rows[dim // 2 :, 0] = size * turn.cos(), -size * turn.sin()


def _first_group(decoder: Decoder, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of a fused product: the queries that share the first KV head, its keys, its values."""
    config = decoder.config
    qkv = decoder.get_parameter(f"layers.{layer}.self_attn.qkv_proj.weight")
    dim = config.head_dim
    keys = config.num_attention_heads * dim
    values = keys + config.num_key_value_heads * dim
    group = config.num_attention_heads // config.num_key_value_heads
    return qkv[: group * dim], qkv[keys : keys + dim], qkv[values : values + dim]
