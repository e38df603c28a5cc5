from __future__ import annotations

import base64
import io
import json
import math
from types import SimpleNamespace
from typing import Any, cast

import ipywidgets
import pytest
import torch
from PIL import Image

from slmlab.measure import kl_to_reference
from slmlab.models import Decoder, ModelConfig
from slmlab.quant import QuantizedLinear, parse_scheme, quantize_model
from slmlab.widgets import quantization_bench
from slmlab.widgets.card import CardFigure
from slmlab.widgets.quantization import Bench, Explorer, State, explorer, stops_paying
from slmlab.widgets.quantization_picture import frontier_lines
from slmlab.widgets.quantization_table import BENCHMARK, Table, load_table, speed_plot
from slmlab.widgets.quantization_view import (
    BITS,
    GROUPS,
    QUESTION,
    ROW,
    all_schemes,
    scheme_of,
    trade,
    view,
)

VIEW_MIME = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def model() -> Decoder:
    config = ModelConfig.from_hf(
        SimpleNamespace(
            model_type="llama",
            vocab_size=96,
            hidden_size=256,
            intermediate_size=384,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=128,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )
    )
    decoder = Decoder(config).eval()
    random = torch.Generator().manual_seed(0)
    for parameter in decoder.parameters():
        if parameter.dim() == 2:
            parameter.data = torch.randn(parameter.shape, generator=random) / 12
    return decoder


@pytest.fixture(scope="module")
def bench(model: Decoder) -> Bench:
    return Bench(model, range(64))


@pytest.mark.parametrize("scheme", ["int4-g32", "int3-row", "int4-g64-asym", "nf4-g64"])
def test_a_try_is_what_the_quantised_model_does(bench: Bench, model: Decoder, scheme: str) -> None:
    quantised = quantize_model(model, scheme)
    wanted = kl_to_reference(quantised, model, bench.ids[0])
    layers = [m for m in quantised.modules() if isinstance(m, QuantizedLinear)]
    found = bench.damage(scheme)
    assert found.kl_nats == pytest.approx(wanted.mean_kl_nats, rel=1e-3)
    assert found.flips == pytest.approx(wanted.argmax_flip_share)
    stored = sum(layer.weight.nbytes for layer in layers)
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    assert found.bits_per_weight == pytest.approx(8 * stored / weights)
    codes = parse_scheme(scheme).code_bits
    assert found.metadata_bits == pytest.approx(found.bits_per_weight - codes)


def test_the_model_is_left_alone_and_nothing_is_tried_twice(
    model: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls: list[Any] = []
    original = quantization_bench.quantize_tensor

    def counted(*args: Any) -> Any:
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(quantization_bench, "quantize_tensor", counted)
    fresh = Bench(model, range(16))
    shown = explorer(fresh)
    assert set(fresh.tried) == set(all_schemes(fresh.longest_row))
    tried = len(calls)
    assert tried == len(fresh.tried) * len(fresh.layers)
    for name, value in (("group", ROW), ("bits", 3), ("symmetric", False), ("group", 16)):
        shown.controls[name].value = value
    assert len(calls) == tried
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_entropy_of_codes_by_hand(bench: Bench) -> None:
    steps = bench.steps("int2-row")
    shares = [float((steps.positions.round().clamp(-1, 1) == c).float().mean()) for c in (-1, 0, 1)]
    assert steps.entropy_bits == pytest.approx(
        -sum(p * math.log2(p) for p in shares if p), rel=1e-4
    )
    assert steps.entropy_bits <= math.log2(3) + 1e-6


def test_every_state_names_a_scheme_that_exists() -> None:
    for bits in BITS:
        for group in GROUPS:
            for symmetric in (True, False):
                scheme = parse_scheme(scheme_of(State(bits, group, symmetric), 1024))
                assert scheme.code_bits == bits
                if bits < 8:
                    assert scheme.symmetric is symmetric
                wanted = None if group == ROW else group
                assert scheme.group_size == (1024 if group == ROW and scheme.group_size else wanted)


def test_the_trade_is_per_whole_bit(bench: Bench) -> None:
    found = trade(bench, State(4, 64))
    assert found is not None and found.smaller == 32
    here, finer, wider = (bench.damage(s) for s in ("int4-g64", "int4-g32", "int8-g64"))
    # fp16 scales: one more for each 64 weights, where groups divide the rows.
    assert found.more_bits == pytest.approx(16 / 64)
    assert found.kl_factor == pytest.approx(finer.kl_nats / here.kl_nats)
    assert found.a_bit_of_metadata == pytest.approx(found.kl_factor**4)
    assert found.a_bit_of_code == pytest.approx((wider.kl_nats / here.kl_nats) ** (1 / 4))
    assert found.pays is (found.a_bit_of_metadata < found.a_bit_of_code)
    for none in (State(8, 64), State(4, GROUPS[-1])):
        assert trade(bench, none) is None


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_the_answer_is_the_first_step_that_does_not_pay(bench: Bench, bits: int) -> None:
    answer = stops_paying(bench, bits)
    place = GROUPS.index(answer)
    before = [trade(bench, State(bits, group)) for group in GROUPS[:place]]
    assert all(step is None or step.pays for step in before)
    here = trade(bench, State(bits, answer))
    assert here is None or not here.pays
    # At most five moves of the slider away, and the sentence there says so.
    assert "metadata" in QUESTION and place <= 5
    if here is not None:
        assert view(bench, State(bits, answer)).paying.endswith("Metadata no longer pays.")


def test_the_widget_shows_what_the_view_says_and_keeps_pictures(bench: Bench) -> None:
    shown = explorer(bench)
    assert isinstance(shown, Explorer) and shown.state == State(4, 32, True)
    shown.controls["group"].value = 64
    expected = view(bench, State(4, 64))
    for sentence in (expected.headline, expected.bits, expected.paying):
        assert sentence in shown.text.value
    assert expected.paying in shown.image.value
    x, y = shown.picture.point.get_xydata()[0].tolist()  # type: ignore[union-attr, index]
    assert (x, y) == (expected.damage.bits_per_weight, expected.damage.kl_nats)
    drawn = shown.picture.pictures
    shown.controls["group"].value = 32
    assert shown.picture.pictures == drawn
    shown.controls["bits"].value, shown.controls["symmetric"].value = 8, False
    assert "no zero points" in shown.text.value
    assert "nan" not in shown.text.value and "None" not in shown.text.value
    assert {type(c) for c in shown.controls.values()} == {
        ipywidgets.Dropdown,
        ipywidgets.SelectionSlider,
    }
    data = shown._repr_mimebundle_()
    assert data[VIEW_MIME]["model_id"] == shown.box.model_id
    Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).verify()
    assert len(data["image/png"]) < 250_000


