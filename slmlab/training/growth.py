"""Depth that grows: a shallow decoder learns first, the layers above it join later.

A block whose output products are zero adds nothing, so a decoder gives the same logits before and
after it grows (function-preserving growth: Chen et al. 2016, arXiv:1511.05641). The first steps,
which teach frequencies and copying, cost a third of what they would cost at full depth.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from slmlab.models import Decoder


def first_layers(decoder: Decoder, count: int) -> Decoder:
    """The decoder with only its first ``count`` layers; all weights are shared, none is copied.

    Raises ValueError unless ``count`` lies between 1 and the number of layers.
    """
    config = decoder.config
    if not 1 <= count <= config.num_hidden_layers:
        raise ValueError(f"count must lie between 1 and {config.num_hidden_layers}, got {count}")
    shallow_config = dataclasses.replace(
        config, num_hidden_layers=count, layer_windows=config.layer_windows[:count]
    )
    with torch.device("meta"):
        shallow = Decoder(shallow_config)
    shallow.embed_tokens = decoder.embed_tokens
    shallow.layers = nn.ModuleList(list(decoder.layers)[:count])
    shallow.norm = decoder.norm
    shallow.lm_head = decoder.lm_head
    shallow.reset_rotation(decoder.device)
    return shallow
