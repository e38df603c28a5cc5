from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.kv import kv_bytes
from slmlab.measure import Roofline, device, parse_scheme, predict_decode
from slmlab.models import ModelConfig
from slmlab.widgets.anatomy_view import (
    BATCHES,
    CONTEXTS,
    QUESTION,
    SCHEMES,
    State,
    answer,
    cache_equals_weights_at,
    make_bench,
    view,
)
from slmlab.widgets.device_memory import DEVICE_MEMORY_BYTES, machine_memory_bytes
from slmlab.widgets.published import PUBLISHED, published_configs

ROOFLINE = Roofline(
    bandwidth_gb_s=28.0,
    bandwidth_median_gb_s=27.0,
    bandwidth_min_gb_s=20.0,
    bandwidth_n=5,
    bandwidth_method="sum",
    gemv_gb_s=18.0,
    gemm_gflop_s=95.0,
    gemm_median_gflop_s=90.0,
    gemm_min_gflop_s=80.0,
    gemm_n=5,
    dtype="float32",
    buffer_bytes=2**27,
    seconds=2.0,
    process_share=1.0,
)
TINY = SimpleNamespace(
    vocab_size=2048,
    hidden_size=384,
    intermediate_size=1024,
    num_hidden_layers=6,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=64,
    tie_word_embeddings=True,
    max_position_embeddings=512,
)
BENCH = make_bench(TINY, ROOFLINE)

states = st.builds(
    State,
    model=st.sampled_from(list(BENCH.models)),
    scheme=st.sampled_from(SCHEMES),
    context=st.sampled_from(CONTEXTS),
    batch=st.sampled_from(BATCHES),
    device=st.sampled_from(list(BENCH.devices)),
)


@pytest.mark.parametrize(
    ("name", "parameters", "fp16_bytes_a_token"),
    # Parameters as the hub's safetensors metadata has them; cache bytes as LitGPT's table gives.
    [
        ("SmolLM2-135M", 134_515_008, 23_040),
        ("Qwen2.5-0.5B", 494_032_768, 12_288),
        ("Llama-3.2-1B", 1_235_814_400, 32_768),
    ],
)
def test_published_shapes_count_as_published(name, parameters, fp16_bytes_a_token):
    config = published_configs()[name]
    assert config.parameter_count() == parameters
    assert kv_bytes(config, 1) == fp16_bytes_a_token
    assert name in PUBLISHED[name].source


def test_llama_keeps_its_rope_scaling():
    rope = PUBLISHED["Llama-3.2-1B"].config().rope
    assert (rope.rope_type, rope.factor, rope.theta) == ("llama3", 32.0, 500_000.0)


def test_contexts_are_round_and_evenly_spaced_in_octaves():
    assert (CONTEXTS[0], CONTEXTS[-1], len(CONTEXTS)) == (128, 32768, 65)
    assert all(b > a for a, b in itertools.pairwise(CONTEXTS))
    assert {4096, 5120, 8192, 16384} <= set(CONTEXTS)
    assert all(c % 16 == 0 for c in CONTEXTS)


def test_schemes_are_known():
    for scheme in SCHEMES:
        assert parse_scheme(scheme).name == scheme


@given(states)
def test_every_state_has_a_view_that_agrees_with_the_prediction(state):
    shown = view(BENCH, state)
    p = predict_decode(
        BENCH.models[state.model],
        state.scheme,
        BENCH.devices[state.device],
        context=state.context,
        batch=state.batch,
    )
    assert shown.prediction == p
    assert shown.needed_bytes == p.stored_bytes + p.kv_bytes
    assert shown.cache_to_weights == pytest.approx(p.kv_bytes / p.weight_bytes)
    roof = p.intensity_flop_per_byte * p.bandwidth_gb_s
    if p.peak_gflop_s is not None:
        roof = min(roof, p.peak_gflop_s)
    assert shown.gflop_s == pytest.approx(roof)
    assert shown.limit.lower().startswith(p.limiting)
    other = "compute is the limit" if p.limiting == "memory bandwidth" else "bandwidth is the limit"
    assert other not in shown.text.lower()
    assert ("as far as is known" in shown.limit) is (p.peak_gflop_s is None)
    for unit in ("tokens/s", "GB/s", " GB weights", " GB KV cache"):
        assert unit in shown.text
    assert "nan" not in shown.text and "inf" not in shown.text and "None" not in shown.text


@given(states)
def test_fit_is_said_only_where_memory_is_known(state):
    shown = view(BENCH, state)
    if shown.memory_bytes is None:
        assert shown.fits is None and "several sizes" in shown.memory
    else:
        assert shown.fits is (shown.needed_bytes <= shown.memory_bytes)
        assert ("does not fit" in shown.memory) is (not shown.fits)


