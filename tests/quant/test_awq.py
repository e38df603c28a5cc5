"""AWQ against its definition, its limiting case, and what it is for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from slmlab.measure import kl_to_reference
from slmlab.models import Decoder
from slmlab.quant import QuantizedLinear, awq, linear_layers, quantize_model, quantize_tensor
from slmlab.quant.awq import awq_scales, clip_weight, scale_model, scaled_error, search_alpha
from slmlab.quant.calibration import collect_statistics, run
from slmlab.quant.folding import find_folds
from tests.models.layouts import saved
from tests.quant.small_models import decoder, llama
from tests.quant.told import FORMS, needs_stories260k, stories_model, told

BUILDERS = pytest.mark.parametrize("build", [decoder, llama])
SCHEMES = pytest.mark.parametrize("scheme", ["int4-g32", "int3-row", "int2-g32-asym", "nf4-g32"])
seeds = st.integers(0, 10_000)


def ids(rows: int = 6, time: int = 40) -> Tensor:
    return torch.randint(0, 90, (rows, time), generator=torch.Generator().manual_seed(1))


def salient(seed: int, columns: int = 64) -> tuple[Tensor, Tensor]:
    """A weight (out, in) and inputs (tokens, in), two channels of which are far the strongest."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(300, columns, generator=random)
    x[:, :2] *= 20
    return torch.randn(16, columns, generator=random), x


def test_scales_at_alpha_0_are_ones_exactly_and_grow_with_importance() -> None:
    importance = torch.tensor([0.0, 0.5, 1.0, 4.0])
    assert torch.equal(awq_scales(importance, 0.0), torch.ones(4))
    scales = awq_scales(importance, 0.5)
    assert (scales.diff() > 0).all() and scales.isfinite().all() and scales[0] > 0
    torch.testing.assert_close(scales[3] / scales[2], torch.tensor(2.0))
    torch.testing.assert_close(scales.max() * scales.min(), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"alpha=1\.5"):
        awq_scales(importance, 1.5)


@given(seed=seeds, scheme=st.sampled_from(("int4-g32", "int3-g32", "int8")))
def test_scaled_error_is_that_of_the_outputs(seed: int, scheme: str) -> None:
    w, x = salient(seed)
    scales = awq_scales(x.abs().mean(0), 0.5)
    rounded = quantize_tensor(w * scales, scheme).dequantize()
    outputs = (x / scales) @ rounded.T
    want = float((outputs - x @ w.T).square().sum(1).mean())
    got = scaled_error(w, scales, x.T @ x / len(x), scheme)
    assert got == pytest.approx(want, rel=1e-2)


@given(seed=seeds)
def test_search_protects_salient_channels(seed: int) -> None:
    w, x = salient(seed)
    moment, importance = x.T @ x / len(x), x.abs().mean(0)
    alpha, scales = search_alpha([(w, "int3-g32")], importance, moment)
    assert alpha > 0 and scales[:2].min() > scales[2:].max()
    plain = scaled_error(w, torch.ones(64), moment, "int3-g32")
    assert scaled_error(w, scales, moment, "int3-g32") < 0.8 * plain


def test_search_scales_nothing_where_all_channels_are_alike() -> None:
    w = torch.randn(8, 32)
    alpha, scales = search_alpha([(w, "int4-g32")], torch.ones(32), torch.eye(32))
    assert alpha == 0.0 and torch.equal(scales, torch.ones(32))


@given(seed=seeds, columns=st.integers(5, 40))
def test_clipping_takes_the_best_ratio_of_each_group(seed: int, columns: int) -> None:
    random = torch.Generator().manual_seed(seed)
    w = torch.randn(4, columns, generator=random) ** 3
    x = torch.randn(100, columns, generator=random)
    moment, ratios = x.T @ x / 100, (1.0, 0.8, 0.6)
    got = clip_weight(w, moment, "int2-g16", ratios)
    for start in range(0, columns, 16):
        part = slice(start, min(start + 16, columns))
        for row in range(4):
            group = w[row : row + 1, part]
            errors, clipped = [], []
            for ratio in ratios:
                bound = group.abs().amax() * ratio
                low, high = group.min().clamp(max=0) * ratio, group.max().clamp(min=0) * ratio
                assert low >= -bound and high <= bound
                clipped.append(group.clamp(low, high))
                rounded = quantize_tensor(clipped[-1], "int2-row").dequantize()
                errors.append(float((x[:, part] @ (rounded - group).T).square().mean()))
            best = min(range(3), key=errors.__getitem__)
            chosen = [torch.allclose(got[row, part], c[0]) for c in clipped]
            assert chosen[best] or min(errors) > 0.999 * errors[chosen.index(True)]


@BUILDERS
@SCHEMES
def test_scale_1_is_rounding_to_nearest(build: Any, scheme: str) -> None:
    model = build()
    nearest = quantize_model(model, scheme)
    plan = dict.fromkeys(linear_layers(model), scheme)
    awq.apply(model, plan, ids(), alphas=(0.0,), clip=False)
    for name in plan:
        got, want = model.get_submodule(name), nearest.get_submodule(name)
        assert torch.equal(got.weight.codes, want.weight.codes)
        assert torch.equal(got.weight.dequantize(), want.weight.dequantize())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), nearest.parameters()))


@pytest.mark.parametrize("layout", ["llama-biases", "qwen2", "qwen3"])
def test_scaling_leaves_the_function_alone(layout: str, tmp_path: Path) -> None:
    for model in (saved(layout, tmp_path), Decoder.from_pretrained(tmp_path)):
        layers: dict[str, nn.Module] = dict(linear_layers(model))
        plan = dict.fromkeys(layers, "int3-g16")
        with torch.no_grad():
            before = run(model, ids())
        statistics = collect_statistics(model, layers, ids())
        chosen = scale_model(find_folds(model), plan, statistics, alphas=(0.6,))
        assert set(chosen) == set(plan) and set(chosen.values()) == {0.6}
        with torch.no_grad():
            assert (run(model, ids()) - before).abs().max() < 1e-4 * before.abs().max().clamp(min=1)
        # What scale_model says the inputs are now is what they are.
        again = collect_statistics(model, layers, ids())
        for name in layers:
            torch.testing.assert_close(
                statistics[name].mean_magnitude,
                again[name].mean_magnitude,
                rtol=1e-3,
                atol=1e-4,
            )


@BUILDERS
def test_a_plan_of_some_layers(build: Any) -> None:
    model = build()
    some = {name: "int3-g32" for name in linear_layers(model) if "mlp" in name}
    quantised = quantize_model(model, some, "awq", ids())
    kinds = {
        name: isinstance(quantised.get_submodule(name), QuantizedLinear)
        for name in linear_layers(model)
    }
    assert {name for name, is_quantised in kinds.items() if is_quantised} == set(some)


def test_too_few_tokens() -> None:
    with pytest.raises(ValueError, match="holds 40 tokens, at least 160 are needed"):
        quantize_model(decoder(), "int4-g32", "awq", ids(1, 40))


def test_the_given_model_is_left_alone() -> None:
    model = llama()
    before = copy.deepcopy(model.state_dict())
    quantize_model(model, "int3-g32", "awq", ids())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@needs_stories260k
@FORMS
def test_beats_rounding_on_stories260k(form: str) -> None:
    model, held_out = stories_model(form), told(4, 256, seed=1).flatten()
    nearest = quantize_model(model, "int4-g32")
    calibrated = quantize_model(model, "int4-g32", "awq", told(8, 256, seed=0))
    kl = [float(kl_to_reference(q, model, held_out)) for q in (calibrated, nearest)]
    assert kl[0] < kl[1]
