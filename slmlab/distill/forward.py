"""One face for both kinds of causal model: a `Decoder`, and transformers' own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slmlab.models import Decoder


def logits_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits (B, T, V) for ids (B, T) int64."""
    return logits_and_states(model, ids, states=False)[0]


def logits_and_states(
    model: nn.Module, ids: Tensor, states: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """Logits (B, T, V) and, where asked for, L + 1 hidden states (B, T, D), the embeddings first."""
    if isinstance(model, Decoder):
        if states:
            logits, hidden = model(ids, output_hidden_states=True)
            return logits, hidden
        return model(ids), []
    output = model(ids, use_cache=False, output_hidden_states=states)
    return output.logits, list(output.hidden_states) if states else []


def vocabulary_of(name: str, model: Any) -> int:
    """Rows of the model's logits. TypeError for what is no causal language model."""
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    if not isinstance(model, nn.Module) or not isinstance(size, int):
        raise TypeError(
            f"{name} must be a Decoder or a transformers causal model, not {type(model).__name__}"
        )
    return size


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def trunk_of(name: str, model: Any) -> Any:
    """The module that holds ``layers``: the Decoder itself, or a transformers model's ``model``."""
    trunk = model if isinstance(model, Decoder) else getattr(model, "model", None)
    if not isinstance(getattr(trunk, "layers", None), nn.ModuleList):
        raise TypeError(
            f"{name} must be a Decoder or a transformers model with model.layers, as Llama, "
            f"Mistral and Qwen have; {type(model).__name__} has none"
        )
    return trunk


def shallow_twin(module: Any) -> Any:
    """A module with the same children and parameters, whose list of children is its own."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


@contextmanager
def guiding(*models: nn.Module | None) -> Iterator[None]:
    """The models in evaluation mode and without gradients inside; modes are put back after."""
    modules = [m for model in models if model is not None for m in model.modules() if m.training]
    try:
        for module in modules:
            module.training = False
        # Not inference_mode: its tensors cannot be saved for a student's backward pass.
        with torch.no_grad():
            yield
    finally:
        for module in modules:
            module.training = True