def test_the_frontier_orders_by_size(bench: Bench) -> None:
    for bits, points in frontier_lines(bench).items():
        sizes = [point.bits_per_weight for point in points]
        assert sizes == sorted(sizes) and all(bits < size for size in sizes)
    assert isinstance(explorer(bench, static=True), CardFigure)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda b: explorer(cast(Any, None)), TypeError, "pass Bench(lm, ids)"),
        (lambda b: explorer(b, state=cast(Any, "int4")), TypeError, "must be a State"),
        (lambda b: explorer(b, state=State(5)), ValueError, "state.bits=5"),
        (lambda b: explorer(b, state=State(4, 48)), ValueError, "state.group=48"),
        (lambda b: stops_paying(b, 8), ValueError, "one of 2, 3, 4"),
        (lambda b: b.damage("int5"), ValueError, "valid forms"),
        (lambda b: b.steps("nf4-g64"), ValueError, "evenly spaced"),
        (lambda b: Bench(b._float, [1]), ValueError, "at least two tokens"),
    ],
)
def test_bad_arguments_are_named(bench: Bench, call: Any, error: Any, words: str) -> None:
    with pytest.raises(error) as caught:
        call(bench)
    assert words in str(caught.value)


def _record() -> dict[str, Any]:
    def row(scheme: str, size: int, rate: float) -> dict[str, Any]:
        return {
            "scheme": scheme,
            "bits_per_weight": 4.5,
            "file_bytes": size,
            "kl_nats": 0.01,
            "argmax_flip_share": 0.08,
            "perplexity": 20.0,
            "tool_calls_right": 7,
            "tool_calls_n": 9,
            "tokens_per_second_predicted": 4 * rate,
            "tokens_per_second_measured": rate,
            "tokens_per_second_low": 0.9 * rate,
            "tokens_per_second_high": 1.1 * rate,
            "tokens_per_second_n": 5,
        }

    measured = {
        "model": "tiny",
        "text": "prose",
        "text_tokens": 2048,
        "rows": [row("float32", 40_000_000, 300.0), row("int4-g32", 7_000_000, 600.0)],
    }
    machine = {"cpu": "a core"}
    return {"benchmark": BENCHMARK, "commit": "abc" * 13, "machine": machine, "measured": measured}


def test_the_table_is_read_and_shown(tmp_path) -> None:
    assert load_table(tmp_path) is None
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps(_record()))
    table = load_table(tmp_path)
    assert isinstance(table, Table)
    text = table.text_table()
    for part in ("int4-g32", "7/9", "8.0%", "commit abcabca", "2,048 tokens of prose", "2,400"):
        assert part in text
    assert "int4-g32 is the fastest to write: 2.0 times" in speed_plot(table).alt
    with pytest.raises(ValueError, match=r"has float32, int4-g32"):
        table.row("int8")


@pytest.mark.parametrize("text", ["{", "{}", f'{{"benchmark": "{BENCHMARK}", "measured": {{}}}}'])
def test_a_damaged_table_is_refused(tmp_path, text: str) -> None:
    (tmp_path / f"{BENCHMARK}.json").write_text(text)
    with pytest.raises(ValueError, match="make it anew"):
        load_table(tmp_path)
