from __future__ import annotations

import base64
import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slmlab.kv import CacheShape, QuantizedCache, kv_bytes
from slmlab.widgets.card import CardFigure
from slmlab.widgets.kv_cache import Explorer, State, explorer
from slmlab.widgets.kv_cache_models import cache_configs
from slmlab.widgets.kv_cache_view import (
    MEMORY_GB,
    QUESTION,
    cache_bytes,
    context_that_fits,
    fits_beside_weights,
    longest,
    make_models,
    view,
)

SMALL = SimpleNamespace(
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64
)
# KiB a token and bytes at 8,192 tokens, float16, counted from LitGPT's table (Lightning-AI/litgpt,
# litgpt/config.py at commit 26857050fe3f).
COUNTED = {
    "SmolLM2-135M": (22.5, 188743680),
    "Qwen2.5-0.5B": (12.0, 100663296),
    "Llama-3.2-1B": (32.0, 268435456),
    "Gemma-3-1B": (26.0, 45088768),
    "Llama-2-7B": (512.0, 4294967296),
    "Mistral-7B-v0.1": (128.0, 536870912),
}


@pytest.mark.parametrize("name", COUNTED)
def test_published_shapes_take_the_bytes_counted_elsewhere(name: str) -> None:
    config = cache_configs()[name]
    kib, at_8192 = COUNTED[name]
    assert cache_bytes(config, 1) == kib * 1024
    assert cache_bytes(config, 8192) == at_8192
    assert set(COUNTED) == set(cache_configs())


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("tokens", [1, 32, 63, 64, 65, 95, 96, 200])
def test_quantised_bytes_are_those_of_the_cache(bits: int, tokens: int) -> None:
    cache = QuantizedCache(SMALL, bits=bits, batch=2, dtype=torch.float16)
    row = torch.zeros(2, 2, tokens, 64, dtype=torch.float16)
    for layer in range(2):
        cache.append(layer, row, row)
    assert cache_bytes(SMALL, tokens, 2, f"int{bits}") == cache.nbytes


def test_a_window_caps_every_layer_and_never_widens_one() -> None:
    gemma = cache_configs()["Gemma-3-1B"]
    assert cache_bytes(gemma, 10_000, window=512) == 26 * 512 * 1024
    assert cache_bytes(gemma, 10_000, window=4096) < cache_bytes(gemma, 10_000)
    local = CacheShape.of(gemma).layer_windows.count(512)
    assert cache_bytes(gemma, 10_000, window=4096) == (local * 512 + 4 * 4096) * 1024
    assert cache_bytes(SMALL, 7, 3, "float32") == kv_bytes(SMALL, 7, 3, "float32")


@given(
    tokens=st.integers(1, 3000),
    spare=st.integers(0, 100),
    kind=st.sampled_from(("float32", "float16", "int8", "int4", "int2")),
    batch=st.integers(1, 4),
)
def test_what_fits_never_overflows_on_the_way(
    tokens: int, spare: int, kind: str, batch: int
) -> None:
    left = cache_bytes(SMALL, tokens, batch, kind) + spare
    found = context_that_fits(SMALL, left, batch, kind)
    assert found is not None
    sizes = [cache_bytes(SMALL, n, batch, kind) for n in range(found + 2)]
    assert max(sizes[:-1]) <= left < sizes[-1]


def test_nothing_fits_and_any_length_fits() -> None:
    models = cache_configs()
    assert fits_beside_weights(models["Llama-2-7B"], 2) == 0
    assert context_that_fits(SMALL, 10) == 0
    assert fits_beside_weights(models["Mistral-7B-v0.1"], 8) is None
    assert fits_beside_weights(models["Llama-2-7B"], 8, window=128) is None


def test_the_answer_holds_more_than_every_other_model() -> None:
    assert "2 GB" in QUESTION
    best = longest()
    held = {name: fits_beside_weights(c, 2) or 0 for name, c in cache_configs().items()}
    assert held[best] == max(held.values()) and best != "SmolLM2-135M"
    assert longest(8) == "Mistral-7B-v0.1"
    # One model after the other: five moves are enough to see them all.
    assert len(cache_configs()) - 1 <= 5


def test_the_view_says_what_was_computed() -> None:
    models = make_models(SMALL_MODEL)
    shown = view(models, State("loaded model", kind="int4", batch=4, context=1024))
    assert shown.cache_bytes == cache_bytes(SMALL_MODEL, 1024, 4, "int4")
    step = cache_bytes(SMALL_MODEL, 320, 4, "int4") - cache_bytes(SMALL_MODEL, 288, 4, "int4")
    assert shown.token_bytes == step / 32
    assert set(shown.fits) == set(MEMORY_GB)
    for words in ("4 conversations", "2 KV heads of 64", "4 query heads", "Scales and minima"):
        assert words in shown.text
    windowed = view(models, State("Mistral-7B-v0.1", window=512))
    assert "any length" in windowed.text and "forgotten" in windowed.text


SMALL_MODEL = SimpleNamespace(
    **vars(SMALL), vocab_size=96, hidden_size=256, intermediate_size=384, model_type="llama"
)


def test_the_widget_shows_the_view_and_keeps_pictures() -> None:
    shown = explorer(SMALL_MODEL)
    assert isinstance(shown, Explorer) and shown.state == State()
    for name, value in (("model", "Gemma-3-1B"), ("kind", "int4"), ("batch", 8), ("window", 256)):
        shown.controls[name].value = value
        assert shown.view.headline.split(",")[0] in shown.text.value
        assert shown.view.room in shown.text.value and "None" not in shown.text.value
    drawn = shown.picture.pictures
    shown.controls["window"].value = "the model's own"
    shown.controls["window"].value = 256
    assert shown.picture.pictures == drawn  # both were drawn before
    data = shown._repr_mimebundle_()
    Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).verify()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.box.model_id
    assert isinstance(explorer(static=True), CardFigure)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: explorer(state=cast(Any, "int4")), TypeError, "must be a State"),
        (lambda: explorer(state=State("GPT-2")), ValueError, "state.model='GPT-2'"),
        (lambda: explorer(state=State(window=300)), ValueError, "state.window=300"),
        (lambda: explorer(SimpleNamespace()), ValueError, "config has vocab_size=None"),
        (lambda: view(cache_configs(), State("tiny")), ValueError, "not offered"),
        (lambda: cache_bytes(SMALL, 8, kind="int3"), ValueError, "kind 'int3'"),
    ],
)
def test_bad_arguments_are_named(call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=None) as caught:
        call()
    assert words in str(caught.value)
