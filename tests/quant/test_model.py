from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slmlab.models import Decoder
from slmlab.quant import (
    QuantizedLinear,
    linear_layers,
    model_bytes,
    quantize_model,
    quantize_tensor,
)
from slmlab.quant.scheme import parse_scheme
from tests.quant.small_models import decoder, llama, logits

BUILDERS = pytest.mark.parametrize("build", [decoder, llama])


@BUILDERS
@pytest.mark.parametrize("tied", [True, False])
def test_quantises_every_linear_but_the_head_and_leaves_the_model(build, tied) -> None:
    model = build(tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantised = quantize_model(model, "int4-g32")
    kinds = {type(m) for name, m in quantised.named_modules() if name.endswith("_proj")}
    assert kinds == {QuantizedLinear}
    assert isinstance(quantised.lm_head, nn.Linear)
    embedding = next(m for m in quantised.modules() if isinstance(m, nn.Embedding))
    assert (quantised.lm_head.weight is embedding.weight) == tied
    assert not any(isinstance(m, QuantizedLinear) for m in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert (
        embedding.weight
        is not next(m for m in model.modules() if isinstance(m, nn.Embedding)).weight
    )


@BUILDERS
def test_computes_as_the_model_with_dequantised_weights(build) -> None:
    model = build()
    got = logits(quantize_model(model, "int3-g32"))  # 40 rows: the exact product
    with torch.no_grad():
        for layer in linear_layers(model).values():
            layer.weight.copy_(quantize_tensor(layer.weight, "int3-g32").dequantize())
    assert torch.allclose(got, logits(model), atol=1e-4)


@BUILDERS
def test_bytes_by_hand(build) -> None:
    model = build()
    layers = linear_layers(model)
    codes = sum(
        parse_scheme("int3-g32").matrix_bits(*layer.weight.shape) // 8 for layer in layers.values()
    )
    rest = sum(p.nbytes for p in model.parameters()) - sum(m.weight.nbytes for m in layers.values())
    assert model_bytes(model) == sum(p.nbytes for p in model.parameters())  # tied: once
    assert model_bytes(quantize_model(model, "int3-g32")) == codes + rest
    head = parse_scheme("int8").matrix_bits(96, 64) // 8
    with_head = quantize_model(model, "int3-g32", head_scheme="int8")
    assert model_bytes(with_head) == codes + rest + head
    assert model_bytes(quantize_model(model.bfloat16(), "int3-g32")) == codes + rest // 2


@BUILDERS
def test_a_head_with_codes_of_its_own(build) -> None:
    model = build()
    quantised = quantize_model(model, "int8", head_scheme="int4-row")
    assert quantised.lm_head.scheme.name == "int4-row"
    wanted = quantize_tensor(model.lm_head.weight, "int4-row")
    assert torch.equal(quantised.lm_head.weight.dequantize(), wanted.dequantize())


@BUILDERS
def test_a_plan_quantises_what_it_names(build) -> None:
    model = build()
    first, second, *rest = linear_layers(model)
    quantised = quantize_model(model, {first: "int2-g32", second: "nf4-g64"})
    assert quantised.get_submodule(first).scheme.name == "int2-g32"
    assert quantised.get_submodule(second).scheme.name == "nf4-g64"
    assert all(isinstance(quantised.get_submodule(name), nn.Linear) for name in rest)


def test_transformers_generates_with_it() -> None:
    model: Any = quantize_model(llama(), "int8")
    prompt = torch.tensor([[1, 2, 3]])
    ids = model.generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert ids.shape == (1, 7)


def test_a_layer_used_twice_stays_one_layer() -> None:
    linear = nn.Linear(32, 32)
    quantised = quantize_model(nn.Sequential(linear, nn.ReLU(), linear), "int8")
    assert quantised[0] is quantised[2]
    assert isinstance(quantised[0], QuantizedLinear)


def test_layers_whose_weight_their_owner_reads_stay_float() -> None:
    block = nn.ModuleDict({"attention": nn.MultiheadAttention(32, 4), "out": nn.Linear(32, 8)})
    quantised = quantize_model(block, "int8")
    assert isinstance(quantised["out"], QuantizedLinear)
    x = torch.randn(3, 1, 32)
    assert torch.equal(quantised["attention"](x, x, x)[0], block["attention"](x, x, x)[0])


class Router(nn.Linear):
    """A subclass that does more with its weight than nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(-1)


def test_subclasses_that_compute_otherwise_stay_float() -> None:
    model, x = nn.Sequential(nn.Linear(32, 32), Router(32, 8)), torch.randn(3, 32)
    assert list(linear_layers(model)) == ["0"]
    assert torch.equal(quantize_model(model, "int8")[1](x), model[1](x))
    with pytest.raises(ValueError, match="'1', which is no linear layer"):
        quantize_model(model, {"1": "int8"})


def test_bytes_of_a_model_on_the_meta_device() -> None:
    for tied in (True, False):
        with torch.device("meta"):
            on_meta = Decoder(decoder(tied).config)
        assert model_bytes(on_meta) == model_bytes(decoder(tied))


def test_twice_is_refused() -> None:
    once = quantize_model(decoder(), "int8")
    with pytest.raises(ValueError, match=r"quantised already: layer 'layers\.0.*holds int8"):
        quantize_model(once, "int4-g32")
    partly = quantize_model(decoder(), {"layers.0.mlp.down_proj": "int8"})
    with pytest.raises(ValueError, match="quantised already"):
        quantize_model(partly, "int4-g32")


def test_a_layer_that_another_library_quantised_is_refused() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    linear = bnb.nn.Linear4bit(64, 64, bias=False).to("cpu")
    with pytest.raises(ValueError, match=r"quantised already: .* torch\.uint8"):
        quantize_model(nn.Sequential(linear), "int8")


def test_bad_arguments() -> None:
    model = decoder()
    with pytest.raises(ValueError, match="method 'exl2' is unknown; use one of rtn, gptq"):
        quantize_model(model, "int8", method="exl2")
    with pytest.raises(ValueError, match="valid forms"):
        quantize_model(model, "int7")
    with pytest.raises(ValueError, match="valid forms"):
        quantize_model(model, "int8", head_scheme="int7")
    with pytest.raises(ValueError, match=r"'nope', which is no linear layer.*it has layers\.0"):
        quantize_model(model, {"nope": "int8"})
    with pytest.raises(ValueError, match="needs calibration"):
        quantize_model(model, "int8", method="gptq")
    with pytest.raises(ValueError, match="leave it out"):
        quantize_model(model, "int8", calibration=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="scheme is an empty plan"):
        quantize_model(model, {})
    with pytest.raises(ValueError, match=r"plan gives 'lm_head' 'int4-row', head_scheme .* 'int8'"):
        quantize_model(model, {"lm_head": "int4-row"}, head_scheme="int8")
    with pytest.raises(TypeError, match="scheme must be a str"):
        quantize_model(model, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"pass lm\.model"):
        quantize_model("tiny", "int8")  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"no nn\.Linear"):
        quantize_model(nn.Embedding(4, 4), "int8")
    with torch.no_grad():
        linear_layers(model)["layers.1.mlp.down_proj"].weight[2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"layer layers\.1\.mlp\.down_proj: w has 1 values.*row 2"):
        quantize_model(model, "int8")
