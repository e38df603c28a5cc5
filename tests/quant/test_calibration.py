"""Statistics against the inputs themselves, the walk through the blocks, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slmlab.quant import linear_layers
from slmlab.quant.blocks import decoder_blocks, walk
from slmlab.quant.calibration import (
    LayerStatistics,
    calibration_rows,
    collect_statistics,
    output_error,
    run,
)
from tests.quant.small_models import decoder, llama
from tests.quant.told import needs_stories260k, stories_model, told

BUILDERS = pytest.mark.parametrize("build", [decoder, llama])


def ids(rows: int = 6, time: int = 40) -> Tensor:
    return torch.randint(0, 96, (rows, time), generator=torch.Generator().manual_seed(1))


def inputs_by_hand(model: nn.Module, name: str, rows: Tensor) -> Tensor:
    """Every input of one layer, (tokens, in)."""
    seen: list[Tensor] = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        for row in rows:
            model(row[None])
    handle.remove()
    return torch.cat(seen)


def assert_statistics(got: LayerStatistics, x: Tensor) -> None:
    assert got.tokens == len(x)
    torch.testing.assert_close(got.second_moment, x.T @ x / len(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got.mean_magnitude, x.abs().mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.max_magnitude, x.abs().amax(0), rtol=1e-4, atol=1e-5)


@BUILDERS
def test_statistics_are_those_of_all_inputs(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmlab.quant.calibration.BATCH_TOKENS", 80)  # three batches
    model = build()
    layers: dict[str, nn.Module] = dict(linear_layers(model))
    found = collect_statistics(model, layers, ids())
    assert set(found) == set(layers)
    for name in layers:
        assert_statistics(found[name], inputs_by_hand(model, name, ids()))


def test_divided_statistics_are_those_of_divided_inputs() -> None:
    x, scales = torch.randn(50, 8), torch.rand(8) + 0.5
    got = LayerStatistics.empty(8)
    got.add(x[:20])
    got.add(x[20:])
    got.divide(scales)
    assert_statistics(got, x / scales)


def test_output_error_is_that_of_the_outputs() -> None:
    x, delta = torch.randn(60, 8), torch.randn(5, 8)
    want = (x @ delta.T).square().mean(0)
    torch.testing.assert_close(output_error(delta, x.T @ x / 60), want)


@BUILDERS
def test_walk_visits_in_running_order_and_sees_what_it_changed(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slmlab.quant.calibration.BATCH_TOKENS", 80)
    model = build(tied=False).requires_grad_(False)
    layers: dict[str, nn.Module] = dict(linear_layers(model, heads=True))
    visited: list[str] = []

    def visit(name: str, statistics: LayerStatistics) -> None:
        visited.append(name)
        # Layers that read one input are measured together, before the first of them changes;
        # that does not change their input, so the model as it is now gives the same statistics.
        assert_statistics(statistics, inputs_by_hand(model, name, ids()))
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        wider = nn.Linear(layer.in_features, layer.out_features, bias=False)
        wider.weight.data = 1.5 * layer.weight.data
        model.set_submodule(name, wider)

    walk(model, layers, ids(), visit)
    running: list[str] = []
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda *_, name=name: running.append(name)
        )
        for name in layers
    ]
    run(model, ids())
    for handle in handles:
        handle.remove()
    assert visited == running and set(visited) == set(layers)


def test_walk_takes_a_model_without_blocks() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.first, self.second = (
                nn.Embedding(96, 8),
                nn.Linear(8, 12),
                nn.Linear(12, 96),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(self.table(x)).relu())

    model = Flat()
    assert list(decoder_blocks(model)) == [""]
    visited = []
    layers: dict[str, nn.Module] = {"first": model.first, "second": model.second}
    walk(model, layers, ids(), lambda name, found: visited.append((name, found.tokens)))
    assert visited == [("first", 240), ("second", 240)]


def test_blocks_by_name() -> None:
    assert list(decoder_blocks(decoder())) == ["layers.0", "layers.1"]
    assert list(decoder_blocks(llama())) == ["model.layers.0", "model.layers.1"]


@BUILDERS
def test_calibration_leaves_no_trace(build: Any) -> None:
    model = build().train()
    model.requires_grad_(True)
    layers: dict[str, nn.Module] = dict(linear_layers(model))
    walk(model, layers, ids(), lambda *_: None)
    collect_statistics(model, layers, ids())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_rows_of_one_long_text() -> None:
    text = torch.arange(1000)
    assert torch.equal(calibration_rows(text).flatten(), text[:768])
    assert calibration_rows(text).shape == (3, 256)
    assert calibration_rows(text, minimum_tokens=1000).shape == (4, 250)
    assert calibration_rows(text[:100]).shape == (1, 100)
    assert torch.equal(calibration_rows(ids()), ids())


def test_a_single_row_is_one_long_text() -> None:
    text = torch.arange(1000)
    assert torch.equal(calibration_rows(text[None]), calibration_rows(text))
    assert calibration_rows(text[None, :100]).shape == (1, 100)


def test_rows_stay_within_the_context_of_the_model() -> None:
    model: Any = llama()
    model.config.max_position_embeddings = 128
    assert calibration_rows(torch.arange(1000), model=model).shape == (7, 128)
    assert calibration_rows(torch.arange(1000)[None], 960, model).shape == (8, 125)
    with pytest.raises(ValueError, match="rows of 129 tokens, the model takes 128"):
        collect_statistics(model, dict(linear_layers(model)), torch.ones(2, 129).long())


def test_an_empty_batch_adds_nothing() -> None:
    got, x = LayerStatistics.empty(8), torch.randn(20, 8)
    for part in (x, x[:0]):
        got.add(part)
    assert_statistics(got, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_statistics_do_not_depend_on_defaults(dtype: torch.dtype) -> None:
    model = decoder()
    layers: dict[str, nn.Module] = dict(linear_layers(model))
    want = collect_statistics(model, layers, ids())
    torch.set_default_dtype(dtype)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            got = collect_statistics(model, layers, ids())
    finally:
        torch.set_default_dtype(torch.float32)
    for name in layers:
        assert torch.equal(got[name].second_moment, want[name].second_moment)


def test_a_block_in_several_places_is_refused() -> None:
    model: Any = decoder()
    model.layers.append(model.layers[0])
    with pytest.raises(ValueError, match=r"one block in several places \(layers\.0, .*'rtn'"):
        decoder_blocks(model)


def test_a_model_without_logits_is_named() -> None:
    with pytest.raises(ValueError, match="LlamaModel gives no logits"):
        run(llama().model, ids())


@BUILDERS
def test_too_few_tokens_says_how_many(build: Any) -> None:
    model = build()
    layers: dict[str, nn.Module] = dict(linear_layers(model))
    for few in (ids(1, 159), ids(1, 159)[0]):
        with pytest.raises(ValueError, match="holds 159 tokens, at least 160 are needed"):
            collect_statistics(model, layers, few)
    collect_statistics(model, layers, ids(1, 160)[0])


def test_refusals() -> None:
    model: Any = decoder()
    layers: dict[str, nn.Module] = dict(linear_layers(model))
    with pytest.raises(ValueError, match="calibration is missing"):
        calibration_rows(None)
    with pytest.raises(TypeError, match=r"int64 tensor of token ids.*encode the text"):
        calibration_rows("some text")
    with pytest.raises(TypeError, match=r"not torch\.float32"):
        calibration_rows(torch.ones(4))
    with pytest.raises(ValueError, match=r"\(rows, time\) or \(tokens,\)"):
        calibration_rows(torch.ones(2, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="never negative"):
        calibration_rows(torch.tensor([1, -1]))
    with pytest.raises(ValueError, match="id 100, outside the vocabulary of 96"):
        collect_statistics(model, layers, torch.full((2, 80), 100))
    with pytest.raises(ValueError, match="never reached unused:"):
        collect_statistics(model, {**layers, "unused": nn.Linear(4, 4)}, ids())
    model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or inf activations"):
        collect_statistics(model, layers, ids())


@needs_stories260k
def test_stories260k_in_both_forms_gives_the_same_statistics() -> None:
    ours, theirs = stories_model("Decoder"), stories_model("transformers")
    rows = told(2, 128, seed=0)
    a = collect_statistics(ours, dict(linear_layers(ours)), rows)
    b = collect_statistics(theirs, dict(linear_layers(theirs)), rows)
    for layer in range(5):
        mine = a[f"layers.{layer}.self_attn.qkv_proj"].second_moment
        for part in ("q_proj", "k_proj", "v_proj"):
            other = b[f"model.layers.{layer}.self_attn.{part}"].second_moment
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
