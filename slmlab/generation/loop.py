"""The plain generation loop: prefill once, then one token a step into a preallocated cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from slmlab.generation.sampling import check_sampling, next_token_probabilities, sample
from slmlab.kv import ContiguousCache
from slmlab.models import Decoder
from slmlab.models.fields import check_whole


def generate_tokens(
    model: Decoder,
    prompt_ids: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    stop_ids: Collection[int] = (),
) -> Iterator[int]:
    """Yield new token ids one at a time; a stop id ends the loop and is not yielded.

    Raises (at the call, before any work):
        ValueError: an empty prompt, an id outside the vocabulary, max_new_tokens below 1, or
            more tokens in all than the model has positions.
        TypeError: ids that are not integers.

    Raises (at the step where it happens):
        ValueError: logits that are NaN or infinite.
    """
    check_sampling(temperature, top_k, top_p)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, not {generator!r}")
    check_prompt_ids(model, prompt_ids, max_new_tokens)
    return _loop(
        model, prompt_ids, max_new_tokens, temperature, top_k, top_p, generator, frozenset(stop_ids)
    )


@torch.inference_mode()
def _loop(
    model: Decoder,
    prompt_ids: list[int],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
    stop_ids: frozenset[int],
) -> Iterator[int]:
    cache = ContiguousCache(
        model.config,
        max_length=len(prompt_ids) + max_new_tokens,
        dtype=model.dtype,
        device=model.device,
    )
    step = torch.tensor([prompt_ids], device=model.device)  # (1, prompt), then (1, 1)
    for _ in range(max_new_tokens):
        logits = model.lm_head(model.hidden(step, cache)[:, -1])  # (1, vocabulary)
        best, choice = logits.max(dim=-1)  # (1,) each; NaN counts as the largest
        if temperature != 0.0:
            probabilities = next_token_probabilities(logits, temperature, top_k, top_p)
            # On a GPU a draw from NaN kills the process: it becomes any draw, refused below.
            choice = sample(probabilities.nan_to_num(nan=1.0), generator)
        # The check rides on the one number that is fetched each step, so it costs no extra wait.
        token = int(torch.where(best.isfinite(), choice, -1))
        if token < 0:
            raise ValueError(
                f"the model's logits are NaN or infinite after {cache.length} tokens: its weights "
                f"are damaged, or {model.dtype} overflows; load it again with dtype=torch.float32"
            )
        if token in stop_ids:
            return
        yield token
        step = torch.tensor([[token]], device=model.device)


def check_prompt_ids(model: Decoder, prompt_ids: list[int], max_new_tokens: int) -> None:
    """Raise, as ``generate_tokens`` does at its call, for what the model could not continue."""
    check_whole("max_new_tokens", max_new_tokens)
    if len(prompt_ids) == 0:
        raise ValueError("the prompt is empty: give at least one token to continue from")
    vocabulary = model.config.vocab_size
    for token in prompt_ids:
        if isinstance(token, bool) or not isinstance(token, int):
            raise TypeError(f"prompt ids must be ints, not {token!r}")
        if not 0 <= token < vocabulary:
            raise ValueError(
                f"the prompt holds token id {token}, outside the vocabulary of {vocabulary}: "
                "was it made by another model's tokenizer?"
            )
    room = model.config.max_position_embeddings
    if len(prompt_ids) + max_new_tokens > room:
        raise ValueError(
            f"prompt of {len(prompt_ids)} tokens + max_new_tokens={max_new_tokens} exceed this "
            f"model's {room} positions: ask for at most {max(room - len(prompt_ids), 0)} new "
            "tokens or shorten the prompt"
        )
