"""What lesson 03's cells share: texts that only judge, loud channels, weights for a moment."""

from __future__ import annotations

import pytest
import torch

import slmlab
from slmlab.data import calibration_text, evaluation_set
from slmlab.quant import linear_layers
from slmlab.quant.calibration import LayerStatistics
from slmlab.widgets.calibrated_quantization_setup import (
    DOMAINS,
    FRESH_START,
    held_out,
    loudness,
    power_share,
    replaced,
)
from tests.models.layouts import random_model


def statistics(x: torch.Tensor) -> LayerStatistics:
    seen = LayerStatistics.empty(x.shape[1])
    seen.add(x)
    return seen


def test_the_two_texts_are_held_out_and_do_not_overlap() -> None:
    lm = slmlab.load("tiny")
    exam, fresh = held_out(lm)
    assert exam.shape == fresh.shape == (len(DOMAINS), 384)
    calibration = calibration_text(size_bytes=12_288)
    for row, name in enumerate(DOMAINS):
        ids = lm.tokenizer.encode("".join(evaluation_set(name).texts))
        assert exam[row].tolist() == ids[:384]
        assert fresh[row].tolist() == ids[FRESH_START : FRESH_START + 384]
        for text in (exam, fresh):
            assert lm.tokenizer.decode(text[row].tolist()) not in calibration


def test_loudness_and_power_by_hand() -> None:
    seen = statistics(torch.tensor([[4.0, 1.0, 2.0], [-4.0, 1.0, -2.0]]))
    assert loudness(seen) == pytest.approx(2.0)
    # One channel in three, rounded up from 0.3: the squares are 16, 1 and 4.
    assert power_share(seen, 0.1) == pytest.approx(16 / 21)
    assert power_share(seen, 0.5) == pytest.approx(20 / 21)
    assert power_share(seen, 1.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="share=0"):
        power_share(seen, 0)


def test_the_loudest_need_not_carry_the_most_power() -> None:
    """Channels are ranked by their mean magnitude, as AWQ ranks them."""
    seen = statistics(torch.tensor([[9.0, 4.0], [0.0, 4.0], [0.0, 4.0]]))
    assert power_share(seen, 0.5) == pytest.approx(16 * 3 / (16 * 3 + 81))


@torch.inference_mode()
def test_weights_are_replaced_for_a_moment_even_where_the_block_fails() -> None:
    model, ids = random_model("llama"), torch.arange(6)[None]
    layers = linear_layers(model)
    name = next(iter(layers))
    before, weight = model(ids).logits, layers[name].weight.clone()
    with pytest.raises(RuntimeError, match="on purpose"), replaced(layers, {name: weight * 2}):
        assert torch.equal(layers[name].weight, weight * 2)
        assert not torch.equal(model(ids).logits, before)
        raise RuntimeError("on purpose")
    assert torch.equal(layers[name].weight, weight)
    assert torch.equal(model(ids).logits, before)


def test_replaced_names_what_does_not_fit() -> None:
    layers = {"a": torch.nn.Linear(3, 2)}
    with pytest.raises(ValueError, match="'b'"), replaced(layers, {"b": torch.zeros(2, 3)}):
        pass
    with pytest.raises(ValueError, match="shape"), replaced(layers, {"a": torch.zeros(3, 2)}):
        pass
