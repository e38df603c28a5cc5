"""Attention, and the one place that chooses the precision it is computed in."""

from __future__ import annotations

from torch import Tensor, float16
from torch.nn import functional


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Grouped-query attention through torch's kernel.

    On a CPU torch's 16-bit kernel for a single query is several times slower than converting the
    keys and values and using the float32 one, which is also closer to the exact result. In float16
    that holds for many queries too (`benchmarks/decoder_race.py` measures what it gives).

    Args:
        q: (batch, heads, time, head_dim).
        k, v: (batch, kv_heads, keys, head_dim); ``heads`` is a multiple of ``kv_heads``.
        mask: bool, broadcastable to (batch, heads, time, keys), true where a query sees a key.
        causal: query i of the newest tokens sees the keys up to its own; then ``mask`` is None.

    Returns:
        (batch, heads, time, head_dim), q's dtype.
    """
    dtype = q.dtype
    sixteen_bits = q.element_size() == 2
    if q.device.type == "cpu" and sixteen_bits and (dtype == float16 or q.shape[2] == 1):
        q, k, v = q.float(), k.float(), v.float()
    out = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out.to(dtype)
