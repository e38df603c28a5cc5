"""The sampler draws from the target: exactly by enumeration, and by counting draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from slmlab.speculative import (
    acceptance_probabilities,
    rejection_sample,
    rejection_sample_batch,
    residual_distribution,
)
from slmlab.speculative.rejection import PAD
from tests.speculative.exact import (
    joint,
    length_distribution,
    random_table,
    speculative_joint,
)

NOT_REJECTED = 0.001
Sampler = Callable[[Tensor, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@pytest.mark.parametrize(
    ("vocabulary", "gamma", "length"), [(2, 1, 4), (2, 3, 4), (3, 2, 3), (4, 1, 2), (4, 2, 3)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_enumeration(vocabulary: int, gamma: int, length: int, seed: int) -> None:
    p, q = random_table(vocabulary, 1000 + seed), random_table(vocabulary, 2000 + seed)
    wanted = joint(p, vocabulary, length)
    found = speculative_joint(p, q, vocabulary, gamma, length)
    assert found.keys() == wanted.keys()
    assert max(abs(found[text] - wanted[text]) for text in wanted) < 1e-12


def test_enumeration_sees_a_biased_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.speculative.exact as exact

    p, q = random_table(3, 1), random_table(3, 2)
    for wrong in (lambda q, p: p, lambda q, p: (p - q).abs() / (p - q).abs().sum()):
        monkeypatch.setattr(exact, "residual_distribution", wrong)
        found = speculative_joint(p, q, 3, 2, 2)
        wanted = joint(p, 3, 2)
        assert max(abs(found[text] - wanted[text]) for text in wanted) > 1e-3


# Draws. Each variant gets the proposals of N sequences and returns (tokens, counts) as
# rejection_sample_batch does; all but the first are known to be wrong.


def accept_all(tokens: Tensor, q: Tensor, p: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    extra = torch.multinomial(p[:, -1], 1, generator=g)
    return torch.cat((tokens, extra), 1), torch.full((len(tokens),), tokens.shape[1] + 1)


def sample_and_compare(
    tokens: Tensor, q: Tensor, p: Tensor, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    own = torch.stack([torch.multinomial(p[:, i], 1, generator=g)[:, 0] for i in range(4)], 1)
    accepted = (own[:, :-1] == tokens).long().cumprod(-1).sum(-1)
    return _cut(own, accepted + 1)


def bonus_from_the_draft(
    tokens: Tensor, q: Tensor, p: Tensor, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    found, counts = rejection_sample_batch(tokens, q, p, g)
    bonus = torch.multinomial(q[:, -1], 1, generator=g)[:, 0]
    found[:, -1] = torch.where(counts == tokens.shape[1] + 1, bonus, found[:, -1])
    return found, counts


def no_bonus(tokens: Tensor, q: Tensor, p: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    found, counts = rejection_sample_batch(tokens, q, p, g)
    return _cut(found, counts.clamp(max=tokens.shape[1]))


def from_the_target_after_rejection(
    tokens: Tensor, q: Tensor, p: Tensor, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    found, counts = rejection_sample_batch(tokens, q, p, g)
    at = counts - 1
    own = torch.multinomial(p[torch.arange(len(p)), at], 1, generator=g)
    return found.scatter(1, at[:, None], own), counts


def _cut(tokens: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(torch.arange(tokens.shape[1]) < counts[:, None], tokens, PAD), counts


GAMMA, VOCABULARY = 3, 4


def smallest_p_value(sampler: Sampler, sequences: int, seed: int) -> float:
    """The smallest p-value of: the token at each position given the text before it (as far as it is
    frequent enough), and the length of a round. Bonferroni: times the number of tests."""
    p, q = random_table(VOCABULARY, 11 + seed, 1.0), random_table(VOCABULARY, 77 + seed, 1.0)
    generator = torch.Generator().manual_seed(seed)
    texts: list[tuple[int, ...]] = [()] * sequences
    draft_probs, target_probs = [], [torch.stack([p(())] * sequences)]
    for _ in range(GAMMA):
        rows = torch.stack([q(text) for text in texts])
        drawn = torch.multinomial(rows, 1, generator=generator)[:, 0].tolist()
        draft_probs.append(rows)
        texts = [(*text, token) for text, token in zip(texts, drawn)]
        target_probs.append(torch.stack([p(text) for text in texts]))
    tokens, counts = sampler(
        torch.tensor(texts), torch.stack(draft_probs, 1), torch.stack(target_probs, 1), generator
    )
    lengths = Counter(counts.tolist())
    expected = length_distribution(p, q, VOCABULARY, GAMMA)
    values = [_p_value([lengths[n + 1] for n in range(GAMMA + 1)], expected)]
    after: dict[tuple[int, ...], Counter[int]] = {}
    for row, count in zip(tokens.tolist(), counts.tolist()):
        for i in range(count):
            after.setdefault(tuple(row[:i]), Counter())[row[i]] += 1
    for text, seen in after.items():
        if sum(seen.values()) >= 200:
            values.append(_p_value([seen[t] for t in range(VOCABULARY)], p(text).tolist()))
    assert len(values) >= 8
    return min(values) * len(values)


def _p_value(seen: list[int], chances: list[float]) -> float:
    total = sum(seen)
    scale = total / sum(chances)
    return float(chisquare(seen, [chance * scale for chance in chances]).pvalue)


@pytest.mark.parametrize("seed", [0, 1])
def test_counted_draws(seed: int) -> None:
    """P-value of the 20,000 sequences that the claim is about."""
    assert smallest_p_value(rejection_sample_batch, 20_000, seed) > NOT_REJECTED


@pytest.mark.parametrize(
    "wrong",
    [
        accept_all,
        sample_and_compare,
        bonus_from_the_draft,
        no_bonus,
        from_the_target_after_rejection,
    ],
)
def test_the_same_counts_reject_biased_samplers(wrong: Sampler) -> None:
    assert smallest_p_value(wrong, 20_000, 0) < NOT_REJECTED


def distributions(*shape: int) -> Tensor:
    return (torch.randn(*shape, dtype=torch.float64) * 2).softmax(-1)


@given(
    batch=st.integers(1, 4), k=st.integers(1, 5), v=st.integers(1, 9), seed=st.integers(0, 2**31)
)
def test_invariants(batch: int, k: int, v: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, p = distributions(batch, k, v), distributions(batch, k + 1, v)
    drafted = torch.multinomial(q.view(-1, v), 1).view(batch, k)
    tokens, counts = rejection_sample_batch(drafted, q, p)
    assert tokens.shape == (batch, k + 1) and tokens.dtype == torch.int64
    for row, count, proposal in zip(tokens.tolist(), counts.tolist(), drafted.tolist()):
        assert 1 <= count <= k + 1
        assert row[: count - 1] == proposal[: count - 1]
        assert 0 <= row[count - 1] < v and row[count:] == [PAD] * (k + 1 - count)
    keep = acceptance_probabilities(drafted, q, p[:, :-1])
    assert bool(((keep >= 0) & (keep <= 1)).all())
    residual = residual_distribution(q, p[:, :-1])
    assert torch.allclose(residual.sum(-1), torch.ones(batch, k, dtype=torch.float64))
    # One accepted of the draft's own draws, on average: sum of min(p, q).
    overlap = torch.minimum(p[:, :-1], q).sum(-1)
    everyone = torch.stack(
        [acceptance_probabilities(torch.full_like(drafted, t), q, p[:, :-1]) for t in range(v)], -1
    )
    assert torch.allclose((everyone * q).sum(-1), overlap)


def test_equal_distributions_accept_everything() -> None:
    p = distributions(1, 5, 7).expand(50, 5, 7)
    drafted = torch.stack([torch.multinomial(p[:, i], 1)[:, 0] for i in range(4)], 1)
    tokens, counts = rejection_sample_batch(drafted, p[:, :-1], p)
    assert counts.tolist() == [5] * 50 and torch.equal(tokens[:, :-1], drafted)


def test_greedy_is_the_limit() -> None:
    """One-hot on both sides: the longest common beginning, then the target's own."""
    eye = torch.eye(5)
    found = rejection_sample(torch.tensor([1, 2, 3]), eye[[1, 2, 3]], eye[[1, 2, 4, 0]])
    assert found.tolist() == [1, 2, 4]
    found = rejection_sample(torch.tensor([1, 2, 3]), eye[[1, 2, 3]], eye[[1, 2, 3, 0]])
    assert found.tolist() == [1, 2, 3, 0]


