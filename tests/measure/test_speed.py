from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from slmlab.measure import interleaved, tokens_per_second
from slmlab.measure.speed import DecoderStepper, TransformersStepper, stepper
from slmlab.measure.timing import check_threads, threads


def lengths_read(model, embedding, **options):
    """Lengths of all forward passes of one measurement."""
    lengths: list[int] = []
    hook = embedding.register_forward_hook(lambda _m, args, _o: lengths.append(args[0].shape[-1]))
    try:
        return tokens_per_second(model, **options), lengths
    finally:
        hook.remove()


@pytest.mark.parametrize("kind", ["decoder", "llama", "language model"])
def test_counts_of_passes(kind, decoder, llama):
    model = llama if kind == "llama" else decoder
    embedding = llama.model.embed_tokens if kind == "llama" else decoder.embed_tokens
    subject = SimpleNamespace(model=decoder, tokenizer=None) if "language" in kind else model
    options = {"prompt_tokens": 5, "new_tokens": 3, "repeats": 2, "warmup": 1}
    before = torch.get_num_threads()
    speed, lengths = lengths_read(subject, embedding, **options)
    assert lengths == [5, 1, 1, 1] * 3
    assert torch.get_num_threads() == before
    assert speed.n == speed.prefill.n == 2
    assert speed.num_threads == 1
    assert speed.decode_tokens_per_second == pytest.approx(3 / speed.decode.median_seconds)
    assert speed.prefill_tokens_per_second == pytest.approx(5 / speed.prefill.median_seconds)
    assert speed.best_decode_tokens_per_second >= speed.decode_tokens_per_second
    assert speed.best_prefill_tokens_per_second >= speed.prefill_tokens_per_second
    assert len(speed.decode.process) == 2
    assert "tokens/s" in str(speed)


def test_the_timed_path_computes_the_models_own_logits(decoder, llama, ids):
    cases = (
        (decoder, DecoderStepper, decoder),
        (llama, TransformersStepper, lambda x: llama(x).logits),
    )
    for model, kind, forward in cases:
        runner = stepper(model, 20)
        assert isinstance(runner, kind)
        with torch.inference_mode():
            for _ in range(2):
                runner.restart()
                runner.feed(ids[None, :9])
                last = runner.feed(ids[None, 9:10])
            expected = forward(ids[None, :10])[:, -1]
        assert last.shape == expected.shape == (1, 67)
        assert torch.allclose(last, expected, atol=1e-4)


def test_a_prompt_of_ones_own(decoder):
    speed, lengths = lengths_read(
        decoder, decoder.embed_tokens, prompt_ids=[1, 2, 3, 4], new_tokens=1, repeats=1, warmup=0
    )
    assert lengths == [4, 1]
    assert speed.prompt_tokens == 4


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"prompt_tokens": 0}, ValueError, "prompt_tokens must be at least 1"),
        ({"new_tokens": 0}, ValueError, "new_tokens must be at least 1"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1"),
        ({"warmup": -1}, ValueError, "warmup must be at least 0"),
        ({"num_threads": 0}, ValueError, "num_threads must be at least 1"),
        ({"num_threads": 100_000}, ValueError, "num_threads is 100000, this machine has"),
        ({"num_threads": True}, TypeError, "num_threads must be an int"),
        ({"repeats": 1.5}, TypeError, "repeats must be an int"),
        ({"prompt_tokens": 60, "new_tokens": 10}, ValueError, "64 positions: ask for 6 fewer"),
        ({"prompt_ids": [99]}, ValueError, "outside the vocabulary"),
        ({"prompt_ids": []}, ValueError, "at least 1"),
    ],
)
def test_bad_arguments_are_named(decoder, options, error, words):
    with pytest.raises(error) as caught:
        tokens_per_second(decoder, **options)
    assert words in str(caught.value)


def test_a_model_without_a_cache_is_refused():
    with pytest.raises(TypeError, match="cannot decode with a cache"):
        tokens_per_second(torch.nn.Linear(2, 2))


def test_interleaved_alternates_and_pairs():
    order: list[str] = []
    result = interleaved(lambda: order.append("a"), lambda: order.append("b"), repeats=3, warmup=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert result.n == result.a.n == result.b.n == 3
    expected = sorted(x / y for x, y in zip(result.a.wall, result.b.wall, strict=True))
    assert result.ratio == expected[1]
    assert (result.ratio_low, result.ratio_high) == (expected[0], expected[-1])
    assert result.ratio_of_minima == min(result.a.wall) / min(result.b.wall)


def test_interleaved_refuses_what_it_cannot_call():
    with pytest.raises(TypeError, match="b must be callable"):
        interleaved(lambda: None, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="repeats"):
        interleaved(lambda: None, lambda: None, repeats=0)


@pytest.mark.parametrize("cores", [1, 4, None])
def test_no_more_threads_than_cores(cores, monkeypatch):
    wanted: list[int] = []
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", wanted.append)
    most = cores or 1
    assert check_threads("num_threads", most) == most
    for bad in (most + 1, 100_000, 10**30, 0, -1):
        for call in (
            lambda bad=bad: interleaved(lambda: None, lambda: None, num_threads=bad),
            lambda bad=bad: threads(bad).__enter__(),
        ):
            with pytest.raises(ValueError, match="num_threads"):
                call()
    assert wanted == []


def test_threads_come_back_after_an_error():
    def fail() -> None:
        raise RuntimeError("stop")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="stop"):
            interleaved(fail, fail)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
