"""Top-k logits with a rest bucket."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.distill import losses
from slmlab.distill.losses import DIVERGENCES, distillation_loss
from slmlab.distill.topk import TopKLogits, top_k_logits, top_k_loss
from tests.distill.pairs import peak_bytes
from tests.distill.test_losses import composed, pair


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_all_tokens_kept_equals_the_full_loss(divergence):
    student, teacher = pair(2, 3, 7)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    full = distillation_loss(student, teacher, 1.5, divergence, 0.4, mask)
    kept = top_k_loss(student, top_k_logits(teacher, 7, 1.5), divergence, 0.4, mask)
    assert float(kept) == pytest.approx(float(full), abs=1e-12)
    (ours,) = torch.autograd.grad(kept, student)
    (expected,) = torch.autograd.grad(full, student)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@given(
    k=st.integers(1, 9),
    temperature=st.sampled_from((0.7, 1.0, 3.0)),
    divergence=st.sampled_from(DIVERGENCES),
    chunk=st.integers(1, 40),
)
def test_the_loss_is_that_of_the_merged_distributions(k, temperature, divergence, chunk):
    """The oracle merges the probabilities themselves and differentiates through torch."""
    student, teacher = pair(2, 2, 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CHUNK_ELEMENTS", chunk)
        ours = top_k_loss(student, top_k_logits(teacher, k, temperature), divergence)
        (gradient,) = torch.autograd.grad(ours, student)
    top = teacher.topk(k, -1).indices
    others = torch.ones_like(teacher).scatter(-1, top, 0.0)
    merged = []
    for logits in (student, teacher):
        probabilities = (logits / temperature).softmax(-1)
        parts = [probabilities.gather(-1, top)]
        if k < 9:
            parts.append((probabilities * others).sum(-1, keepdim=True))
        merged.append(torch.cat(parts, -1).log() * temperature)
    theirs = composed(merged[0], merged[1], temperature, divergence, 0.5).mean()
    (expected,) = torch.autograd.grad(theirs, student)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)


def test_it_bounds_the_full_loss_from_below_and_grows_with_k():
    student, teacher = (z.detach() for z in pair(6, 20))
    values = [float(top_k_loss(student, top_k_logits(teacher, k))) for k in range(1, 21)]
    full = float(distillation_loss(student, teacher))
    assert values == sorted(values) and values[-1] == pytest.approx(full, abs=1e-12)
    assert values[0] < 0.9 * full


def test_stored_and_read_back_is_the_same(tmp_path):
    student, teacher = (z.detach().float() for z in pair(4, 5, 30))
    kept = top_k_logits(teacher, 6, 1.5)
    kept.save(tmp_path / "kept.safetensors")
    again = TopKLogits.load(tmp_path / "kept.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["kept.safetensors"]
    assert (again.k, again.vocabulary, again.temperature) == (6, 30, 1.5)
    assert top_k_loss(student, again).item() == top_k_loss(student, kept).item()
    assert kept.nbytes == 4 * 5 * (6 * 4 + 6 * 4 + 4)
    some = kept[torch.tensor([2, 0])]
    torch.testing.assert_close(some.values, teacher[[2, 0]].topk(6, -1).values)
    (tmp_path / "kept.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no top-k logits"):
        TopKLogits.load(tmp_path / "kept.safetensors")


def test_padding_may_hold_anything():
    student, teacher = pair(2, 3, 6)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    dirty = student.detach().clone()
    dirty[~mask] = math.nan
    dirty.requires_grad_()
    loss = top_k_loss(dirty, top_k_logits(teacher, 2), mask=mask)
    (gradient,) = torch.autograd.grad(loss, dirty)
    assert loss.item() == top_k_loss(student, top_k_logits(teacher, 2), mask=mask).item()
    assert bool((gradient[~mask] == 0).all())


def test_one_tensor_of_the_logits_size(monkeypatch):
    student, teacher = torch.randn(256, 1024, requires_grad=True), torch.randn(256, 1024)
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 8 * 1024)
    kept = top_k_logits(teacher, 8)

    def work() -> None:
        torch.autograd.grad(top_k_loss(student, kept), student)

    work()
    logits = 256 * 1024 * 4
    assert logits <= peak_bytes(work) <= 1.35 * logits


def test_bad_input_is_named():
    logits = torch.zeros(2, 5)
    with pytest.raises(ValueError, match="k=6"):
        top_k_logits(logits, 6)
    with pytest.raises(ValueError, match="temperature"):
        top_k_logits(logits, 2, 0.0)
    with pytest.raises(TypeError, match="floating"):
        top_k_logits(logits.long(), 2)
    kept = top_k_logits(logits, 2)
    with pytest.raises(ValueError, match="vocabulary of 4"):
        top_k_loss(torch.zeros(2, 4), kept)
    with pytest.raises(ValueError, match="positions"):
        top_k_loss(torch.zeros(3, 5), kept)
