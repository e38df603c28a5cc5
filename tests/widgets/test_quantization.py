from __future__ import annotations

import base64
import io
import itertools
import math
from types import SimpleNamespace
from typing import Any, cast

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from slmlab.measure import kl_to_reference
from slmlab.models import Decoder, ModelConfig
from slmlab.quant import QuantizedLinear, parse_scheme, quantize_model
from slmlab.widgets import quantization_bench
from slmlab.widgets.card import CardFigure
from slmlab.widgets.quantization import Bench, Explorer, State, explorer, stops_paying
from slmlab.widgets.quantization_picture import frontier_lines
from slmlab.widgets.quantization_view import (
    BITS,
    GROUPS,
    QUESTION,
    ROW,
    all_schemes,
    code_line,
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


def test_kl_by_token_is_what_the_mean_is_of(bench: Bench) -> None:
    found = bench.kl_by_token("int4-g64")
    assert found.shape == (64,) and bool((found > -1e-6).all())
    assert float(found.mean()) == pytest.approx(bench.damage("int4-g64").kl_nats, rel=1e-5)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [128, 32])
def test_the_lead_is_over_the_straight_line_to_wider_codes(
    bench: Bench, group: int, symmetric: bool
) -> None:
    state = State(4, group, symmetric)
    found, ends = trade(bench, state), code_line(bench, state)
    assert found is not None and ends is not None
    names = ("int4-row", "int8") if symmetric else ("int4-g384-asym", "int8-asym")
    assert [end.scheme for end in ends] == list(names)
    here = bench.damage(f"int4-g{group}" + ("" if symmetric else "-asym"))
    x = np.array([end.bits_per_weight for end in ends])
    y = np.log([end.kl_nats for end in ends])
    wanted = math.exp(np.interp(here.bits_per_weight, x, y))
    assert found.code_kl_nats == pytest.approx(wanted)
    assert found.more_bits == pytest.approx(here.bits_per_weight - x[0])
    assert found.lead == pytest.approx(wanted / here.kl_nats)


def test_both_kinds_of_bits_start_at_one_scale_a_row(bench: Bench) -> None:
    for bits in (4, 3, 2):
        found = trade(bench, State(bits, ROW))
        assert found is not None and found.more_bits == 0 and found.lead == pytest.approx(1)
    assert trade(bench, State(8, 64)) is None and code_line(bench, State(8, 64)) is None


class _Told:
    """A bench with the KL of each token given."""

    longest_row = 1024

    def __init__(self, kl: dict[str, torch.Tensor]) -> None:
        self.kl = kl

    def damage(self, scheme: str) -> Any:
        bits = parse_scheme(scheme).bits_per_weight(1024, 1024)
        mean = float(self.kl[scheme].mean())
        return SimpleNamespace(scheme=scheme, bits_per_weight=bits, kl_nats=mean)

    def kl_by_token(self, scheme: str) -> torch.Tensor:
        return self.kl[scheme]


def test_what_noise_cannot_tell_apart_is_called_as_good() -> None:
    random = torch.Generator().manual_seed(0)
    tokens = torch.rand(400, generator=random).double() + 0.1

    def noise(size: float) -> torch.Tensor:
        return tokens * (1 + size * torch.randn(400, generator=random).double())

    kl = {"int4-row": tokens, "int8": tokens / 400}
    # At groups of 128 far below the line; 64 as far but for noise, 32 and 16 clearly less far.
    for group, lead in ((128, 1.5), (64, 1.499), (32, 1.2), (16, 0.6)):
        bits = 16 / group - 16 / 1024
        share = bits / (4 + 16 / 1024 - 16 / 1024)
        kl[f"int4-g{group}"] = noise(0.2) * 400**-share / lead
    found = stops_paying(cast(Any, _Told(kl)))
    assert {found.group, *found.as_good} == {128, 64}
    assert found.leads[16] == pytest.approx(0.6, rel=0.05) and found.tokens == 400
    assert "400 tokens cannot tell" in found.sentence
    kl["int4-g64"] = kl["int4-g64"] * 1.2
    found = stops_paying(cast(Any, _Told(kl)))
    assert (found.group, found.as_good) == (128, ()) and found.sentence.endswith("128, clearly.")


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_the_answer_is_where_the_widget_shows_the_largest_lead(bench: Bench, bits: int) -> None:
    answer = stops_paying(bench, bits)
    leads = {g: cast(Any, trade(bench, State(bits, g))).lead for g in GROUPS}
    assert answer.leads == leads and leads[answer.group] == max(leads.values())
    # At most five moves of the slider away, and the sentence there has the number.
    assert "metadata" in QUESTION and GROUPS.index(answer.group) <= 5
    for group in GROUPS[1:]:
        assert f"lead of the metadata is {leads[group]:.2f} times" in (
            view(bench, State(bits, group)).paying
        )


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


def test_the_dashed_line_goes_through_what_the_sentence_says(bench: Bench) -> None:
    shown = explorer(bench)
    assert isinstance(shown, Explorer) and shown.view.trade is not None
    (dashed,) = [line for line in shown.picture.trade.lines if line.get_linestyle() == "--"]
    x, y = np.asarray(dashed.get_xydata()).T
    at = math.exp(np.interp(shown.view.damage.bits_per_weight, x, np.log(y)))
    assert at == pytest.approx(shown.view.trade.code_kl_nats)
    shown.controls["bits"].value = 8
    assert not [line for line in shown.picture.trade.lines if line.get_linestyle() == "--"]


def test_names_in_the_picture_keep_clear_of_the_axes_and_of_each_other(bench: Bench) -> None:
    shown = explorer(bench)
    assert isinstance(shown, Explorer)
    for bits, symmetric in ((4, True), (2, True), (2, False), (8, True)):
        shown._show(State(bits, 64, symmetric))
        axes = shown.picture.trade
        frame = axes.get_window_extent()
        names = [text for text in axes.texts if text.get_text() in map(str, GROUPS)]
        assert len(names) == len(GROUPS)
        boxes = [Text.get_window_extent(name) for name in names]
        assert all(frame.x0 < box.x0 and box.x1 <= frame.x1 for box in boxes)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


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
