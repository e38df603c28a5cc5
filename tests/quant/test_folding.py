"""Folds: they leave the function alone, or are refused and leave the model alone."""

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
from slmlab.quant.calibration import collect_statistics, run
from slmlab.quant.folding import find_folds, same_function
from slmlab.quant.outliers import plant_outliers
from slmlab.quant.smoothquant import smooth
from tests.models.layouts import saved
from tests.quant.small_models import decoder, llama

BUILDERS = pytest.mark.parametrize("build", [decoder, llama])
FOLDED = ("llama", "llama-biases", "llama-multi-head", "mistral-head-dim", "qwen2", "qwen3")


def ids(rows: int = 6, time: int = 40) -> Tensor:
    return torch.randint(0, 96, (rows, time), generator=torch.Generator().manual_seed(1))


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
    before = copy.deepcopy(model.state_dict())
    for dtype in (torch.float32, torch.bfloat16):
        fold = find_folds(model.to(dtype))[0]
        with pytest.raises(ValueError, match=r"output of its OnePlus is not divided"):
            fold.apply(torch.full((64,), 3.0))
    model.float()
    model.load_state_dict(before)
    for change in (smooth, plant_outliers):
        with pytest.raises(ValueError, match="cannot be folded"):
            change(model, *((ids(),) if change is smooth else ()))
        assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_folds_that_change_the_function_are_undone() -> None:
    class Gated(nn.Linear):
        """Values that pass a gate before anything reads them: not linear in the weight."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).tanh()

    model: Any = llama()
    gated = Gated(64, 32, bias=False)
    gated.weight = model.model.layers[1].self_attn.v_proj.weight
    model.model.layers[1].self_attn.v_proj = gated
    before = copy.deepcopy(model)
    folds = find_folds(model)
    with pytest.raises(ValueError, match="changed the logits"), same_function(model, ids(), folds):
        for fold in folds:
            fold.apply(torch.full((fold.channels,), 30.0))
    assert largest_change(before, model, ids()) < 1e-4
    with same_function(model, ids(), folds):
        pass


def test_a_norm_without_a_weight_is_refused() -> None:
    model: Any = decoder()
    model.layers[1].input_layernorm = nn.LayerNorm(64, elementwise_affine=False)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"'layers\.1' .*input_layernorm has no weight"):
        plant_outliers(model)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


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
