"""The product for a few rows: equal to torch's, never on a stale copy, never in the way."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from slmlab.models import Decoder, ModelConfig, packed
from slmlab.models.packed import MOST_ROWS, PackedWeight, can_pack
from slmlab.models.projection import Projection

pytestmark = pytest.mark.skipif(
    not can_pack(torch.ones(2, 2)), reason="this build of torch has no oneDNN products"
)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows of every packed product."""
    rows: list[int] = []
    product = PackedWeight.product

    def counted(self: PackedWeight, x: Tensor, bias: Tensor | None) -> Tensor:
        rows.append(x.numel() // x.shape[-1])
        return product(self, x, bias)

    monkeypatch.setattr(packed.PackedWeight, "product", counted)
    yield rows


@given(
    rows=st.integers(1, MOST_ROWS),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    laid_out=st.booleans(),
)
def test_equals_linear(rows: int, inputs: int, outputs: int, bias: bool, laid_out: bool) -> None:
    layer = Projection(inputs, outputs, bias=bias)
    if laid_out:
        layer.lay_out()
    layer.pack()
    x = torch.randn(1, rows, inputs)
    with torch.no_grad():
        wanted = functional.linear(x.double(), layer.weight.double(), None)
        wanted = wanted + layer.bias.double() if bias else wanted
        assert torch.allclose(layer(x).double(), wanted, atol=1e-5)


def test_only_few_rows_without_gradients(used: list[int]) -> None:
    layer = Projection(8, 8).pack()
    layer(torch.randn(3, 8))
    with torch.no_grad():
        layer(torch.randn(MOST_ROWS + 1, 8))
        layer(torch.randn(3, 8, dtype=torch.float32))
    assert used == [3]


@pytest.mark.parametrize("change", ["in place", "new data", "loaded", "optimiser"])
def test_a_changed_weight_is_not_computed_with_the_old_copy(change: str, used: list[int]) -> None:
    layer = Projection(8, 8, bias=False).pack()
    if change == "in place":
        with torch.no_grad():
            layer.weight.mul_(2)
    elif change == "new data":
        layer.weight.data = layer.weight.data * 2
    elif change == "loaded":
        layer.load_state_dict({"weight": torch.randn(8, 8)})
    else:
        layer(torch.randn(2, 8)).sum().backward()
        torch.optim.SGD(layer.parameters(), lr=0.5).step()
    x = torch.randn(3, 8)
    with torch.no_grad():
        assert torch.allclose(layer(x), x @ layer.weight.T, atol=1e-6)
        assert used == []
        layer.pack()
        assert torch.allclose(layer(x), x @ layer.weight.T, atol=1e-6)
    assert used == [3]


def test_another_dtype_drops_it_and_coming_back_packs_again(used: list[int]) -> None:
    layer = Projection(8, 8).pack().to(torch.bfloat16)
    with torch.no_grad():
        layer(torch.randn(3, 8, dtype=torch.bfloat16))
        assert used == []
        layer.pack()
        layer(torch.randn(3, 8, dtype=torch.bfloat16))
    assert used == []


def test_a_decoder_copies_saves_and_computes_as_before(used: list[int]) -> None:
    config = ModelConfig("llama", 50, 16, 24, 2, 4, 2, 4, 64)
    decoder = Decoder(config)
    names = set(decoder.state_dict())
    ids = torch.randint(50, (1, 9))
    with torch.no_grad():
        plain = decoder(ids)
        assert decoder.pack() is decoder
        assert torch.allclose(decoder(ids), plain, atol=1e-4)
        assert len(used) == 2 * 4 + 1
        assert set(decoder.state_dict()) == names
        twin = copy.deepcopy(decoder)
        used.clear()
        assert torch.allclose(twin(ids), plain, atol=1e-4)
    assert used == []
