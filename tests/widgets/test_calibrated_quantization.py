"""The explorer of lesson 03 on a small random model: it shows what was measured, and nothing else."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any, cast

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from slmlab.measure import kl_to_reference
from slmlab.quant import model_bytes, quantize_model
from slmlab.widgets.calibrated_quantization import comparison, explorer, spoken
from slmlab.widgets.calibrated_quantization_bench import (
    Bench,
    Judge,
    layer_options,
    least_budget_as_good,
    measure_bench,
    mixed_plan,
)
from slmlab.widgets.calibrated_quantization_picture import (
    bits_of,
    fewest_bits_text,
    place_of,
    plan_picture,
)
from tests.models.layouts import random_model

VIEW_MIME = "application/vnd.jupyter.widget-view+json"
MODEL = random_model("llama")
IDS = torch.randint(0, 97, (2, 128), generator=torch.Generator().manual_seed(0))
OPTIONS = layer_options(MODEL, IDS)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return measure_bench(MODEL, OPTIONS, Judge(MODEL, IDS[:, :40]), budgets=(2.0, 3.0, 4.0, 5.0))


def test_the_judge_agrees_with_kl_to_reference() -> None:
    changed = quantize_model(MODEL, "int3-g32")
    kl, flips = Judge(MODEL, IDS[:1, :40]).kl_and_flips(changed)
    wanted = kl_to_reference(changed, MODEL, IDS[0, :40])
    assert kl == pytest.approx(wanted.mean_kl_nats, rel=1e-4)
    assert flips == pytest.approx(wanted.argmax_flip_share)


def test_stops_are_what_quantize_model_makes(bench: Bench) -> None:
    # 2 bits a weight are not possible with scales: the budget is left out.
    assert [stop.name for stop in bench.stops] == ["3", "4", "5"]
    for stop in bench.stops:
        assert stop.bits <= float(stop.name)
        assert stop.plan == mixed_plan(MODEL, OPTIONS, float(stop.name))
        assert stop.nbytes == model_bytes(quantize_model(MODEL, stop.plan))
    sizes = [stop.nbytes for stop in bench.stops]
    assert sizes == sorted(sizes)


def test_the_picture_names_each_matrix_and_its_bits(bench: Bench) -> None:
    assert place_of("model.layers.12.self_attn.q_proj") == ("q", 12)
    stop = bench.stops[1]
    figure = plan_picture(bench, stop)
    texts = {text.get_text() for text in figure.axes[0].texts}
    bits = bits_of(bench, stop)
    assert len(figure.axes[0].patches) == len(bits) == len(bench.shapes)
    assert all(any(abs(float(t) - b) < 0.051 for t in texts) for b in bits.values())
    weights = {name: rows * columns for name, (rows, columns) in bench.shapes.items()}
    mean = sum(bits[n] * weights[n] for n in bits) / sum(weights.values())
    assert mean == pytest.approx(stop.bits)


def test_a_move_shows_another_plan_and_draws_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = explorer(bench)
    monkeypatch.setattr("slmlab.widgets.calibrated_quantization.plan_picture", None)
    images = set()
    for place, stop in enumerate(bench.stops):
        shown.control.value = place
        assert shown.stop is stop
        images.add(shown.image.value)
        for sentence in (comparison(bench, stop), f"{stop.plan[next(iter(stop.plan))][:4]}"):
            assert sentence in shown.text.value
    assert len(images) == len(bench.stops)


def test_it_starts_above_the_answer(bench: Bench) -> None:
    """The puzzle is how far down the budget goes: it must not be solved before the first move."""
    assert explorer(bench).stop is bench.stops[-2]


def test_the_matrices_with_the_fewest_bits_are_named_by_block(bench: Bench) -> None:
    plan = {
        "layers.0.self_attn.q_proj": "int4-g32",
        "layers.0.mlp.down_proj": "int3-g64-asym",
        "layers.1.mlp.down_proj": "int3-g64-asym",
        "layers.1.mlp.up_proj": "int3-g32",
    }
    text = fewest_bits_text(dataclasses.replace(bench.stops[0], plan=plan))
    assert text == "2 of 4 matrices have int3-g64-asym: down of blocks 0, 1."


def test_one_output_with_a_picture_for_viewers_without_widgets(bench: Bench) -> None:
    shown = explorer(bench, start=0)
    assert isinstance(shown.control, ipywidgets.SelectionSlider)
    assert shown.control.description == "budget (bits a weight)"
    data = shown._repr_mimebundle_()
    assert data[VIEW_MIME]["model_id"] == shown.box.model_id
    assert data["text/plain"] == spoken(bench, bench.stops[0])
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert np.asarray(picture.convert("RGBA"))[..., 3].min() == 255
    assert len(data["image/png"]) < 150_000


def test_the_answer_is_the_smallest_plan_that_is_as_good(bench: Bench) -> None:
    for uniform in bench.uniform:
        found = least_budget_as_good(bench, uniform.name)
        good = [stop.bits for stop in bench.stops if stop.kl_nats <= uniform.kl_nats]
        assert (found is None) == (not good)
        assert found is None or found.bits == min(good)
    assert any(least_budget_as_good(bench, u.name) is not None for u in bench.uniform)


def test_bad_arguments_are_named(bench: Bench) -> None:
    with pytest.raises(TypeError, match="bench must be a Bench"):
        explorer(cast(Any, "bench"))
    with pytest.raises(ValueError, match="start=9"):
        explorer(bench, start=9)
    with pytest.raises(ValueError, match="was not measured"):
        least_budget_as_good(bench, "int5")
    with pytest.raises(ValueError, match="budgets are all below"):
        measure_bench(MODEL, OPTIONS, Judge(MODEL, IDS[:, :8]), budgets=(1.0,))
    with pytest.raises(ValueError, match="must be \\(rows, time\\)"):
        Judge(MODEL, IDS[0])
