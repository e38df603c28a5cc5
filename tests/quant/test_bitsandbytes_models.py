"""A transformers model that bitsandbytes loads in few bits, and ours: the same weights and logits.

Rows are multiples of 64 weights: elsewhere bitsandbytes 0.50's blocks run over the ends of rows
and its CPU path gives other values back than it stored.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from slmlab.quant import QuantizedLinear, linear_layers, quantize_model, quantize_tensor
from slmlab.quant.kernels import PRECISION
from tests.quant.small_models import IDS, SIZES, logits

bnb = pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, rounded to float16: bitsandbytes' int8 reads them in it."""
    torch.manual_seed(0)
    config = LlamaConfig(**{**SIZES, "intermediate_size": 192}, tie_word_embeddings=True)
    target = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).half().save_pretrained(target)
    return target


@pytest.fixture(autouse=True)
def quiet() -> None:
    """It warns of an optional package, and at each call that int8 rounds activations."""
    for name in ("backends.cpu.ops", "autograd._functions"):
        logging.getLogger(f"bitsandbytes.{name}").setLevel(logging.ERROR)


def load(folder: Path, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    quantization = BitsAndBytesConfig(**config) if config else None
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=quantization
    ).eval()


def nf4(folder: Path, **more: Any) -> Any:
    return load(
        folder,
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        **more,
    )


def layers_of(model: nn.Module, kind: type) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


def nf4_weight(layer: Any) -> Tensor:
    state = layer.weight.quant_state
    return bnb.functional.dequantize_4bit(layer.weight.data, state).float()


def test_nf4_models_have_our_weights_and_logits(folder: Path) -> None:
    theirs, plain = nf4(folder), load(folder)
    ours = quantize_model(plain, "nf4-g64")
    fours = layers_of(theirs, bnb.nn.Linear4bit)
    assert set(fours) == set(linear_layers(plain)) == set(layers_of(ours, QuantizedLinear))
    for name, layer in fours.items():
        wanted = quantize_tensor(plain.get_submodule(name).weight, "nf4-g64").dequantize()
        assert torch.equal(nf4_weight(layer), wanted), name
    # 40 rows go through our exact product; in training theirs dequantises too, and Llama drops
    # nothing out.
    got, wanted = logits(ours), logits(theirs.train())
    assert (got - wanted).abs().max() <= 1e-4 * max(1, wanted.abs().max().item())
    assert not torch.allclose(got, logits(plain), atol=1e-2)
    # Few rows: both round products to bfloat16, and the layers add that up.
    with torch.inference_mode():
        few, theirs_few = ours(IDS[:1]).logits, theirs.eval()(IDS[:1]).logits
    for rounded in (few, theirs_few):
        assert (rounded - wanted[:1]).abs().max() <= PRECISION * wanted.abs().max()


def test_products_of_few_rows_are_within_our_precision_of_theirs(folder: Path) -> None:
    theirs, ours = nf4(folder), quantize_model(load(folder), "nf4-g64")
    random = torch.Generator().manual_seed(0)
    for name, layer in layers_of(theirs, bnb.nn.Linear4bit).items():
        weight = nf4_weight(layer)
        x = torch.randn(4, layer.in_features, generator=random)
        with torch.inference_mode():
            apart = (ours.get_submodule(name)(x) - torch.nn.functional.linear(x, weight)).abs()
            their_own = (layer(x) - torch.nn.functional.linear(x, weight)).abs()
        terms = x.abs() @ weight.abs().t()
        assert (apart <= PRECISION * terms).all(), name
        assert (their_own <= PRECISION * terms).all(), name


def test_int8_models_have_our_codes_up_to_the_rounding_of_the_scale(folder: Path) -> None:
    theirs, plain = load(folder, load_in_8bit=True), load(folder)
    ours = quantize_model(plain, "int8")
    eights = layers_of(theirs, bnb.nn.Linear8bitLt)
    assert set(eights) == set(layers_of(ours, QuantizedLinear))
    differ = of = 0
    for name, layer in eights.items():
        weight = ours.get_submodule(name).weight
        codes, steps = layer.weight.CB, layer.weight.SCB[:, None] / 127
        assert (weight.scales.float() / steps - 1).abs().max() <= 2**-11  # fp16 holds ours
        off = (weight.codes.int() - codes.int()).abs()
        assert off.max() <= 1  # 127 codes times that rounding: 0.06 of a step
        differ += int(off.sum())
        of += off.numel()
    assert differ < 0.07 * of


def test_int8_logits_differ_by_their_rounding_of_activations(folder: Path) -> None:
    """LLM.int8 rounds activations to 8 bits too; ours keeps them."""
    theirs, ours = load(folder, load_in_8bit=True), quantize_model(load(folder), "int8")
    for name, layer in layers_of(theirs, bnb.nn.Linear8bitLt).items():
        x = torch.randn(4, layer.in_features, generator=torch.Generator().manual_seed(0)).half()
        weight = ours.get_submodule(name).weight.dequantize()
        with torch.inference_mode():
            apart = (ours.get_submodule(name)(x.float()) - layer(x).float()).abs()
        half_step = x.float().abs().amax(1, keepdim=True) / 127 / 2
        terms = x.float().abs() @ weight.abs().t()
        # Their activations, a code that differs, and the roundings to 16 bits of both.
        bound = half_step * weight.abs().sum(1) + 2**-11 * terms + PRECISION * terms
        other_codes = weight.abs().amax(1) / 127 * x.float().abs().sum(1, keepdim=True)
        assert (apart <= bound + 0.1 * other_codes).all(), name
    got, wanted = logits(ours), logits(theirs).float()
    assert (got - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_qlora_step_lowers_the_loss_and_leaves_the_base(folder: Path) -> None:
    """Dettmers et al. 2023 (arXiv:2305.14314): gradients pass through a frozen NF4 base into LoRA
    adapters in float."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nf4(folder, bnb_4bit_use_double_quant=True)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    base = peft.prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    model = peft.get_peft_model(
        base, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0)
    ).train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    fours = layers_of(model, bnb.nn.Linear4bit)
    assert len(trained) == 2 * len(fours) == 2 * 7 * SIZES["num_hidden_layers"]

    ids = torch.arange(48).view(2, 24) % 90
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
        assert with_gradient == set(trained)
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]  # one batch, so each step must pay

    after = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if "lora_" not in name
    }
    assert set(after) == set(before)
    assert any(tensor.dtype == torch.uint8 for tensor in before.values())
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
