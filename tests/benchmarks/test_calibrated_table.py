"""The table of lesson 03 shows one speed for all methods of a format: here is why it may."""

from __future__ import annotations

import pytest
import torch

from benchmarks.calibrated_table import UNIFORM, Speed, Table, decode_format
from slmlab.quant import QuantizedLinear, model_bytes, quantize_model
from slmlab.quant.smoothquant import W8A8Linear
from tests.models.layouts import random_model

MODEL = random_model("llama")
IDS = torch.randint(0, 97, (2, 128), generator=torch.Generator().manual_seed(0))


def stored(model: torch.nn.Module) -> list[tuple[str, str, tuple[int, ...], torch.dtype]]:
    """What a decode step reads: every layer's kind, and shape and dtype of its codes."""
    return [
        (name, type(module).__name__, tuple(module.packed.shape), module.packed.dtype)
        for name, module in model.named_modules()
        if isinstance(module, QuantizedLinear)
    ]


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_methods_of_one_format_store_the_same_tensors(method: str) -> None:
    nearest = quantize_model(MODEL, "int4-g32")
    calibrated = quantize_model(MODEL, "int4-g32", method, IDS)
    assert decode_format("int4-g32", method) == decode_format("int4-g32", "rtn")
    assert stored(nearest) and stored(calibrated) == stored(nearest)
    assert model_bytes(calibrated) == model_bytes(nearest)
    changed = [
        not torch.equal(a.packed, b.packed)
        for a, b in zip(nearest.modules(), calibrated.modules(), strict=True)
        if isinstance(a, QuantizedLinear) and isinstance(b, QuantizedLinear)
    ]
    assert any(changed)


def test_smoothquant_is_a_format_of_its_own() -> None:
    smooth = quantize_model(MODEL, "int8", "smoothquant", IDS)
    assert any(isinstance(module, W8A8Linear) for module in smooth.modules())
    assert decode_format("int8", "smoothquant") != decode_format("int8", "rtn")
    assert len({decode_format(*each) for each in UNIFORM}) == 5


def test_every_rate_is_a_ratio_to_the_least_disturbed_float32_step() -> None:
    table = Table.__new__(Table)
    table.speeds = {
        "float32": Speed(1.0, 0.9, 1.1, 0.005, 100),
        "int4-g32": Speed(2.0, 1.8, 2.1, 0.004, 20),
    }
    assert table.rate(2.0) == pytest.approx(500.0)
    assert table.rate(1.0) == pytest.approx(250.0)
