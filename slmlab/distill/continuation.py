"""Rows of text that a model continues, many at a time, from random numbers that arrive as data.

A token is drawn by inverting its distribution's running sum at a given number in [0, 1). So what a
row becomes depends on its own numbers alone, not on which rows, or processes, it was drawn beside.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from slmlab.distill.forward import device_of, guiding, vocabulary_of
from slmlab.distill.losses import LogitsNotFinite
from slmlab.generation import next_token_probabilities
from slmlab.kv import ContiguousCache
from slmlab.models import Decoder
from slmlab.models.fields import check_whole


def draw(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Token where the running sum first exceeds the uniform number: (B, V), (B,) -> (B,) int64."""
    total = probabilities.double().cumsum(-1)  # (B, V)
    # Scaled by the last sum, which rounding may leave below 1: no number falls behind it.
    wanted = uniforms.double()[:, None].to(total.device) * total[:, -1:]
    return torch.searchsorted(total, wanted, right=True)[:, 0].clamp(max=total.shape[-1] - 1)


def continue_rows(
    model: nn.Module,
    prompts: Tensor,
    new_tokens: int,
    uniforms: Tensor | None = None,
    temperature: float = 1.0,
    stop_ids: Collection[int] = (),
) -> tuple[Tensor, Tensor]:
    """Let a model continue every row by ``new_tokens``.

    Args:
        model: a Decoder or a transformers causal model.
        prompts: (B, P) int64, P at least 1.
        uniforms: (B, new_tokens) numbers in [0, 1) to draw with; None is greedy.
        temperature: of the draws.
        stop_ids: behind one of them a row is filled with it and counts as unwritten.

    Returns:
        ids: (B, P + new_tokens) int64, on the model's device.
        written: (B, new_tokens) bool, up to and including a row's first stop id.

    Raises:
        ValueError: empty prompts, more tokens than the model has positions, uniforms of another
            shape, logits that are NaN. TypeError: prompts that are not int64.
    """
    check_whole("new_tokens", new_tokens)
    if not isinstance(prompts, Tensor) or prompts.dtype != torch.int64:
        raise TypeError("prompts must be an int64 tensor of token ids")
    if prompts.dim() != 2 or prompts.numel() == 0:
        raise ValueError(f"prompts has shape {tuple(prompts.shape)}: give (rows, at least 1 token)")
    vocabulary_of("model", model)
    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None and prompts.shape[1] + new_tokens > room:
        raise ValueError(
            f"prompts of {prompts.shape[1]} tokens + new_tokens={new_tokens} exceed the model's "
            f"{room} positions: ask for fewer"
        )
    if uniforms is not None and uniforms.shape != (len(prompts), new_tokens):
        raise ValueError(
            f"uniforms has shape {tuple(uniforms.shape)}, not {(len(prompts), new_tokens)}: give "
            "one number a new token"
        )
    device = device_of(model)
    step = prompts.to(device)
    ids, written = [step], []
    stops = torch.tensor(sorted(stop_ids), dtype=torch.int64, device=device)
    going = torch.ones(len(step), dtype=torch.bool, device=device)
    feed = _Feed(model, len(step), step.shape[1] + new_tokens)
    with guiding(model):
        for index in range(new_tokens):
            logits = feed(step)  # (B, V)
            if bool(logits.isnan().any()):
                raise LogitsNotFinite("the model's logits are NaN: its weights are damaged")
            if uniforms is None:
                choice = logits.argmax(-1)
            else:
                choice = draw(next_token_probabilities(logits, temperature), uniforms[:, index])
            step = torch.where(going, choice, ids[-1][:, -1])[:, None]
            ids.append(step)
            written.append(going)
            going = going & ~torch.isin(step[:, 0], stops)
    return torch.cat(ids, 1), torch.stack(written, 1)


class _Feed:
    """Next-token logits (B, V) of tokens (B, t) that follow those fed before."""

    def __init__(self, model: nn.Module, batch: int, length: int) -> None:
        self._model = model
        self._cache = None
        self._past = None
        if isinstance(model, Decoder):
            self._cache = ContiguousCache(
                model.config, batch, max_length=length, dtype=model.dtype, device=model.device
            )

    def __call__(self, tokens: Tensor) -> Tensor:
        if isinstance(self._model, Decoder):
            return self._model.lm_head(self._model.hidden(tokens, self._cache)[:, -1])
        out = self._model(tokens, past_key_values=self._past, use_cache=True, logits_to_keep=1)
        self._past = out.past_key_values
        return out.logits[:, -1]
