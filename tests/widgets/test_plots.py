from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from slmlab.measure import devices, parse_scheme, predict_decode, weight_bytes_stored
from slmlab.models import Decoder, ModelConfig
from slmlab.widgets import (
    PUBLISHED,
    RooflinePoint,
    parameter_bars,
    prediction_vs_measured,
    roofline_plot,
)
from slmlab.widgets.parameter_bars import part_sizes
from slmlab.widgets.roof import log_ticks
from slmlab.widgets.roofline_plot import bound_by

LLAMA = PUBLISHED["Llama-3.2-1B"].config()
SMOL = PUBLISHED["SmolLM2-135M"].config()
HERE = (28.0, 95.0)


def _texts(figure: Any) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]


def _inside(figure: Any, slack: float = 1.0) -> None:
    """Every visible text lies on the card."""
    figure.canvas.draw()
    card = figure.bbox
    for text in figure.findobj(Text):
        if not (text.get_text().strip() and text.get_visible()):
            continue
        box = text.get_window_extent()
        assert box.x0 >= -slack and box.x1 <= card.x1 + slack, text.get_text()
        assert box.y0 >= -slack and box.y1 <= card.y1 + slack, text.get_text()


def _singles(axes: Any) -> dict[tuple[float, float], str]:
    """Face colour of every line that is one marker, by its place."""
    return {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor()
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }


def _points() -> list[RooflinePoint]:
    decode = predict_decode(SMOL, "float32", HERE, context=128)
    prefill = predict_decode(SMOL, "float32", HERE, batch=128)
    return [
        RooflinePoint.predicted_from("decode: batch 1", decode),
        RooflinePoint.measured_from("decode: batch 1", decode, 20.0),
        RooflinePoint.predicted_from("prefill: 128 tokens", prefill),
        RooflinePoint.measured_from("prefill: 128 tokens", prefill, 200.0),
    ]


def test_roofline_says_what_limits_each_point():
    figure = roofline_plot(HERE, _points(), dtype="float32")
    texts = _texts(figure)
    assert "Memory bandwidth limits decode; compute limits prefill" in texts
    assert f"ridge {95 / 28:.2f} FLOP/byte" in texts
    assert "arithmetic intensity (FLOP a byte read)" in texts
    assert "attainable rate (GFLOP/s)" in texts
    for point in _points():
        kind = "measured" if point.measured else "predicted"
        assert f"{point.label} ({kind})" in texts
    _inside(figure)


def test_predicted_is_hollow_measured_is_filled_at_their_places():
    figure = roofline_plot(HERE, _points(), dtype="float32")
    drawn = _singles(figure.axes[0])
    for point in _points():
        hollow = drawn[(point.intensity, point.gflop_s)] == "#FFFFFF"
        assert hollow is not point.measured


def test_points_come_from_the_prediction():
    p = predict_decode(SMOL, "float32", HERE, context=128, batch=4)
    top = RooflinePoint.predicted_from("a", p)
    assert top.gflop_s == pytest.approx(min(95.0, 28.0 * p.intensity_flop_per_byte))
    reached = RooflinePoint.measured_from("a", p, p.tokens_per_second)
    assert reached.gflop_s == pytest.approx(top.gflop_s) and reached.measured


@pytest.mark.parametrize("name", [d.name for d in devices() if d.bandwidth_gb_s is not None])
def test_every_device_has_a_roof_whose_text_fits(name):
    figure = roofline_plot(name)
    row = next(d for d in devices() if d.name == name)
    ridge = [t for t in _texts(figure) if t.startswith("ridge")]
    assert bool(ridge) is (row.ridge_flop_per_byte() is not None)
    _inside(figure)


@settings(max_examples=8)
@given(
    bandwidth=st.floats(1, 4000),
    peak=st.none() | st.floats(10, 1e6),
    intensity=st.floats(0.05, 5000),
    rate=st.floats(1e-3, 1e6),
)
def test_points_and_labels_stay_in_the_frame(bandwidth, peak, intensity, rate):
    point = RooflinePoint("decode", intensity, rate, measured=True)
    figure = roofline_plot((bandwidth, peak), [point])
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert left < intensity < right and bottom < rate < top
    wanted = "compute" if peak is not None and intensity > peak / bandwidth else "memory bandwidth"
    assert bound_by(point, bandwidth, peak) == wanted
    assert wanted in figure.alt.lower()


def test_labels_of_points_do_not_overlap():
    same = [RooflinePoint(f"run {i}", 1.0, 10.0 + i / 10, measured=True) for i in range(4)]
    figure = roofline_plot(HERE, same)
    figure.canvas.draw()
    # An annotation's own extent includes its line to the point; the text's does not.
    boxes = [
        Text.get_window_extent(t)
        for t in figure.findobj(Text)
        if t.get_text().startswith("run ")  # type: ignore[attr-defined]
    ]
    assert len(boxes) == 4
    for a, b in itertools.combinations(boxes, 2):
        assert a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1


@given(st.floats(0.001, 1e6), st.floats(1.5, 1e6))
def test_ticks_lie_in_the_axis(low, ratio):
    ticks = log_ticks(low, low * ratio)
    assert all(low * 0.999 <= t <= low * ratio * 1.001 for t in ticks)
    assert ticks == sorted(ticks)
    if ratio >= 8:
        assert len(ticks) >= 2


