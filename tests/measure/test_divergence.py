from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from slmlab.measure import divergence, kl_to_reference, position_kl_nats


@pytest.fixture(scope="module")
def shaken(decoder):
    other = copy.deepcopy(decoder)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return other


def test_equals_torch_kl_div_and_counts_flips(decoder, shaken, ids):
    with torch.no_grad():
        ours = shaken(ids[None])[0].double()
        theirs = decoder(ids[None])[0].double()
    expected = functional.kl_div(
        functional.log_softmax(ours, -1),
        functional.log_softmax(theirs, -1),
        log_target=True,
        reduction="batchmean",
    )
    result = kl_to_reference(shaken, decoder, ids)
    assert result.mean_kl_nats == pytest.approx(float(expected), rel=1e-6)
    assert float(result) == result.mean_kl_nats
    assert result.tokens == len(ids)
    flips = sum(int(a.argmax() != b.argmax()) for a, b in zip(ours, theirs, strict=True))
    assert 0 < flips < len(ids)
    assert result.argmax_flips == flips
    assert result.argmax_flip_share == flips / len(ids)
    assert result.maximum_kl_nats >= result.mean_kl_nats
    # Direction matters: KL(model || reference) is another number.
    assert float(kl_to_reference(decoder, shaken, ids)) != pytest.approx(float(result), rel=1e-3)


def test_a_model_against_itself(decoder, llama, ids):
    for model in (decoder, llama):
        result = kl_to_reference(model, model, ids, window=9, stride=4)
        assert result.mean_kl_nats == 0.0
        assert result.argmax_flips == 0
        assert result.tokens == len(ids)


def test_windows_and_chunks_count_every_position_once(decoder, shaken, ids, monkeypatch):
    whole = kl_to_reference(shaken, decoder, ids)
    monkeypatch.setattr(divergence, "CHUNK_ELEMENTS", 3 * 67)
    chunked = kl_to_reference(shaken, decoder, ids, window=len(ids), stride=1)
    assert chunked.mean_kl_nats == pytest.approx(whole.mean_kl_nats, rel=1e-12)
    for window, stride in ((2, 1), (7, 3), (16, 16)):
        assert kl_to_reference(shaken, decoder, ids, window=window, stride=stride).tokens == 50


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 5),
    vocabulary=st.integers(1, 40),
    scale=st.floats(0.0, 60.0),
    seed=st.integers(0, 10_000),
)
def test_never_negative_and_invariant_to_shifts(rows, vocabulary, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    a = scale * torch.randn(rows, vocabulary, generator=generator)
    b = scale * torch.randn(rows, vocabulary, generator=generator)
    kl = position_kl_nats(a, b)
    assert kl.shape == (rows,) and kl.dtype == torch.float64
    assert bool((kl >= 0).all())
    # Adding a constant to a row of logits leaves the distribution, so also the divergence.
    assert torch.allclose(position_kl_nats(a.double() + 5.0, b), kl, rtol=1e-6, atol=1e-9)
    assert bool((position_kl_nats(b, b) == 0).all())


def test_zero_probabilities():
    sure = torch.tensor([[0.0, float("-inf")]])
    half = torch.tensor([[0.0, 0.0]])
    assert float(position_kl_nats(half, sure)[0]) == pytest.approx(0.6931471805599453)
    assert float(position_kl_nats(sure, half)[0]) == float("inf")


def test_bad_arguments_are_named(decoder, ids):
    with pytest.raises(ValueError, match="at least 1"):
        kl_to_reference(decoder, decoder, [])
    with pytest.raises(ValueError, match="outside the vocabulary"):
        kl_to_reference(decoder, decoder, [67])
    with pytest.raises(ValueError, match="share one vocabulary"):
        kl_to_reference(decoder, lambda i: torch.zeros(*i.shape, 68), ids)
    with pytest.raises(ValueError, match="exceeds window"):
        kl_to_reference(decoder, decoder, ids, window=4, stride=9)
    with pytest.raises(ValueError, match="NaN"):
        kl_to_reference(decoder, lambda i: torch.full((*i.shape, 67), float("nan")), ids)
