"""Every cache as past_key_values: transformers itself, without them, is the oracle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from slmlab.kv import BlockPool, ContiguousCache, PagedCache
from slmlab.kv.concatenating import ConcatenatingCache
from slmlab.kv.quantized import QuantizedCache
from slmlab.kv.transformers_cache import as_transformers_cache
from slmlab.kv.window import SlidingWindowCache
from tests.models.layouts import assert_same_logits, random_model

LAYOUTS = ["llama", "qwen2", "mistral-window", "qwen2-mixed-window"]
NEW = 12  # tokens, after a prompt of 11: well past the windows of 6 and 7


@cache
def model(layout: str) -> Any:
    return random_model(layout)


def ids(batch: int = 1, time: int = 11, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 97, (batch, time), generator=generator)


def contiguous(config: Any, batch: int) -> ContiguousCache:
    return ContiguousCache(config, batch, max_length=64)


def concatenating(config: Any, batch: int) -> ConcatenatingCache:
    return ConcatenatingCache(config, batch)


def window(config: Any, batch: int) -> SlidingWindowCache:
    """The config's own windows; where it has none, one that holds the whole text."""
    own = getattr(config, "sliding_window", None)
    return SlidingWindowCache(config, None if own else 64, 4, batch, max_length=64)


def quantized(config: Any, batch: int) -> QuantizedCache:
    """In few bits only behind what these texts reach, so that tokens can be compared."""
    return QuantizedCache(config, 8, 8, residual=60, batch=batch)


def paged(config: Any, batch: int) -> PagedCache:
    return PagedCache(BlockPool(config, num_blocks=20, block_size=4))


MAKERS = [contiguous, concatenating, window, quantized, paged]
Maker = Callable[[Any, int], Any]


def generated(layout: str, prompt: Tensor, past: Any = None, **options: Any) -> Tensor:
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, **options}
    if past is not None:
        options["past_key_values"] = as_transformers_cache(past)
    return model(layout).generate(prompt, **options)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_generates_the_same_tokens(layout: str, make: Maker) -> None:
    for batch in (1,) if make is paged else (1, 2):
        past = make(model(layout).config, batch)
        prompt = ids(batch)
        got = generated(layout, prompt, past)
        assert torch.equal(got, generated(layout, prompt))
        assert past.length == 11 + NEW - 1  # the last token is not fed back


@pytest.mark.parametrize("make", [contiguous, window])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_generates_from_a_left_padded_batch(layout: str, make: Maker) -> None:
    prompt, mask = ids(2), torch.ones(2, 11, dtype=torch.long)
    prompt[1, :4], mask[1, :4] = 0, 0
    past = make(model(layout).config, 2)
    got = generated(layout, prompt, past, attention_mask=mask)
    assert torch.equal(got, generated(layout, prompt, attention_mask=mask))
    assert torch.equal(got[1, 4:], generated(layout, prompt[1:, 4:])[0])


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_forward_in_chunks_with_rewinds(layout: str, make: Maker) -> None:
    hf = model(layout)
    batch = 1 if make is paged else 2
    past = make(hf.config, batch)
    wrapped = as_transformers_cache(past)
    tokens = ids(batch, 0)
    with torch.inference_mode():
        for step, size in enumerate([3, 1, 9, 1, -2, 2, 1, -4, 12, -1, 1, -3, 1, 5]):
            if size < 0:
                wrapped.crop(size)
                tokens = tokens[:, :size]
                continue
            new = ids(batch, size, seed=step)
            tokens = torch.cat([tokens, new], dim=1)
            out = hf(new, past_key_values=wrapped)
            assert out.past_key_values is wrapped
            assert_same_logits(out.logits, hf(tokens).logits[:, -size:])
            assert wrapped.get_seq_length() == past.length == tokens.shape[1]


@pytest.mark.parametrize("layout", ["llama", "mistral-window"])
@pytest.mark.parametrize("make", MAKERS)
def test_assisted_generation(layout: str, make: Maker) -> None:
    """Prompt lookup guesses tokens and takes the wrong ones back, through ``crop``."""
    prompt = ids().repeat(1, 3)
    past = make(model(layout).config, 1)
    taken_back = []
    truncate = past.truncate

    def counted(n: int) -> None:
        taken_back.append(past.length - n)
        truncate(n)

    past.truncate = counted
    got = generated(layout, prompt, past, prompt_lookup_num_tokens=3)
    assert torch.equal(got, generated(layout, prompt))
    assert any(taken_back)