def _decoder_parts(config: ModelConfig) -> dict[str, int]:
    """Parameters by name, counted in the real module."""
    parts = dict.fromkeys(("embedding", "attention", "MLP", "norms", "head"), 0)
    for name, tensor in Decoder(config).named_parameters():
        if "embed" in name:
            part = "embedding"
        elif "lm_head" in name:
            part = "head"
        elif "norm" in name or name.endswith("bias"):
            part = "norms"
        elif "mlp" in name or "gate_up" in name or "down_proj" in name:
            part = "MLP"
        else:
            part = "attention"
        parts[part] += tensor.numel()
    return {part: count for part, count in parts.items() if count}


_SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_parts_are_those_of_the_real_decoder(family, tied):
    config = ModelConfig.from_hf(
        SimpleNamespace(model_type=family, tie_word_embeddings=tied, **_SMALL)
    )
    sizes = part_sizes(config, "float32")
    assert sizes.parameters == _decoder_parts(config)
    assert sizes.bytes == {part: 4 * count for part, count in sizes.parameters.items()}


@given(
    scheme=st.sampled_from(["float32", "bfloat16", "int8", "int4-g32", "nf4-g64-dq", "int2-row"]),
    name=st.sampled_from(sorted(PUBLISHED)),
    tied=st.booleans(),
)
def test_bytes_add_up_to_what_is_stored(scheme, name, tied):
    fields = {**PUBLISHED[name].fields, "tie_word_embeddings": tied}
    config = ModelConfig.from_hf(SimpleNamespace(**fields))
    sizes = part_sizes(config, scheme)
    assert sum(sizes.bytes.values()) == weight_bytes_stored(config, scheme)
    assert sum(sizes.parameters.values()) == config.parameter_count()
    table = config.vocab_size * config.hidden_size
    width = parse_scheme(scheme).code_bits if parse_scheme(scheme).is_float else 16
    # Rounding up to whole bytes happens once in the sum and once a part here.
    assert sizes.bytes["embedding"] == pytest.approx(table * width / 8, abs=4)


@pytest.mark.parametrize(("scheme", "bars"), [("float16", 1), ("int4-g32", 2)])
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_bars_are_as_long_as_the_shares(name, scheme, bars):
    config = PUBLISHED[name].config()
    figure = parameter_bars(config, scheme)
    rectangles: Any = figure.axes[0].patches
    assert len(rectangles) == 4 * bars
    sizes = part_sizes(config, scheme)
    shares = [v / sum(sizes.parameters.values()) for v in sizes.parameters.values()]
    if bars == 2:
        shares += [v / sum(sizes.bytes.values()) for v in sizes.bytes.values()]
    assert [r.get_width() for r in rectangles] == pytest.approx(shares)
    assert len({r.get_hatch() for r in rectangles[:4]}) == 4
    _inside(figure)


def test_int4_moves_the_weight_to_the_embedding():
    figure = parameter_bars(LLAMA, "int4-g32")
    assert "The embedding holds 21 % of the parameters and 49 % of the int4-g32 bytes" in _texts(
        figure
    )


@given(
    guess=st.none() | st.floats(0.01, 1e5),
    measured=st.lists(st.floats(0.01, 1e5), min_size=1, max_size=5),
    ceiling=st.none() | st.floats(0.01, 1e5),
)
@settings(max_examples=15)
def test_prediction_and_measurement_stand_where_they_belong(guess, measured, ceiling):
    figure = prediction_vs_measured({"decode": (guess, measured)}, unit="tokens/s", ceiling=ceiling)
    axes: Any = figure.axes[0]
    singles = {x: face for (x, _), face in _singles(axes).items()}
    middle = sorted(measured)[len(measured) // 2]
    if len(measured) % 2:
        assert middle in singles
    if guess is not None and guess != middle:
        assert singles[guess] == "none"
    left, right = axes.get_xlim()
    assert all(left <= x <= right for x in singles)
    assert axes.get_xlabel() == "value (tokens/s)"
    assert ("Not predicted yet" in figure.alt) is (guess is None)


def test_prediction_plot_fits_and_titles_what_happened():
    one = prediction_vs_measured({"decode": (320, [140, 150, 155])}, unit="tokens/s", ceiling=190)
    assert "decode: the measurement is 0.47 times the prediction" in _texts(one)
    assert "measured 150, n = 3" in _texts(one) and "ceiling 190" in _texts(one)
    several = prediction_vs_measured(
        {"decode": (None, 150), "prefill": (500, 5000), "both": (100, 101)}, unit="tokens/s"
    )
    assert "1 of 2 predictions are within a factor of 2" in _texts(several)
    for figure in (one, several):
        _inside(figure)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: roofline_plot("Aple M1"), ValueError, "did you mean Apple M1"),
        (lambda: roofline_plot(HERE, [cast(Any, (1, 2))]), TypeError, "RooflinePoint"),
        (lambda: RooflinePoint("a", 0.0, 1.0), ValueError, "intensity of point 'a'"),
        (lambda: RooflinePoint("a", 1.0, math.nan), ValueError, "gflop_s of point 'a'"),
        (lambda: parameter_bars(SMOL, "int5"), ValueError, "valid forms"),
        (lambda: parameter_bars(SimpleNamespace()), ValueError, "vocab_size"),
        (lambda: prediction_vs_measured({}, unit="s"), ValueError, "rows"),
        (lambda: prediction_vs_measured({"a": (1, 1)}, unit=""), ValueError, "unit"),
        (lambda: prediction_vs_measured({"a": (1, [])}, unit="s"), ValueError, "'a'"),
        (lambda: prediction_vs_measured({"a": (-1, 1)}, unit="s"), ValueError, "'a'"),
        (lambda: prediction_vs_measured({"a": cast(Any, ("1", 1))}, unit="s"), TypeError, "'a'"),
        (
            lambda: prediction_vs_measured({"a": cast(Any, (1, None))}, unit="s"),
            ValueError,
            "measure before",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
