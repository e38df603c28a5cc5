"""anatomy.apply_rope against transformers, and by what a rotation must keep."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from slmlab.lessons.anatomy.apply_rope import APPLY_ROPE

rope = APPLY_ROPE.reference
thetas = st.sampled_from((100.0, 10_000.0, 500_000.0))


@given(
    seed=st.integers(0, 10_000),
    heads=st.integers(1, 3),
    tokens=st.integers(1, 4),
    half=st.integers(1, 8),
    start=st.integers(0, 200),
    theta=thetas,
)
def test_reference_against_transformers(
    seed: int, heads: int, tokens: int, half: int, start: int, theta: float
) -> None:
    x = torch.randn(heads, tokens, 2 * half, generator=torch.Generator().manual_seed(seed))
    positions = torch.arange(start, start + tokens)
    config = LlamaConfig(
        hidden_size=2 * half * heads,
        num_attention_heads=heads,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    cos, sin = LlamaRotaryEmbedding(config)(x, positions[None])
    wanted, _ = apply_rotary_pos_emb(x[None], x[None], cos, sin)
    torch.testing.assert_close(rope(x, positions, theta), wanted[0], rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 10_000), distance=st.integers(0, 30), shift=st.integers(0, 90))
def test_a_product_depends_on_the_distance_alone(seed: int, distance: int, shift: int) -> None:
    random = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, 8, generator=random)

    def product(start: int) -> float:
        late, early = torch.tensor([start + distance]), torch.tensor([start])
        return float((rope(query, late, 100.0) * rope(key, early, 100.0)).sum())

    assert abs(product(0) - product(shift)) < 1e-3


@given(seed=st.integers(0, 10_000), position=st.integers(0, 500), theta=thetas)
def test_every_pair_keeps_its_length(seed: int, position: int, theta: float) -> None:
    x = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(seed))
    turned = rope(x, torch.tensor([position]), theta)
    before, after = x.unflatten(-1, (2, 3)), turned.unflatten(-1, (2, 3))
    torch.testing.assert_close(after.norm(dim=-2), before.norm(dim=-2), rtol=1e-4, atol=1e-4)
    if position == 0:
        assert torch.equal(turned, x)


def test_the_worked_examples() -> None:
    x = torch.tensor([[[1.0, 2.0, 0.0, 0.0]]]).expand(1, 3, 4)
    turned = rope(x, torch.arange(3), 100.0)[0]
    assert turned[0].tolist() == [1.0, 2.0, 0.0, 0.0]
    for row in turned[1:].tolist():
        assert f"[{', '.join(f'{value:.4f}' for value in row)}]" in APPLY_ROPE.hints[1]
    stated = rope(torch.tensor([[[1.0, 0.0]]]), torch.tensor([1]), 10_000.0)
    torch.testing.assert_close(stated, torch.tensor([[[0.5403, 0.8415]]]), rtol=0, atol=1e-4)
