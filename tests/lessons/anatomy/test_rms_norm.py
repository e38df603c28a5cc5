"""anatomy.rms_norm against float64 arithmetic and transformers' module."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from slmlab.lessons.anatomy.rms_norm import RMS_NORM


@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 4),
    width=st.integers(1, 9),
    scale=st.sampled_from((1e-4, 1e-2, 1.0, 100.0)),
    eps=st.sampled_from((1e-6, 1e-5)),
)
def test_reference_against_two_others(
    seed: int, tokens: int, width: int, scale: float, eps: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(tokens, width, generator=random)
    weight = torch.randn(width, generator=random)
    found = RMS_NORM.reference(x, weight, eps)

    wide = x.numpy().astype(np.float64)
    root = np.sqrt((wide**2).mean(axis=1, keepdims=True) + eps)
    np.testing.assert_allclose(found.numpy(), wide / root * weight.numpy(), rtol=1e-5, atol=1e-7)

    module = LlamaRMSNorm(width, eps=eps)
    module.weight.data.copy_(weight)
    torch.testing.assert_close(found, module(x).detach())


@given(seed=st.integers(0, 10_000), factor=st.floats(0.5, 50.0))
def test_length_goes_and_direction_stays(seed: int, factor: float) -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))
    found = RMS_NORM.reference(factor * x, torch.ones(8), 0.0)
    torch.testing.assert_close(found.square().mean(dim=-1), torch.ones(3))
    torch.testing.assert_close(torch.cosine_similarity(found, x), torch.ones(3))


def test_the_worked_examples() -> None:
    found = RMS_NORM.reference(torch.tensor([[3.0, 0.0, -4.0]]), torch.ones(3), 0.0)[0]
    assert f"[{found[0]:.4f}, 0.0, {found[2]:.4f}]" in RMS_NORM.hints[1]
    squares = found.square()
    assert f"[{squares[0]:.2f}, 0, {squares[2]:.2f}]" in RMS_NORM.hints[1]
    stated = RMS_NORM.reference(torch.tensor([[1.0, 7.0]]), torch.ones(2), 0.0)
    torch.testing.assert_close(stated, torch.tensor([[0.2, 1.4]]))
