"""How far a student's next-token distributions are from its teacher's, and the pull that follows.

Hinton et al. 2015 (arXiv:1503.02531) soften both with a temperature T, softmax(z / T), and multiply
the loss by T^2: its gradient shrinks as 1 / T^2, and the factor keeps it beside a hard-label loss
at every T. Forward KL asks the student to cover all that the teacher finds likely, reverse KL to
stay where the teacher is; the generalised Jensen-Shannon divergence lies between (Agarwal et al.
2024, arXiv:2306.13649, section 2).

p is the teacher's distribution, q the student's, z its logits:

    forward KL   sum p (log p - log q)        d/dz = (q - p) / T
    reverse KL   sum q (log q - log p)        d/dz = q (log q - log p - KL) / T
    JSD          beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q
                                              d/dz = q (g - sum q g) / T,  g = (1 - beta) log(q / m)

Composed from torch's softmax and kl_div, a loss over 2048 positions and 49,152 tokens keeps several
copies of its logits. Here a few positions are worked on at a time, and the backward pass computes
them again: the one large tensor is the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slmlab.models.fields import check_positive

CHUNK_ELEMENTS = 2**18  # of one block of positions: a few of these fit into a core's cache


class LogitsNotFinite(ValueError):
    """A position that counts holds NaN or +inf: no loss can be taken there."""


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(teacher || student) of each row: (N, V) log-probabilities -> (N,)."""
    return (log_p.exp() * _bounded(log_p - log_q)).sum(-1)


def forward_kl_pull(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Its gradient to the student's z / T: (N, V)."""
    return log_q.exp().sub_(log_p.exp())


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(student || teacher) of each row: (N, V) log-probabilities -> (N,)."""
    return (log_q.exp() * _bounded(log_q - log_p)).sum(-1)


def reverse_kl_pull(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Its gradient to the student's z / T: (N, V)."""
    q, excess = log_q.exp(), _bounded(log_q - log_p)
    return q * (excess - (q * excess).sum(-1, keepdim=True))


def jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """Generalised JSD of each row: (N, V) log-probabilities -> (N,)."""
    p, q = log_p.exp(), log_q.exp()
    m = torch.lerp(q, p, beta)  # exactly q where p == q, so that equal rows give exactly 0
    teacher = (p * _bounded((p / m).log_())).sum(-1)
    student = (q * _bounded((q / m).log_())).sum(-1)
    return beta * teacher + (1 - beta) * student


def jensen_shannon_pull(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """Its gradient to the student's z / T: (N, V)."""
    p, q = log_p.exp(), log_q.exp()
    g = (1 - beta) * _bounded((q / torch.lerp(q, p, beta)).log_())
    return q * (g - (q * g).sum(-1, keepdim=True))


def _bounded(log_ratio: Tensor) -> Tensor:
    """Log-ratios, in place, of which 0 times each is 0: -inf, and inf - inf where neither side allows
    a token. One pass; torch.where over the zero weights takes ten times as long."""
    lowest = torch.finfo(log_ratio.dtype).min
    return log_ratio.nan_to_num_(nan=0.0, posinf=math.inf, neginf=lowest)


_Rows = Callable[..., Tensor]
_DIVERGENCES: dict[str, tuple[_Rows, _Rows]] = {
    "forward_kl": (forward_kl, forward_kl_pull),
    "reverse_kl": (reverse_kl, reverse_kl_pull),
    "jsd": (jensen_shannon, jensen_shannon_pull),
}
DIVERGENCES = tuple(_DIVERGENCES)


@dataclass(frozen=True)
class Divergence:
    """What is measured: one of ``DIVERGENCES`` at a temperature.

    Raises ValueError for an unknown name, a temperature that is not positive, a beta outside
    (0, 1); TypeError for what is no number.
    """

    name: str = "forward_kl"
    temperature: float = 2.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in _DIVERGENCES:
            raise ValueError(f"divergence={self.name!r} must be one of {', '.join(DIVERGENCES)}")
        check_positive("temperature", self.temperature)
        if check_positive("beta", self.beta) >= 1:
            raise ValueError(
                f"beta={self.beta} must lie between 0 and 1, both excluded: it weighs the teacher "
                "in the mixture m. For the limits take forward_kl or reverse_kl"
            )

    def of(self, log_p: Tensor, log_q: Tensor, *, pull: bool = False) -> Tensor:
        """Value (N,), or gradient to the student's z / T (N, V), of rows of log-probabilities."""
        compute = _DIVERGENCES[self.name][pull]
        return compute(log_p, log_q, self.beta) if self.name == "jsd" else compute(log_p, log_q)


class _DistillationLoss(torch.autograd.Function):
    """Sum of a divergence over rows, a chunk at a time; the backward pass recomputes each chunk."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, positions: Tensor, divergence: Divergence
    ) -> Tensor:
        """student, teacher: (..., V); positions: (N, leading dimensions) int64 -> scalar."""
        ctx.save_for_backward(student, teacher, positions)
        ctx.divergence = divergence
        rows = []
        for at in _chunks(positions, student):
            log_p, log_q = _log_probabilities(student, teacher, at, divergence.temperature)
            # A NaN here is 0 * inf of a weight too small for its dtype: infinite, in truth.
            value = divergence.of(log_p, log_q).nan_to_num_(nan=math.inf, posinf=math.inf)
            # log_softmax spreads a NaN or +inf over its whole row.
            rows.append(value.masked_fill_((log_p[:, 0] + log_q[:, 0]).isnan(), math.nan))
        total = torch.cat(rows).sum()
        # Asked once a call: on a GPU each such question waits for the work before it.
        if bool(total.isnan()):
            raise LogitsNotFinite(_not_a_number(student, teacher, positions))
        factor = divergence.temperature**2 / len(positions)
        return (total * factor).to(torch.promote_types(student.dtype, teacher.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        student, teacher, positions = ctx.saved_tensors
        temperature = ctx.divergence.temperature
        gradient = torch.zeros_like(student)
        # d(z / T) / dz = 1 / T takes one T from T^2.
        factor = upstream.to(_working_dtype(student, teacher)) * (temperature / len(positions))
        for at in _chunks(positions, student):
            log_p, log_q = _log_probabilities(student, teacher, at, temperature)
            pull = ctx.divergence.of(log_p, log_q, pull=True).mul_(factor)
            gradient[at] = pull.to(gradient.dtype)
        return gradient, None, None, None


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 2.0,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean divergence over the positions where ``mask`` is True, times temperature^2.

    Args:
        student_logits, teacher_logits: (..., V), floating point. A logit of -inf is a token of
            probability 0. No gradient reaches the teacher.
        temperature: both are divided by it.
        divergence: "forward_kl", KL(teacher || student); "reverse_kl", KL(student || teacher);
            "jsd", beta * KL(t || m) + (1 - beta) * KL(s || m) with m = beta * t + (1 - beta) * s.
        beta: of "jsd", between 0 and 1.
        mask: (...,) bool, the logits' shape without V; None counts every position.

    Returns:
        A scalar in nats, in the dtype of the logits. 16-bit logits are computed with in float32.
        Infinite where one side gives probability 0 to a token that the divergence weighs.

    Raises:
        ValueError: shapes that differ, a mask of another shape or without a True, NaN or +inf in a
            position that counts, temperature <= 0, beta outside (0, 1), an unknown divergence.
        TypeError: no floating-point tensors, a mask that is not bool.
    """
    chosen = Divergence(divergence, temperature, beta)
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher_logits)):
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            kind = getattr(logits, "dtype", type(logits).__name__)
            raise TypeError(f"{name} must be a floating-point tensor, not {kind}")
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student_logits {tuple(student_logits.shape)} and teacher_logits "
            f"{tuple(teacher_logits.shape)} differ: give both models the same ids, and a teacher "
            "with the student's vocabulary"
        )
    if student_logits.dim() == 0 or student_logits.numel() == 0:
        raise ValueError(
            f"student_logits has shape {tuple(student_logits.shape)}: give at least one position "
            "and one token, (..., V)"
        )
    student, teacher = student_logits, teacher_logits.detach()
    positions = counted_positions(student.shape[:-1], mask, student.device)
    whole = len(positions) == student.shape[:-1].numel()
    if student.dim() == 1 or (whole and student.is_contiguous() and teacher.is_contiguous()):
        student, teacher = (
            student.reshape(-1, student.shape[-1]),
            teacher.reshape(-1, teacher.shape[-1]),
        )
        positions = torch.arange(len(student), device=student.device)[:, None]
    loss: Tensor = _DistillationLoss.apply(student, teacher, positions, chosen)  # type: ignore[no-untyped-call]
    return loss


