"""The losses against torch's kl_div, finite differences, their limits, and their memory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from slmlab.distill import losses
from slmlab.distill.losses import DIVERGENCES, distillation_loss
from tests.distill.pairs import peak_bytes


def composed(
    student: Tensor, teacher: Tensor, temperature: float, divergence: str, beta: float
) -> Tensor:
    """Each position's loss, from torch's own pieces; kl_div(x, y) is KL(y || x)."""
    log_q = functional.log_softmax(student / temperature, -1)
    log_p = functional.log_softmax(teacher / temperature, -1)

    def kl(of: Tensor, to: Tensor) -> Tensor:
        return functional.kl_div(to, of, reduction="none", log_target=True).sum(-1)

    if divergence == "forward_kl":
        value = kl(log_p, log_q)
    elif divergence == "reverse_kl":
        value = kl(log_q, log_p)
    else:
        log_m = torch.logsumexp(
            torch.stack((log_p + math.log(beta), log_q + math.log1p(-beta))), dim=0
        )
        value = beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
    return value * temperature**2


def pair(*shape: int, seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        scale * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return student.requires_grad_(), teacher


@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    vocabulary=st.integers(1, 9),
    temperature=st.sampled_from((0.5, 1.0, 2.0, 7.5)),
    divergence=st.sampled_from(DIVERGENCES),
    beta=st.sampled_from((0.1, 0.5, 0.9)),
    chunk=st.integers(1, 30),
    data=st.data(),
)
def test_value_and_gradient_are_those_of_torchs_pieces(
    shape, vocabulary, temperature, divergence, beta, chunk, data
):
    student, teacher = pair(*shape, vocabulary)
    count = math.prod(shape)
    bits = data.draw(st.lists(st.booleans(), min_size=count, max_size=count).filter(any))
    mask = torch.tensor(bits).view(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CHUNK_ELEMENTS", chunk)
        ours = distillation_loss(student, teacher, temperature, divergence, beta, mask)
        (gradient,) = torch.autograd.grad(ours, student)
    theirs = composed(student, teacher, temperature, divergence, beta)[mask].mean()
    (expected,) = torch.autograd.grad(theirs, student)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradient_is_that_of_finite_differences(divergence):
    student, teacher = pair(2, 5)
    ours = distillation_loss(student, teacher, 1.7, divergence, 0.3)
    (gradient,) = torch.autograd.grad(ours, student)
    student = student.detach()
    step = 1e-4
    for place in range(student.numel()):
        nudge = torch.zeros(student.numel(), dtype=torch.float64)
        nudge[place] = step
        nudge = nudge.view_as(student)
        # Fourth order: its error of about step^4 leaves room below 1e-8.
        near, far = (
            float(distillation_loss(student + k * nudge, teacher, 1.7, divergence, 0.3))
            - float(distillation_loss(student - k * nudge, teacher, 1.7, divergence, 0.3))
            for k in (1, 2)
        )
        assert (8 * near - far) / (12 * step) == pytest.approx(
            float(gradient.flatten()[place]), abs=1e-8
        )


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16))
def test_identical_logits_give_exactly_zero(divergence, dtype):
    logits = (5 * torch.randn(3, 50, dtype=torch.float64)).to(dtype).requires_grad_()
    for beta in (0.2, 0.5, 0.7):
        loss = distillation_loss(logits, logits.detach(), 2.0, divergence, beta)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == 0.0 and loss.dtype == dtype
        assert bool((gradient == 0).all()) and gradient.dtype == dtype


def test_great_temperature_gives_the_gradient_of_the_mean_squared_logits():
    student, teacher = pair(4, 6)
    loss = distillation_loss(student, teacher, temperature=1e5)
    (gradient,) = torch.autograd.grad(loss, student)
    centred = [z - z.mean(-1, keepdim=True) for z in (student, teacher)]
    matched = ((centred[0] - centred[1]) ** 2).mean(-1).mean() / 2
    (expected,) = torch.autograd.grad(matched, student)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    assert gradient.abs().max() > 0.05


def test_jsd_is_symmetric_at_one_half_only():
    student, teacher = pair(5, 8)
    there = distillation_loss(student, teacher, 2.0, "jsd", 0.5)
    back = distillation_loss(teacher, student, 2.0, "jsd", 0.5)
    assert there.item() == pytest.approx(back.item(), abs=1e-12)
    uneven = distillation_loss(student, teacher, 2.0, "jsd", 0.2)
    swapped = distillation_loss(teacher, student, 2.0, "jsd", 0.2)
    assert abs(uneven.item() - swapped.item()) > 1e-3
    assert uneven.item() == pytest.approx(
        float(distillation_loss(teacher, student, 2.0, "jsd", 0.8)), abs=1e-12
    )


def test_jsd_tends_to_the_two_kl_divergences():
    """Agarwal et al. 2024, section 2: JSD / beta tends to forward KL as beta goes to 0, and
    JSD / (1 - beta) to reverse KL as it goes to 1."""
    student, teacher = pair(5, 8, scale=1.0)
    forward, reverse = (
        distillation_loss(student, teacher, 1.0, d).item() for d in ("forward_kl", "reverse_kl")
    )
    small = distillation_loss(student, teacher, 1.0, "jsd", 1e-6).item() / 1e-6
    large = distillation_loss(student, teacher, 1.0, "jsd", 1 - 1e-6).item() / 1e-6
    assert small == pytest.approx(forward, rel=1e-3)
    assert large == pytest.approx(reverse, rel=1e-3)
    assert abs(forward - reverse) > 0.01


def test_masked_positions_may_hold_anything():
    student, teacher = pair(2, 3, 6)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    clean = distillation_loss(student, teacher, mask=mask)
    with torch.no_grad():
        dirty = student.clone()
        dirty[~mask] = math.nan
        teacher[~mask] = math.nan
    dirty.requires_grad_()
    loss = distillation_loss(dirty, teacher, mask=mask)
    (gradient,) = torch.autograd.grad(loss, dirty)
    assert loss.item() == clean.item()
    assert bool((gradient[~mask] == 0).all()) and bool((gradient[mask] != 0).any())


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_token_that_neither_allows_adds_nothing(divergence):
    student, teacher = pair(3, 6)
    never = torch.full((3, 1), -math.inf, dtype=student.dtype)
    ours, theirs = (torch.cat((z, never), -1) for z in (student, teacher))
    narrow = distillation_loss(student, teacher, 2.0, divergence)
    loss = distillation_loss(ours, theirs, 2.0, divergence)
    assert loss.item() == pytest.approx(narrow.item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, student)
    (expected,) = torch.autograd.grad(narrow, student)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_a_token_that_only_the_teacher_allows_costs_infinitely_much():
    student, teacher = torch.tensor([[0.0, -math.inf]]), torch.zeros(1, 2)
    assert distillation_loss(student, teacher).item() == math.inf
    assert math.isfinite(distillation_loss(student, teacher, divergence="reverse_kl").item())


def test_the_upstream_gradient_counts_and_the_teacher_gets_none():
    student, teacher = pair(2, 5)
    teacher.requires_grad_()
    loss = distillation_loss(student, teacher)
    (once,) = torch.autograd.grad(loss, student, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, student)
    torch.testing.assert_close(thrice, 3 * once)
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad is not None


def test_half_precision_is_computed_in_float32():
    student, teacher = (z.detach() for z in pair(4, 300))
    for dtype in (torch.bfloat16, torch.float16):
        ours, theirs = (z.to(dtype) for z in (student, teacher))
        exact = distillation_loss(ours.double(), theirs.double())
        loss = distillation_loss(ours, theirs)
        assert loss.dtype == dtype
        assert loss.item() == exact.to(dtype).item()


def test_a_transposed_or_sliced_input_is_read_as_it_lies():
    student, teacher = pair(3, 5, 7)
    loss = distillation_loss(student[:, :-1], teacher[:, :-1])
    copied = distillation_loss(student[:, :-1].contiguous(), teacher[:, :-1].contiguous())
    assert loss.item() == copied.item()
    turned = distillation_loss(student.transpose(0, 1), teacher.transpose(0, 1))
    assert turned.item() == pytest.approx(distillation_loss(student, teacher).item(), abs=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("sliced", (False, True))
def test_no_second_copy_of_the_logits_besides_the_gradient(divergence, sliced, monkeypatch):
    shape = (4, 65, 1024)
    leaf = torch.randn(shape, requires_grad=True)
    teacher = torch.randn(shape)
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 8 * 1024)
    if sliced:
        leaf = torch.randn(shape, requires_grad=True)
        student, teacher = leaf[:, :-1], teacher[:, :-1]
    else:
        student = leaf
    logits = student.numel() * 4

    def chunked() -> None:
        torch.autograd.grad(distillation_loss(student, teacher, 2.0, divergence), student)

    def plain() -> None:
        torch.autograd.grad(composed(student, teacher, 2.0, divergence, 0.5).mean(), student)

    chunked()
    peak = peak_bytes(chunked)
    assert logits <= peak <= 1.35 * logits
    assert 2 * peak <= peak_bytes(plain)


REFUSED = [
    (dict(teacher_logits=torch.zeros(2, 4)), ValueError, "student_logits .* differ"),
    (dict(teacher_logits=torch.zeros(3)), ValueError, "differ"),
    (dict(temperature=0.0), ValueError, "temperature"),
    (dict(temperature=-1.0), ValueError, "temperature"),
    (dict(temperature=math.nan), ValueError, "temperature"),
    (dict(temperature="2"), TypeError, "temperature"),
    (dict(beta=0.0), ValueError, "beta"),
    (dict(beta=1.0), ValueError, "beta"),
    (dict(divergence="kl"), ValueError, "forward_kl, reverse_kl, jsd"),
    (dict(mask=torch.zeros(2, dtype=torch.bool)), ValueError, "False everywhere"),
    (dict(mask=torch.ones(3, dtype=torch.bool)), ValueError, "mask has shape"),
    (dict(mask=torch.ones(2)), TypeError, "mask.bool"),
    (
        dict(student_logits=torch.tensor([[0.0, math.nan, 0], [0, 0, 0]])),
        ValueError,
        "student_logits holds NaN",
    ),
    (
        dict(teacher_logits=torch.tensor([[0.0, 0, 0], [0, math.inf, 0]])),
        ValueError,
        "teacher_logits holds NaN",
    ),
    (dict(student_logits=torch.full((2, 3), -math.inf)), ValueError, "only -inf"),
    (dict(student_logits=torch.zeros(2, 3, dtype=torch.int64)), TypeError, "student_logits"),
    (dict(student_logits=[1.0], teacher_logits=[1.0]), TypeError, "student_logits"),
    (dict(student_logits=torch.zeros(0, 3), teacher_logits=torch.zeros(0, 3)), ValueError, "shape"),
]


@pytest.mark.parametrize(("changed", "error", "says"), REFUSED)
def test_bad_input_is_named(changed, error, says):
    arguments = dict(student_logits=torch.zeros(2, 3), teacher_logits=torch.zeros(2, 3)) | changed
    with pytest.raises(error, match=says):
        distillation_loss(**arguments)
