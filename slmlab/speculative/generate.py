"""Speculative decoding: a cheap draft proposes, one pass of the target decides."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slmlab.generation import LanguageModel, sample
from slmlab.generation.sampling import check_sampling
from slmlab.models import Decoder
from slmlab.models.fields import check_whole
from slmlab.speculative.adaptive import AdaptiveLength
from slmlab.speculative.draft import Draft, ModelDraft, Proposal, Sampling
from slmlab.speculative.rejection import rejection_sample
from slmlab.speculative.runner import Runner, vocabulary_size
from slmlab.speculative.stats import Round, SpeculativeStats


@dataclass(frozen=True)
class SpeculativeResult:
    """tokens: new ids only, without an end token. stats: what each round did."""

    tokens: list[int]
    stats: SpeculativeStats


@torch.inference_mode()
def speculative_generate(
    target: Any,
    draft: Any,
    prompt_ids: Tensor,
    max_new_tokens: int = 64,
    num_draft_tokens: int | AdaptiveLength = 4,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: Collection[int] | None = None,
) -> SpeculativeResult:
    """Continue the prompt with the target's own tokens, several a pass where the draft guesses well.

    Greedy gives the tokens of plain decoding; sampling draws from the target's distribution,
    whatever the draft (`rejection_sample`). Accepted tokens keep their keys and values; what was
    rejected is truncated from both caches.

    Args:
        target: a `Decoder`, a transformers causal model, or what ``slmlab.load`` returns.
        draft: a model of the same vocabulary, or a `Draft` (`PromptLookup`, `layer_skip_draft`).
        prompt_ids: (1, T) int64, T at least 1.
        max_new_tokens: upper bound; a stop id ends earlier.
        num_draft_tokens: proposed a round, at most; clipped to what is still to be generated.
        temperature, top_k, top_p: applied to both sides; temperature 0 is greedy.
        generator: of the random numbers, on the target's device.
        stop_ids: end the text and are not part of it; None takes the target's end tokens.

    Raises:
        ValueError: vocabularies or tokenizers that differ, an empty prompt, counts below 1, more
            tokens than the target or the draft has positions, impossible sampling settings.
        TypeError: arguments of another type.
    """
    check_sampling(temperature, top_k, top_p)
    check_whole("max_new_tokens", max_new_tokens)
    if not isinstance(num_draft_tokens, AdaptiveLength):
        check_whole("num_draft_tokens", num_draft_tokens)
    target, source = _models(target, draft)
    tokens = _prompt(prompt_ids, target)
    room = len(tokens) + max_new_tokens
    for name, model in (("target", target), ("draft", getattr(source, "model", None))):
        positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        if positions is not None and room > positions:
            raise ValueError(
                f"prompt of {len(tokens)} tokens + max_new_tokens={max_new_tokens} exceed the "
                f"{name}'s {positions} positions: ask for at most "
                f"{max(positions - len(tokens), 0)} new tokens or shorten the prompt"
            )
    sampling = Sampling(temperature, top_k, top_p)
    stops = frozenset(_end_tokens(target) if stop_ids is None else stop_ids)
    if isinstance(target, Decoder):
        target.pack()  # verification multiplies a few rows by every matrix
    runner = Runner(target, room)
    source.start(room, sampling, generator)
    started = time.perf_counter()
    if len(tokens) > 1:
        runner.feed(tokens[:-1], logits=0)
    prefill = time.perf_counter() - started
    prompt, rounds = len(tokens), []
    while (left := room - len(tokens)) > 0:
        begin = time.perf_counter()
        # A round gives one token more than it accepts: the last one needs no proposal.
        count = min(_length(num_draft_tokens), left - 1)
        proposal = source.propose(tokens, count) if count else Proposal([])
        drafted = time.perf_counter()
        logits = runner.feed([tokens[-1], *proposal.tokens], logits=len(proposal.tokens) + 1)
        verified = time.perf_counter()
        new = _decide(proposal, logits, sampling, generator)
        accepted = len(new) - 1
        tokens += new
        runner.truncate(len(tokens) - 1)
        if isinstance(num_draft_tokens, AdaptiveLength):
            num_draft_tokens.observe(accepted, min(accepted + 1, len(proposal.tokens)))
        done = time.perf_counter()
        times = drafted - begin, verified - drafted, done - verified
        rounds.append(Round(tuple(proposal.tokens), accepted, new[-1], *times))
        ended = next((i for i, token in enumerate(new) if token in stops), None)
        if ended is not None:
            del tokens[len(tokens) - len(new) + ended :]
            break
    return SpeculativeResult(tokens[prompt:], SpeculativeStats(rounds, prefill, runner.fed))


def _decide(
    proposal: Proposal, logits: Tensor, sampling: Sampling, generator: torch.Generator | None
) -> list[int]:
    """The accepted tokens and one more; logits (proposed + 1, V) of the target."""
    best, choice = logits.max(dim=-1)
    if not bool(best.isfinite().all()):
        raise ValueError(
            "the target's logits are NaN or infinite: its weights are damaged, or its dtype "
            "overflows; load it again with dtype=torch.float32"
        )
    if sampling.greedy:
        wanted = choice.tolist()
        pairs = enumerate(zip(proposal.tokens, wanted))
        accepted = next((i for i, (a, b) in pairs if a != b), len(proposal.tokens))
        return [*proposal.tokens[:accepted], wanted[accepted]]
    target_probs = sampling.probabilities(logits)
    if not proposal.tokens:
        return sample(target_probs, generator).tolist()
    tokens = torch.tensor(proposal.tokens, device=logits.device)
    draft_probs = proposal.probs
    if draft_probs is None:  # each was certain
        draft_probs = torch.zeros_like(target_probs[:-1]).scatter_(-1, tokens[:, None], 1.0)
    return rejection_sample(tokens, draft_probs, target_probs, generator).tolist()


def _length(num_draft_tokens: int | AdaptiveLength) -> int:
    if isinstance(num_draft_tokens, AdaptiveLength):
        return num_draft_tokens.length
    return num_draft_tokens


def _models(target: Any, draft: Any) -> tuple[Any, Draft]:
    """The target's model and the source of proposals, if they speak of the same tokens."""
    if isinstance(target, LanguageModel) and isinstance(draft, LanguageModel):
        ours, theirs = target.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
        if ours != theirs:
            differ = sum(theirs.get(text) != token for text, token in ours.items())
            raise ValueError(
                f"target and draft have different tokenizers ({differ} of {len(ours)} tokens "
                "differ): an id means another text to each; use a draft trained with the target's "
                "tokenizer, or PromptLookup"
            )
    target = target.model if isinstance(target, LanguageModel) else target
    draft = draft.model if isinstance(draft, LanguageModel) else draft
    size = vocabulary_size(target)
    source: Draft = draft if hasattr(draft, "propose") else ModelDraft(draft)
    other = getattr(source, "vocabulary", size)
    if other != size:
        raise ValueError(
            f"target has {size} tokens, draft has {other}: they need one tokenizer; use a draft "
            "trained with the target's, or PromptLookup"
        )
    return target, source


def _prompt(prompt_ids: Any, target: Any) -> list[int]:
    if not isinstance(prompt_ids, Tensor) or prompt_ids.dtype != torch.int64:
        kind = getattr(prompt_ids, "dtype", type(prompt_ids).__name__)
        raise TypeError(f"prompt_ids must be an int64 tensor (1, T), not {kind}")
    if prompt_ids.dim() != 2 or prompt_ids.shape[0] != 1 or prompt_ids.shape[1] == 0:
        raise ValueError(
            f"prompt_ids must have shape (1, T) with at least one token, not "
            f"{tuple(prompt_ids.shape)}"
        )
    tokens: list[int] = prompt_ids[0].tolist()
    size = vocabulary_size(target)
    for token in tokens:
        if not 0 <= token < size:
            raise ValueError(f"prompt_ids holds token id {token}, outside the vocabulary of {size}")
    return tokens


def _end_tokens(target: Any) -> Collection[int]:
    own = getattr(target.config, "eos_token_ids", None)
    if own is None:
        own = getattr(getattr(target, "generation_config", None), "eos_token_id", None)
    if own is None:
        own = getattr(target.config, "eos_token_id", None)
    if own is None:
        return ()
    return (own,) if isinstance(own, int) else tuple(own)
