"""Attention in 16 bits, against the textbook formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slmlab.models.attend import attend


def exact(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    k, v = (t.double().repeat_interleave(groups, dim=1) for t in (k, v))
    scores = q.double() @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        hidden = torch.ones(q.shape[2], k.shape[2]).triu(1 + k.shape[2] - q.shape[2]).bool()
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores.softmax(dim=-1) @ v


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("time", [1, 7])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_equal_to_the_formula(dtype: torch.dtype, time: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(time)
    q = torch.randn(2, 6, time, 16, generator=generator).to(dtype)
    k, v = (torch.randn(2, kv_heads, 7, 16, generator=generator).to(dtype) for _ in range(2))
    out = attend(q, k, v, None, causal=time > 1)
    assert out.dtype == dtype and out.shape == q.shape
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(
        out.double(), exact(q, k, v, time > 1), rtol=4 * rounding, atol=8 * rounding
    )


@pytest.mark.parametrize(("dtype", "time"), [(torch.float16, 7), (torch.bfloat16, 1)], ids=str)
def test_sixteen_bits_are_rounded_once(dtype: torch.dtype, time: int) -> None:
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(1, 4, time, 16, generator=generator).to(dtype)
    k, v = (torch.randn(1, 2, 7, 16, generator=generator).to(dtype) for _ in range(2))
    wide = attend(q.float(), k.float(), v.float(), None, causal=time > 1)
    assert torch.equal(attend(q, k, v, None, causal=time > 1), wide.to(dtype))


def test_a_mask_says_which_keys_are_seen() -> None:
    generator = torch.Generator().manual_seed(5)
    q = torch.randn(1, 4, 1, 16, generator=generator).half()
    k, v = (torch.randn(1, 2, 9, 16, generator=generator).half() for _ in range(2))
    mask = torch.arange(9)[None, None, None] >= 4
    seen = attend(q, k[:, :, 4:], v[:, :, 4:], None, causal=False)
    torch.testing.assert_close(attend(q, k, v, mask, causal=False), seen)