def counted_positions(shape: torch.Size, mask: Tensor | None, device: torch.device) -> Tensor:
    """Indices of the positions that count: (N, len(shape)) int64, N at least 1.

    Raises ValueError for a mask of another shape or without a True, TypeError for one not bool.
    """
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device).nonzero()
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"mask must be a bool tensor, not {kind}: pass mask.bool()")
    if mask.shape != shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, the logits have positions {tuple(shape)}: give "
            "one truth value a position"
        )
    positions = mask.to(device).nonzero()
    if not len(positions):
        raise ValueError("mask is False everywhere: there is no position to take the mean over")
    return positions


def _chunks(positions: Tensor, logits: Tensor) -> list[tuple[Any, ...]]:
    """Indices of a few positions each. Indexing copies the chunk alone, whatever the strides: a
    flattened view of ``logits[:, :-1]`` would copy it all."""
    rows = max(1, CHUNK_ELEMENTS // logits.shape[-1])
    if logits.dim() == 2 and len(positions) == len(logits):  # all of a matrix: no copy is needed
        return [(slice(start, start + rows),) for start in range(0, len(logits), rows)]
    return [chunk.unbind(-1) for chunk in positions.split(rows)]


def _working_dtype(student: Tensor, teacher: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)


def _log_probabilities(
    student: Tensor, teacher: Tensor, at: tuple[Tensor, ...], temperature: float
) -> tuple[Tensor, Tensor]:
    """log p of the teacher and log q of the student at some positions: (rows, V) each."""
    dtype = _working_dtype(student, teacher)
    log_p = teacher[at].to(dtype).div(temperature).log_softmax(-1)
    log_q = student[at].to(dtype).div(temperature).log_softmax(-1)
    return log_p, log_q


def _not_a_number(student: Tensor, teacher: Tensor, positions: Tensor) -> str:
    for at in _chunks(positions, student):
        for name, logits in (("student_logits", student), ("teacher_logits", teacher)):
            rows = logits[at]
            bad = (rows.isnan() | rows.isposinf()).any(-1) | rows.isneginf().all(-1)
            if bool(bad.any()):
                return (
                    f"{name} holds NaN or +inf, or only -inf, in a position that counts: the model's "
                    "weights are damaged, or its dtype overflows; leave padding out with mask"
                )
    return "the loss is NaN although every logit is a number: raise the temperature"