@given(states)
def test_more_context_needs_more_memory_and_is_no_faster(state):
    longer = CONTEXTS[min(CONTEXTS.index(state.context) + 1, len(CONTEXTS) - 1)]
    a = view(BENCH, state)
    b = view(BENCH, State(**{**vars(state), "context": longer}))
    assert b.needed_bytes >= a.needed_bytes
    assert b.prediction.tokens_per_second <= a.prediction.tokens_per_second


def test_the_start_is_this_machine_where_it_was_measured():
    assert BENCH.start().device == "this machine"
    assert next(iter(BENCH.models)) == "loaded model"
    plain = make_bench()
    assert "loaded model" not in plain.models and "this machine" not in plain.devices
    start = view(plain, plain.start())
    assert 0 < start.cache_to_weights < 1


def test_a_context_beyond_the_model_is_noted():
    long = view(BENCH, State("SmolLM2-135M", context=16384))
    assert long.notes == ("Note: SmolLM2-135M is made for contexts up to 8,192 tokens.",)
    assert view(BENCH, State("SmolLM2-135M", context=8192)).notes == ()


def test_only_devices_with_a_bandwidth_are_offered_and_memory_names_exist():
    assert "AMD Ryzen 7040 NPU" not in BENCH.devices
    for name, size in DEVICE_MEMORY_BYTES.items():
        assert device(name).name == name
        if "GB" in name:
            assert f"{size // 10**9}GB" in name


def test_the_question_and_its_answer():
    found = answer()
    assert found["SmolLM2-135M"] == (134_515_008, 5053)
    assert found["Llama-3.2-1B"] == (1_235_814_400, 32_741)
    # What the question claims: nine times larger, and both answers can be reached.
    assert round(found["Llama-3.2-1B"][0] / found["SmolLM2-135M"][0]) == 9
    assert "nine times larger" in QUESTION
    for name in ("SmolLM2-135M", "Llama-3.2-1B"):
        at = found[name][1]
        assert at is not None and at <= max(CONTEXTS) and name in QUESTION
        stop = min(c for c in CONTEXTS if c >= at)
        assert 1 <= view(BENCH, State(name, context=stop)).cache_to_weights < 1.05


def test_in_float16_the_crossing_lies_beyond_what_the_model_is_made_for():
    config = published_configs()["SmolLM2-135M"]
    assert cache_equals_weights_at(config, "float16") == 11_677 > config.max_position_embeddings


@given(
    scheme=st.sampled_from(SCHEMES),
    batch=st.sampled_from(BATCHES),
    name=st.sampled_from(list(BENCH.models)),
)
def test_the_crossing_is_the_first_context_that_reaches(scheme, batch, name):
    config = BENCH.models[name]
    at = cache_equals_weights_at(config, scheme, batch)
    assert at is not None

    def ratio(context: int) -> float:
        p = predict_decode(config, scheme, (1.0, None), context=context, batch=batch)
        return p.kv_bytes / p.weight_bytes

    assert ratio(at) >= 1 > ratio(at - 1)


def test_a_short_window_never_reaches():
    fields = {**PUBLISHED["Llama-3.2-1B"].fields, "model_type": "mistral", "sliding_window": 512}
    fields.pop("rope_scaling")
    windowed = ModelConfig.from_hf(SimpleNamespace(**fields))
    assert cache_equals_weights_at(windowed) is None


def test_a_model_may_come_as_lm_model_or_config():
    model = SimpleNamespace(config=TINY)
    language_model = SimpleNamespace(model=model, tokenizer=None)
    for form in (TINY, model, language_model):
        assert make_bench(form).models["loaded model"] is TINY


def test_memory_of_a_container_counts(tmp_path):
    plain = machine_memory_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory_bytes(tmp_path) == plain
    (tmp_path / "memory.max").write_text("2147483648\n")
    assert machine_memory_bytes(tmp_path) == min(plain, 2**31)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: view(BENCH, State("GPT-5")), ValueError, "model 'GPT-5'"),
        (
            lambda: view(BENCH, State("SmolLM2-135M", device="AMD Ryzen 7040 NPU")),
            ValueError,
            "dev",
        ),
        (lambda: make_bench(roofline=cast(Any, (28, 95))), TypeError, "Roofline.measure()"),
        (lambda: make_bench(SimpleNamespace(hidden_size=3)), ValueError, "vocab_size"),
        (lambda: cache_equals_weights_at(TINY, "int5"), ValueError, "valid forms"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
