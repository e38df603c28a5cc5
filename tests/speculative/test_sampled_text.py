"""Whole sampled texts follow the target's distribution, for every kind of draft."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from slmlab.generation import next_token_probabilities
from slmlab.models import Decoder, ModelConfig
from slmlab.speculative import (
    AdaptiveLength,
    ModelDraft,
    PromptLookup,
    Proposal,
    layer_skip_draft,
    speculative_generate,
)
from slmlab.speculative.draft import Sampling
from tests.speculative.exact import Prefix, Table, joint, length_distribution

VOCABULARY, NEW, GAMMA = 4, 3, 2
PROMPT = [0, 1, 2, 0, 1]  # lookup finds "0, 1" again
SETTINGS: dict[str, Any] = {"temperature": 0.8, "top_k": 3}


@cache
def toy(seed: int) -> Decoder:
    torch.manual_seed(seed)
    decoder = Decoder(ModelConfig("llama", VOCABULARY, 8, 12, 2, 2, 1, 4, 32)).eval()
    for parameter in decoder.parameters():
        parameter.requires_grad_(False).add_(0.7 * torch.randn(parameter.shape))
    return decoder


def table(decoder: Decoder) -> Table:
    @cache
    def next_token(prefix: Prefix) -> torch.Tensor:
        logits = decoder(torch.tensor([[*PROMPT, *prefix]]))[0, -1]
        return next_token_probabilities(logits, **SETTINGS).double()

    return next_token


DRAFTS: dict[str, Callable[[], Any]] = {
    "model": lambda: toy(2),
    "lookup": lambda: PromptLookup(),
    "layer skip": lambda: layer_skip_draft(toy(1), 1),
    "adaptive": lambda: toy(2),
}


def smallest_p_value(draft: Any, kind: str, sequences: int) -> float:
    generator = torch.Generator().manual_seed(3)
    length = AdaptiveLength(0.1, most=3) if kind == "adaptive" else GAMMA
    texts: Counter[tuple[int, ...]] = Counter()
    first_round: Counter[int] = Counter()
    for _ in range(sequences):
        result = speculative_generate(
            toy(1), draft, torch.tensor([PROMPT]), NEW, length, generator=generator, **SETTINGS
        )
        texts[tuple(result.tokens)] += 1
        first_round[result.stats.rounds[0].accepted + 1] += 1
    p = table(toy(1))
    wanted = joint(p, VOCABULARY, NEW)
    assert all(wanted[text] > 0 for text in texts)
    values = [_p_value([(texts[text], chance) for text, chance in wanted.items()], sequences)]
    for position in range(NEW):
        seen: Counter[int] = Counter()
        chances = [0.0] * VOCABULARY
        for text, chance in wanted.items():
            seen[text[position]] += texts[text]
            chances[text[position]] += chance
        values.append(_p_value([(seen[t], chances[t]) for t in range(VOCABULARY)], sequences))
    if kind in ("model", "layer skip"):
        q = table(toy(2) if kind == "model" else layer_skip_draft(toy(1), 1).model)
        lengths = enumerate(length_distribution(p, q, VOCABULARY, GAMMA), start=1)
        values.append(_p_value([(first_round[n], chance) for n, chance in lengths], sequences))
    return min(values) * len(values)


def _p_value(cells: list[tuple[int, float]], total: int) -> float:
    """Cells that are expected less than five times are taken together."""
    rare = [cell for cell in cells if cell[1] * total < 5]
    kept = [cell for cell in cells if cell[1] * total >= 5]
    kept.append((sum(n for n, _ in rare), sum(chance for _, chance in rare)))
    kept = [cell for cell in kept if cell[1] > 0]
    scale = total / sum(chance for _, chance in kept)
    return float(chisquare([n for n, _ in kept], [chance * scale for _, chance in kept]).pvalue)


@pytest.mark.parametrize("kind", DRAFTS)
def test_counted_texts(kind: str) -> None:
    assert smallest_p_value(DRAFTS[kind](), kind, 800) > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRAFTS)
def test_counted_texts_at_full_size(kind: str) -> None:
    assert smallest_p_value(DRAFTS[kind](), kind, 20_000) > 0.001


class WarmDraft(ModelDraft):
    """Applies another temperature than the target's, and reports the target's: the published bug
    of a setting applied to one side only."""

    def start(self, max_length: int, sampling: Sampling, generator: Any) -> None:
        super().start(max_length, Sampling(1.6, sampling.top_k), generator)

    def propose(self, tokens: Any, count: int) -> Proposal:
        proposal = super().propose(tokens, count)
        assert proposal.probs is not None
        told = (proposal.probs.clamp(min=1e-9).log() * 2).softmax(-1)
        return Proposal(proposal.tokens, told)


def test_the_same_counts_reject_a_draft_that_misreports_what_it_drew_from() -> None:
    assert smallest_p_value(WarmDraft(toy(2)), "model", 800) < 0.001