def test_quantised_tokens_reach_the_model() -> None:
    hf = model("llama")
    coarse, fine = (QuantizedCache(hf.config, bits, 4, residual=0, batch=2) for bits in (2, 8))
    tokens = ids(2, 40)
    reference = hf(tokens).logits
    off = []
    for past in (coarse, fine):
        wrapped = as_transformers_cache(past)
        parts = [hf(part, past_key_values=wrapped).logits for part in tokens.split(5, dim=1)]
        off.append((torch.cat(parts, dim=1) - reference).abs().max().item())
        assert past.quantized_length == 40
    assert off[0] > 1 and 0 < off[1] < 0.1


def test_a_window_that_the_model_does_not_know() -> None:
    """Token by token it is exact; a chunk would see too much, and is refused before it counts."""
    llama, mistral = model("llama"), model("mistral-window")
    mistral.load_state_dict(llama.state_dict())
    tokens = ids(1, 30)
    past = SlidingWindowCache(llama.config, 7, slack=4)
    wrapped = as_transformers_cache(past)
    with torch.inference_mode():
        parts = [llama(tokens[:, :7], past_key_values=wrapped).logits]
        with pytest.raises(ValueError, match=r"window=7 is narrower .* 2 tokens after 7 would see"):
            llama(tokens[:, 7:9], past_key_values=wrapped)
        assert past.length == 7
        for at in range(7, 30):
            parts.append(llama(tokens[:, at : at + 1], past_key_values=wrapped).logits)
        assert_same_logits(torch.cat(parts, dim=1), mistral(tokens).logits)
    got = generated("llama", tokens, SlidingWindowCache(llama.config, 7), prefill_chunk_size=1)
    assert torch.equal(got, generated("mistral-window", tokens))
    with pytest.raises(ValueError, match="generate takes prefill_chunk_size=1"):
        generated("llama", tokens, SlidingWindowCache(llama.config, 7))


def test_a_cache_that_was_filled_before() -> None:
    hf = model("mistral-window")
    tokens = ids(1, 30)
    past = SlidingWindowCache(hf.config)
    with torch.inference_mode():
        hf(tokens[:, :12], past_key_values=as_transformers_cache(past))
        again = as_transformers_cache(past)
        assert again.get_seq_length() == 12 and again.is_initialized
        wanted = hf(tokens).logits
        assert_same_logits(hf(tokens[:, 12:], past_key_values=again).logits, wanted[:, 12:])
        again.reset()
        assert past.length == 0 and not again.is_initialized
        assert_same_logits(hf(tokens, past_key_values=again).logits, wanted)
        full = ContiguousCache(model("llama").config, max_length=40)
        model("llama")(tokens[:, :9], past_key_values=as_transformers_cache(full))
        again = as_transformers_cache(full)
        got = model("llama")(tokens[:, 9:], past_key_values=again).logits
        assert_same_logits(got, model("llama")(tokens).logits[:, 9:])
        again.reset()
        assert full.length == 0


def test_what_it_answers() -> None:
    hybrid = model("qwen2-mixed-window").config
    wrapped = as_transformers_cache(SlidingWindowCache(hybrid, max_length=50))
    assert wrapped.is_sliding == [False, True, True] and len(wrapped) == 3
    assert wrapped.is_croppable and not wrapped.is_compileable
    assert wrapped.get_mask_sizes(9, 1) == (9, 0)
    assert [wrapped.get_max_length(layer) for layer in range(3)] == [-1, 6, 6]
    full = as_transformers_cache(ContiguousCache(hybrid, max_length=50))
    assert full.get_max_length() == full.get_max_length(2) == 50
    assert as_transformers_cache(ConcatenatingCache(hybrid)).get_max_length() == -1
    full.crop(0)
    assert full.get_seq_length() == 0


def test_beams_are_refused() -> None:
    past = ContiguousCache(model("llama").config, 2, max_length=40)
    with pytest.raises(ValueError, match="ContiguousCache cannot reorder its rows"):
        generated("llama", ids(), past, num_beams=2)
    wrapped = as_transformers_cache(past)
    with pytest.raises(ValueError, match="cannot repeat its rows"):
        wrapped.batch_repeat_interleave(2)
    with pytest.raises(ValueError, match="cannot drop rows"):
        wrapped.batch_select_indices(torch.tensor([0]))


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="DynamicCache lacks append, truncate, length, nbytes"):
        from transformers import DynamicCache

        as_transformers_cache(DynamicCache())
    hf = model("llama")
    with pytest.raises(ValueError, match=r"\(1, 2, T, 8\): make it with this model's config"):
        hf(ids(2), past_key_values=as_transformers_cache(ConcatenatingCache(hf.config, 1)))


def test_transformers_is_imported_on_first_use_only() -> None:
    code = "import sys, slmlab.kv, slmlab.kv.transformers_cache; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
