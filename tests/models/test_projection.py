"""Products of one row: the same numbers, whatever the order of the weight in memory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from threadpoolctl import threadpool_info

from slmlab.models import Decoder, projection, save_decoder
from slmlab.models.projection import Projection
from tests.models.layouts import saved

sizes = st.integers(1, 70)


def by_column(weight: torch.Tensor) -> bool:
    return weight.t().is_contiguous() and not weight.is_contiguous()


def first(decoder: Decoder) -> Projection:
    return next(m for m in decoder.modules() if isinstance(m, Projection))


@given(rows=st.integers(1, 3), inputs=sizes, outputs=sizes, bias=st.booleans())
def test_equal_to_linear(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(inputs * 71 + outputs)
    layer = Projection(inputs, outputs, bias=bias).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    plain = copy.deepcopy(layer.weight.data)
    layer.lay_out()
    assert torch.equal(layer.weight, plain) and layer.weight.shape == (outputs, inputs)
    x = torch.randn(1, rows, inputs, generator=generator)
    with torch.inference_mode():
        wanted = torch.nn.functional.linear(x.double(), plain.double())
        wanted = wanted if layer.bias is None else wanted + layer.bias.double()
        got = layer(x)
    assert got.shape == (1, rows, outputs) and got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Output sizes of the rows that took numpy's path."""
    seen: list[int] = []
    product = projection.row_times_columns

    def counted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen.append(weight.shape[0])
        return product(x, weight)

    monkeypatch.setattr(projection, "row_times_columns", counted)
    return seen


def test_a_loaded_decoder_takes_it_for_one_token(tmp_path: Path, calls: list[int]) -> None:
    saved("smollm2", tmp_path)
    decoder = Decoder.from_pretrained(tmp_path)
    layers = [m for m in decoder.modules() if isinstance(m, Projection)]
    assert all(by_column(layer.weight) for layer in layers)
    assert decoder.lm_head.weight is decoder.embed_tokens.weight  # tied still
    with torch.inference_mode():
        decoder(torch.tensor([[3, 4]]))
        decoder(torch.tensor([[3], [4]]))
        assert not calls
        decoder(torch.tensor([[3]]))
    assert len(calls) == len(layers)


def test_gradients_go_through_torch(tmp_path: Path, calls: list[int]) -> None:
    saved("llama", tmp_path)
    decoder = Decoder.from_pretrained(tmp_path).requires_grad_(True)
    decoder(torch.tensor([[3]])).sum().backward()
    assert not calls
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.layers.parameters())


def test_the_order_follows_the_dtype(tmp_path: Path, calls: list[int]) -> None:
    saved("llama", tmp_path)
    decoder = Decoder.from_pretrained(tmp_path)
    weight = first(decoder).weight.detach().clone()
    assert by_column(first(decoder).weight)
    for dtype in (torch.float16, torch.bfloat16):
        layer = first(decoder.to(dtype))
        assert layer.weight.is_contiguous() and layer.weight.dtype == dtype
        assert Decoder.from_pretrained(tmp_path, dtype=dtype).lm_head.weight.is_contiguous()
    with torch.inference_mode():
        decoder(torch.tensor([[3]]))
        assert not calls
    assert by_column(first(decoder.float()).weight)
    torch.testing.assert_close(first(decoder).weight, weight, rtol=0.01, atol=0.01)
    assert not by_column(Decoder(decoder.config).lm_head.weight)  # one to train stays plain


def test_saving_writes_the_usual_order(tmp_path: Path) -> None:
    theirs = saved("llama", tmp_path / "a")
    save_decoder(Decoder.from_pretrained(tmp_path / "a"), tmp_path / "b", torch.float32)
    written = load_file(tmp_path / "b" / "model.safetensors")
    for name, parameter in theirs.named_parameters():
        assert torch.equal(written[name], parameter), name


@pytest.mark.skipif(
    not any(library["user_api"] == "blas" for library in threadpool_info()),
    reason="numpy's BLAS here has no thread count that threadpoolctl can read",
)
def test_as_many_threads_as_torch() -> None:
    layer = Projection(8, 8).requires_grad_(False).lay_out()
    before = torch.get_num_threads()
    try:
        for count in (2, 1):
            torch.set_num_threads(count)
            with torch.inference_mode():
                layer(torch.ones(1, 8))
            blas = [t["num_threads"] for t in threadpool_info() if t["user_api"] == "blas"]
            assert blas and max(blas) <= count
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("lacks", [True, False])
def test_many_rows_of_float16(lacks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    linear = torch.nn.functional.linear

    def recorded(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        seen.append(weight.dtype)
        return linear(x, weight, bias)

    monkeypatch.setattr(projection, "_lacks_half_products", lambda weight: lacks)
    monkeypatch.setattr(projection.functional, "linear", recorded)
    layer = Projection(64, 48).half().requires_grad_(False).lay_out()
    for rows in (1, 3, 4, 40):
        x = torch.randn(1, rows, 64, generator=torch.Generator().manual_seed(rows)).half()
        got = layer(x)
        wanted = linear(x.double(), layer.weight.double(), layer.bias.double())
        assert got.dtype == torch.float16
        torch.testing.assert_close(got.double(), wanted, rtol=2e-3, atol=2e-3)
    many = torch.float32 if lacks else torch.float16
    assert seen == [torch.float16, torch.float16, many, many]


def test_float16_products_are_replaced_only_without_gradients() -> None:
    weight = torch.zeros(2, 2, dtype=torch.float16)
    assert not projection._lacks_half_products(weight)  # gradients are on
    with torch.no_grad():
        native = torch.ops.mkldnn._is_mkldnn_fp16_supported()
        assert projection._lacks_half_products(weight) is not native
        assert not projection._lacks_half_products(weight.float())
