from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slmlab.measure import perplexity, score
from slmlab.measure.windows import sliding_windows


class KnownCost:
    """A stand-in that gives token t the same probability everywhere, and counts what it reads."""

    def __init__(self, vocabulary: int) -> None:
        self.log_p = torch.log_softmax(torch.arange(vocabulary, dtype=torch.float64), dim=0)
        self.reads: list[int] = []

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self.reads.append(ids.shape[1])
        return self.log_p.expand(*ids.shape, -1)


def test_equals_transformers_loss(llama, ids):
    with torch.no_grad():
        loss = llama(ids[None], labels=ids[None]).loss
    result = score(llama, ids)
    assert result.tokens == len(ids) - 1
    assert result.windows == 1
    assert result.nats_per_token == pytest.approx(float(loss), rel=1e-5)
    assert perplexity(llama, ids) == pytest.approx(math.exp(float(loss)), rel=1e-5)


def test_decoder_against_torch_cross_entropy(decoder, ids):
    with torch.no_grad():
        logits = decoder(ids[None])[0, :-1].double()
    expected = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")
    assert score(decoder, ids).nll_nats == pytest.approx(float(expected), rel=1e-6)


def test_a_window_that_covers_the_text_changes_nothing(decoder, ids):
    whole = score(decoder, ids)
    for window, stride in ((49, 1), (49, 49), (60, 7), (64, 64)):
        assert score(decoder, ids, window=window, stride=stride).nll_nats == pytest.approx(
            whole.nll_nats, rel=1e-9
        )


def test_stride_one_gives_every_token_a_full_window(decoder, ids):
    window = 8
    expected = 0.0
    with torch.no_grad():
        for target in range(1, len(ids)):
            context = ids[max(0, target - window) : target]
            log_p = torch.log_softmax(decoder(context[None])[0, -1].double(), dim=-1)
            expected -= float(log_p[ids[target]])
    result = score(decoder, ids, window=window, stride=1)
    assert result.nll_nats == pytest.approx(expected, rel=1e-6)
    assert result.minimum_context == window
    # The windows do matter: without overlap the same text costs something else.
    assert score(decoder, ids, window=window, stride=window).nll_nats != pytest.approx(
        expected, rel=1e-4
    )


@settings(deadline=None, max_examples=80)
@given(data=st.data(), tokens=st.integers(2, 60), window=st.integers(2, 70))
def test_every_token_but_the_first_is_scored_once(data, tokens, window):
    stride = data.draw(st.integers(1, window))
    ids = data.draw(st.permutations(range(tokens)))
    model = KnownCost(tokens)
    result = score(model, list(ids), window=window, stride=stride)
    # Every token has its own cost, so a token left out or scored twice changes the sum.
    expected = -float(model.log_p[torch.tensor(ids[1:])].sum())
    assert result.nll_nats == pytest.approx(expected, rel=1e-9)
    assert result.tokens == tokens - 1
    assert result.windows == len(model.reads)
    assert max(model.reads) <= window
    assert sum(model.reads) < tokens + result.windows * (window - stride) + 1


@settings(deadline=None, max_examples=80)
@given(data=st.data(), predictions=st.integers(1, 200), window=st.integers(2, 90))
def test_windows_partition_the_predictions_and_keep_context(data, predictions, window):
    stride = data.draw(st.integers(1, window))
    pieces = list(sliding_windows(predictions, window, stride))
    fresh = [p for piece in pieces for p in range(piece.fresh, piece.end)]
    assert fresh == list(range(predictions))
    for piece in pieces[1:]:
        assert piece.end - piece.begin <= window
        assert piece.fresh + 1 - piece.begin >= window - stride + 1


def test_dropout_is_off_while_scoring_and_the_flags_come_back(llama, ids):
    flags = [m.training for m in llama.modules()]
    llama.train()
    llama.model.layers[0].eval()
    before = [m.training for m in llama.modules()]
    try:
        assert score(llama, ids).nll_nats > 0
        assert [m.training for m in llama.modules()] == before
    finally:
        for module, flag in zip(llama.modules(), flags, strict=True):
            module.training = flag


def test_uniform_guesses_have_the_vocabulary_as_perplexity():
    assert perplexity(lambda ids: torch.zeros(*ids.shape, 37), [1, 2, 3]) == pytest.approx(37)


@pytest.mark.parametrize(
    ("ids", "options", "error", "words"),
    [
        ([], {}, ValueError, "at least 2"),
        ([5], {}, ValueError, "at least 2"),
        ([1, 67], {}, ValueError, "outside the vocabulary 0..66"),
        ([1, -1], {}, ValueError, "outside the vocabulary"),
        (torch.zeros(2, 5, dtype=torch.int64), {}, ValueError, "one text at a time"),
        (torch.zeros(5), {}, TypeError, "integer dtype"),
        ("text", {}, TypeError, "encode the text"),
        ([1.5, 2.0], {}, TypeError, "ints only"),
        ([[1, 2]], {}, TypeError, "ints only"),
        ([1, 2, 3], {"window": 1}, ValueError, "window must be at least 2"),
        ([1, 2, 3], {"window": 4, "stride": 5}, ValueError, "stride (5) exceeds window (4)"),
        ([1, 2, 3], {"window": 4, "stride": 0}, ValueError, "stride must be at least 1"),
        ([1, 2, 3], {"window": 4.0}, TypeError, "window must be an int"),
        ([1] * 80, {"window": 70}, ValueError, "64 positions"),
    ],
)
def test_bad_arguments_are_named(decoder, ids, options, error, words):
    with pytest.raises(error) as caught:
        score(decoder, ids, **options)
    assert words in str(caught.value)


def test_a_model_that_returns_something_else_is_refused():
    with pytest.raises(TypeError, match="logits tensor"):
        score(lambda ids: "text", [1, 2])
    with pytest.raises(ValueError, match="batch, time, vocabulary"):
        score(lambda ids: torch.zeros(1, 5, 9), [1, 2])
    with pytest.raises(ValueError, match="the model has 5 logits"):
        score(lambda ids: torch.zeros(*ids.shape, 5), [1, 9])
    with pytest.raises(ValueError, match="NaN"):
        score(lambda ids: torch.full((*ids.shape, 5), float("nan")), [1, 2])


def test_defaults_follow_the_model_and_the_text(decoder):
    long = score(decoder, [i % 67 for i in range(150)])
    assert (long.window, long.stride, long.tokens) == (64, 32, 149)
    assert long.minimum_context == 33
    short = score(decoder, [1, 2, 3])
    assert (short.window, short.windows, short.minimum_context) == (2, 1, 1)
