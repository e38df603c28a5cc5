"""The one place that knows how to call a model: a Decoder, a transformers model, or a stand-in.

Everything else in this room asks for logits and gets a tensor (batch, time, vocabulary).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

Ids = Tensor | Sequence[int]


def unwrap(model_or_lm: Any) -> Any:
    """The model inside a ``LanguageModel``; anything else comes back as it is.

    A transformers model has a ``.model`` of its own (its body without the head), so only
    objects that are no ``nn.Module`` are opened.
    """
    if isinstance(model_or_lm, nn.Module):
        return model_or_lm
    inner = getattr(model_or_lm, "model", None)
    return inner if isinstance(inner, nn.Module) else model_or_lm


def logits_of(model: Any, ids: Tensor) -> Tensor:
    """Logits (B, T, V) of ``ids`` (B, T) int64.

    Accepts a Decoder (which returns a tensor) and a transformers model (which returns an
    object with ``.logits``). Raises TypeError for anything else, ValueError for a wrong shape.
    """
    output = model(ids)
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"model must return a logits tensor or an object with .logits, got "
            f"{type(output).__name__}: pass a slmlab Decoder or a transformers causal LM"
        )
    if logits.ndim != 3 or logits.shape[:2] != ids.shape:
        raise ValueError(
            f"model returned logits of shape {tuple(logits.shape)} for ids of shape "
            f"{tuple(ids.shape)}: it must return (batch, time, vocabulary)"
        )
    return logits


def vocabulary_size(model: Any) -> int | None:
    """Rows of the embedding table that the model's config states, or None without a config."""
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    return size if isinstance(size, int) else None


def device_of(model: Any) -> torch.device:
    """Device of the first parameter or buffer; the CPU where there is none."""
    if isinstance(model, nn.Module):
        for tensors in (model.parameters(), model.buffers()):
            for tensor in tensors:
                return tensor.device
    return torch.device("cpu")


def as_ids(ids: Ids, *, vocab_size: int | None = None, minimum: int = 1) -> Tensor:
    """Token ids as one int64 row (T,), checked.

    ``ids``: list of int, or an integer tensor (T,) or (1, T). Raises TypeError for another
    type or dtype, ValueError for another shape, fewer than ``minimum`` ids, or an id outside
    ``range(vocab_size)``.
    """
    if not isinstance(ids, Tensor):
        if isinstance(ids, str) or not isinstance(ids, Sequence):
            raise TypeError(
                f"ids must be a list of int or an integer tensor, got {type(ids).__name__}: "
                "encode the text first, as in lm.tokenizer.encode(text)"
            )
        if any(isinstance(i, bool) or not isinstance(i, Integral) for i in ids):
            raise TypeError("ids must hold ints only: pass one flat list of token ids")
        ids = torch.tensor(list(ids), dtype=torch.int64)
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise TypeError(f"ids must have an integer dtype, got {ids.dtype}: use ids.long()")
    if ids.ndim == 2 and ids.shape[0] == 1:
        ids = ids[0]
    if ids.ndim != 1:
        raise ValueError(
            f"ids must have shape (T,) or (1, T), got {tuple(ids.shape)}: measure one text at a time"
        )
    if ids.numel() < minimum:
        raise ValueError(f"ids holds {ids.numel()} tokens, at least {minimum} are needed")
    ids = ids.long()
    if vocab_size is not None:
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocab_size:
            wrong = low if low < 0 else high
            raise ValueError(
                f"ids holds {wrong}, outside the vocabulary 0..{vocab_size - 1}: "
                "encode the text with this model's own tokenizer"
            )
    elif int(ids.min()) < 0:
        raise ValueError(f"ids holds {int(ids.min())}: token ids are never negative")
    return ids


@contextmanager
def evaluating(*models: Any) -> Iterator[None]:
    """No gradients and no dropout inside; every submodule's training flag is put back after."""
    modules = [m for model in models if isinstance(model, nn.Module) for m in model.modules()]
    training = [m for m in modules if m.training]
    try:
        for module in training:
            module.training = False
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
