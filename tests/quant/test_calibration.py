"""Statistics against the inputs themselves, the walk through the blocks, folds, refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from slmlab.models import Decoder
from slmlab.quant import linear_layers
from slmlab.quant.blocks import decoder_blocks, walk
from slmlab.quant.calibration import (
    LayerStatistics,
    calibration_rows,
    collect_statistics,
    output_error,
    run,
)
from slmlab.quant.folding import find_folds, same_function
from slmlab.quant.outliers import plant_outliers
from tests.models.layouts import saved
from tests.quant.small_models import decoder, llama
from tests.quant.told import needs_stories260k, stories_model, told

BUILDERS = pytest.mark.parametrize("build", [decoder, llama])
FOLDED = ("llama", "llama-biases", "llama-multi-head", "mistral-head-dim", "qwen2", "qwen3")


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


def largest_change(model: nn.Module, changed: nn.Module, tokens: Tensor) -> float:
    with torch.no_grad():
        before, after = run(model, tokens), run(changed, tokens)
    return float((after - before).abs().max() / before.abs().max().clamp(min=1))


def both_forms(layout: str, folder: Path) -> list[nn.Module]:
    theirs = saved(layout, folder)
    return [theirs, Decoder.from_pretrained(folder)]


@pytest.mark.parametrize("layout", FOLDED)
def test_folds_leave_the_function_alone(layout: str, tmp_path: Path) -> None:
    for model in both_forms(layout, tmp_path):
        folded = copy.deepcopy(model)
        folds = find_folds(folded)
        assert [fold.kind for fold in folds] == ["norm", "value", "norm", "up"] * 3
        for number, fold in enumerate(folds):
            random = torch.Generator().manual_seed(number)
            scales = fold.tie(torch.rand(fold.channels, generator=random) * 3 + 0.3)
            before = [layer.weight.clone() for layer in fold.consumers.values()]
            fold.apply(scales)
            for layer, weight in zip(fold.consumers.values(), before):
                torch.testing.assert_close(layer.weight, weight * scales)
        assert largest_change(model, folded, ids(2, 20)) < 1e-4


def test_value_heads_that_are_shared_share_their_scales() -> None:
    fold = next(fold for fold in find_folds(decoder()) if fold.kind == "value")
    assert (fold.shared, fold.head_dim, fold.channels) == (2, 16, 64)
    per_channel = torch.arange(64.0)
    tied = fold.tie(per_channel).view(2, 2, 16)
    assert torch.equal(tied[:, 0], tied[:, 1])
    torch.testing.assert_close(tied[:, 0], per_channel.view(2, 2, 16).mean(1))


def test_models_that_cannot_be_folded_are_refused() -> None:
    sizes: dict[str, Any] = dict(vocab_size=96, num_hidden_layers=1)
    gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, n_layer=1, n_embd=32, n_head=2))
    gemma = Gemma2ForCausalLM(
        Gemma2Config(
            **sizes,
            hidden_size=32,
            intermediate_size=48,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
        )
    )
    for model in (gpt2, gemma):
        with pytest.raises(ValueError, match=r"cannot be folded.*method='gptq'"):
            find_folds(model)
    with pytest.raises(ValueError, match="kinds holds 'down'"):
        find_folds(decoder(), ("down",))
    fold = find_folds(decoder())[0]
    with pytest.raises(ValueError, match="above 0"):
        fold.apply(torch.zeros(fold.channels))


def test_a_fold_that_changes_the_function_is_caught() -> None:
    class OnePlus(nn.Module):
        """A norm as Gemma has it: its gain is 1 + weight, so dividing the weight is no fold."""

        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm, self.weight = norm, nn.Parameter(torch.full((64,), 0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) * (1 + self.weight)

    model: Any = decoder()
    model.layers[0].input_layernorm = OnePlus(model.layers[0].input_layernorm)
    with pytest.raises(ValueError, match="folding changed the logits"), same_function(model, ids()):
        find_folds(model)[0].apply(torch.full((64,), 3.0))
    with same_function(decoder(), ids()):
        pass


@BUILDERS
def test_planted_outliers(build: Any) -> None:
    model = build()
    planted = copy.deepcopy(model)
    where = plant_outliers(planted, channels=3, factor=30.0)
    assert largest_change(model, planted, ids()) < 1e-4
    layers: dict[str, nn.Module] = dict(linear_layers(planted))
    assert set(where) == {name for name in layers if not name.endswith(("o_proj", "down_proj"))}
    plain = collect_statistics(model, dict(linear_layers(model)), ids())
    grown = collect_statistics(planted, layers, ids())
    for name in layers:
        ratio = grown[name].max_magnitude / plain[name].max_magnitude
        want = torch.ones_like(ratio)
        want[where.get(name, [])] = 30.0
        torch.testing.assert_close(ratio, want, rtol=1e-3, atol=1e-3)
    for wrong in (0, 65):
        with pytest.raises(ValueError, match=f"channels={wrong}"):
            plant_outliers(model, channels=wrong)
    with pytest.raises(ValueError, match="factor=0"):
        plant_outliers(model, factor=0)


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
