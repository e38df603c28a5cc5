"""The target's own first layers as its draft: no second model, no training."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import nn

from slmlab.models import Decoder
from slmlab.models.fields import check_whole
from slmlab.speculative.draft import ModelDraft


def layer_skip_draft(target: Any, layers: int) -> ModelDraft:
    """A draft of the target's first ``layers`` layers, its final norm and its head; weights shared.

    Works as far as early layers already point at the answer, which a model that was not trained
    for it does poorly (Elhoushi et al. 2024, LayerSkip, arXiv:2404.16710): measure the acceptance.

    Args:
        target: a `Decoder`, or a transformers model with ``model.layers``.
        layers: 1 to one less than the target has.

    Raises:
        ValueError: as many layers as the target or more. TypeError: no such model.
    """
    inner = target if isinstance(target, Decoder) else getattr(target, "model", None)
    if not isinstance(getattr(inner, "layers", None), nn.ModuleList):
        raise TypeError(f"{type(target).__name__} has no model.layers to take the first ones of")
    assert inner is not None
    check_whole("layers", layers)
    if layers >= len(inner.layers):
        raise ValueError(f"layers={layers} must be below the target's {len(inner.layers)}")
    short = _shallow(inner)
    short.layers = inner.layers[:layers]
    if isinstance(target, Decoder):
        short.config = replace(
            target.config,
            num_hidden_layers=layers,
            layer_windows=target.config.layer_windows[:layers],
        )
        return ModelDraft(short)
    draft = _shallow(target)
    draft.model = short
    draft.config = short.config = copy.deepcopy(target.config)
    draft.config.num_hidden_layers = layers
    if getattr(draft.config, "layer_types", None):
        draft.config.layer_types = draft.config.layer_types[:layers]
    return ModelDraft(draft)


def _shallow(module: Any) -> Any:
    """A module with the same children and parameters, whose list of children is its own."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
