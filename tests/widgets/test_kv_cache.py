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

from slmlab.kv import CacheShape, ContiguousCache, QuantizedCache, kv_bytes
from slmlab.widgets.card import CardFigure
from slmlab.widgets.kv_cache import Explorer, State, explorer
from slmlab.widgets.kv_cache_bench import append_milliseconds
from slmlab.widgets.kv_cache_models import cache_configs
from slmlab.widgets.kv_cache_plots import growing_caches, shared_heads, token_cost
from slmlab.widgets.kv_cache_quality_plots import (
    bytes_and_damage,
    keys_beside_values,
    recall_by_window,
)
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


def test_the_bar_says_what_is_stored_not_what_would_be() -> None:
    models = cache_configs()
    figure = shared_heads({name: models[name] for name in ("Llama-2-7B", "Mistral-7B-v0.1")})
    (axes,) = figure.axes
    written = [text.get_text().strip() for text in axes.texts]
    assert written == ["512 KiB, 1 query head a KV head", "128 of 512 KiB, 4 query heads a KV head"]
    widths = [cast(Any, bar).get_width() for bar in axes.patches]
    assert widths == [512, 512, 512, 128]  # hatched, then stored, each


def test_recall_is_drawn_with_its_interval_and_what_distance_foresees() -> None:
    figure = recall_by_window(
        (8, None), (0.1, 1.0), ((0.03, 0.3), (0.84, 1.0)), (0.05, 1.0), 20, "x"
    )
    (axes,) = figure.axes
    ((bars,),) = (container.lines[2] for container in cast(Any, axes.containers))
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([0.03, 0.3]), pytest.approx([0.84, 1.0])]
    assert [0.05, 1.0] in [list(cast(Any, line.get_ydata())) for line in axes.lines]
    legend = axes.get_legend()
    assert legend is not None
    assert any("n = 20; bars: 95%" in text.get_text() for text in legend.get_texts())
    assert "8 10%; all 100%" in figure.alt


def test_the_other_pictures_draw_what_they_are_given() -> None:
    lines = {"fewer bits": [("8 bits", 32.0, 2e-6), ("4 bits", 21.0, 7e-4)]}
    damage = bytes_and_damage(lines, "damage")
    drawn = damage.axes[0]
    assert [text.get_text() for text in drawn.texts] == ["8 bits", "4 bits"]
    assert cast(Any, drawn.lines[0].get_xydata()).tolist() == [[32.0, 2e-6], [21.0, 7e-4]]
    cost = token_cost((2, 4), {"a": (3.0, 5.0)}, {"a": (1.0, 2.0)}, "cost")
    assert [cast(Any, line.get_ydata())[-1] for line in cost.axes[0].lines] == [2.0, 5.0]
    both = {"a": (1.0, 4.0), "b": (1.0, 2.0)}
    grown = growing_caches((1, 2), both, both, (8, 16), both, "grown")
    assert len(grown.axes) == 2 and "16 tokens: a 4 ms; b 2 ms" in grown.alt
    heads = keys_beside_values(torch.rand(2, 5, 3), (3.0, 1.5), "heads")
    assert [axes.get_title(loc="left") for axes in heads.axes[:2]] == [
        "keys: loudest channel 3.0 x the mean",
        "values: loudest channel 1.5 x the mean",
    ]
    for figure in (damage, cost, grown, heads):
        Image.open(io.BytesIO(figure.png())).verify()


def test_appends_are_timed_at_each_length_and_taken_back() -> None:
    cache = ContiguousCache(SMALL, max_length=17)
    times = append_milliseconds(cache, 2, torch.zeros(1, 2, 1, 64), (4, 16), repeats=2)
    assert len(times) == 2 and min(times) > 0
    assert cache.length == 16