def test_the_same_generator_gives_the_same_tokens() -> None:
    q, p = distributions(3, 4), distributions(4, 4)
    drafted = torch.multinomial(q, 1)[:, 0]
    draws = [rejection_sample(drafted, q, p, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draws)


HALF = torch.full((1, 2), 0.5)
TWO = torch.full((2, 2), 0.5)
ONE = torch.tensor([0])


@pytest.mark.parametrize(
    ("tokens", "draft", "target", "kind", "message"),
    [
        ([0], HALF, TWO, TypeError, "draft_tokens must be a tensor"),
        (torch.tensor([0.0]), HALF, TWO, TypeError, "draft_tokens must be int64"),
        (ONE, HALF.long(), TWO, TypeError, "must be floating point"),
        (torch.empty(0, dtype=torch.int64), HALF[:0], HALF, ValueError, "at least one token"),
        (ONE, HALF, HALF, ValueError, r"target_probs \(\.\., 2, V\)"),
        (ONE, HALF, torch.full((2, 3), 1 / 3), ValueError, "over one vocabulary"),
        (torch.tensor([2]), HALF, TWO, ValueError, "outside the vocabulary of 2"),
        (torch.tensor([-1]), HALF, TWO, ValueError, "outside the vocabulary of 2"),
        (ONE, HALF * 2, TWO, ValueError, "draft_probs holds a row that is no distribution"),
        (ONE, HALF, TWO * float("nan"), ValueError, "target_probs holds a row"),
        (ONE, torch.tensor([[1.5, -0.5]]), TWO, ValueError, "draft_probs holds a row"),
        (ONE, torch.tensor([[0.0, 1.0]]), TWO, ValueError, "gives a proposed token probability 0"),
        (ONE[None], HALF, TWO, ValueError, "several go through rejection_sample_batch"),
    ],
)
def test_refusals(
    tokens: Tensor, draft: Tensor, target: Tensor, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        rejection_sample(tokens, draft, target)
