"""A teacher's k largest logits a position, and one rest bucket for all other tokens.

Full logits over 49,152 tokens take 98 kB a position in 16 bits; a teacher that is asked once, not
in every epoch, must be stored in less. What is kept decides what is learned: scaling the k
probabilities up to sum 1 tells the student that no other token exists. Here the rest of the mass is
kept too, as the logit of one more token:

    rest = log sum exp(z_j / T) over the tokens j that were not kept

The student's distribution is put into the same k + 1 buckets, and any divergence is taken between
the two. Merging tokens never increases a divergence of this family (the data-processing inequality),
so the loss is a lower bound of the full one; at k = V, where the rest is empty, it equals it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slmlab.distill import losses
from slmlab.distill.losses import counted_positions, distillation_loss
from slmlab.distill.store import save_tensors
from slmlab.models.fields import check_positive, check_whole


@dataclass(frozen=True)
class TopKLogits:
    """The k largest logits of each position, and the mass of all others.

    values: (..., k), logits as the model gave them, the largest first. indices: (..., k) int32,
    their token ids. rest: (...,), log-sum-exp of the other logits over ``temperature``; -inf at
    k = V. vocabulary: V. temperature: at which ``rest`` was summed; the loss is taken at the same.
    """

    values: Tensor
    indices: Tensor
    rest: Tensor
    vocabulary: int
    temperature: float

    @property
    def k(self) -> int:
        return self.values.shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of the three tensors."""
        return self.values.nbytes + self.indices.nbytes + self.rest.nbytes

    def __getitem__(self, at: Any) -> TopKLogits:
        """Some of the positions; ``at`` indexes the leading dimensions."""
        return replace(self, values=self.values[at], indices=self.indices[at], rest=self.rest[at])

    def to(self, device: torch.device | str) -> TopKLogits:
        return replace(
            self,
            values=self.values.to(device),
            indices=self.indices.to(device),
            rest=self.rest.to(device),
        )

    def save(self, path: str | Path) -> None:
        """One safetensors file, written beside ``path`` and renamed."""
        facts = {"vocabulary": str(self.vocabulary), "temperature": repr(self.temperature)}
        tensors = {"values": self.values, "indices": self.indices, "rest": self.rest}
        save_tensors(Path(path), tensors, facts)

    @classmethod
    def load(cls, path: str | Path) -> TopKLogits:
        """What :meth:`save` wrote. Raises ValueError for a file that is something else."""
        try:
            with safe_open(path, framework="pt") as handle:
                facts = handle.metadata() or {}
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            return cls(
                **tensors,
                vocabulary=int(facts["vocabulary"]),
                temperature=float(facts["temperature"]),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} holds no top-k logits ({error}): store them with TopKLogits.save"
            ) from None


def top_k_logits(logits: Tensor, k: int, temperature: float = 2.0) -> TopKLogits:
    """Keep the ``k`` largest logits of each position and sum up the rest.

    Args:
        logits: (..., V) floating point; the teacher's.
        k: 1 to V.
        temperature: of the loss that they are meant for.

    Raises:
        ValueError: k outside 1 .. V, a temperature that is not positive. TypeError: no tensor.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.dim() == 0:
        raise TypeError("logits must be a floating-point tensor (..., V)")
    check_whole("k", k)
    if k > logits.shape[-1]:
        raise ValueError(f"k={k} exceeds the vocabulary of {logits.shape[-1]}: take at most that")
    check_positive("temperature", temperature)
    values, indices = logits.detach().topk(k, dim=-1)
    rest = _rest(logits.detach(), indices, temperature)
    return TopKLogits(values, indices.int(), rest, logits.shape[-1], float(temperature))


def top_k_loss(
    student_logits: Tensor,
    teacher: TopKLogits,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    mask: Tensor | None = None,
) -> Tensor:
    """`distillation_loss` between the two distributions over k tokens and the rest bucket.

    student_logits: (..., V), the positions of ``teacher``. The temperature is the teacher's, and
    its square the factor. Raises as `distillation_loss`, and ValueError where the vocabulary or the
    positions differ.
    """
    if student_logits.shape[-1] != teacher.vocabulary:
        raise ValueError(
            f"student_logits has a vocabulary of {student_logits.shape[-1]}, the teacher's logits "
            f"were kept from one of {teacher.vocabulary}: both models must share it"
        )
    if student_logits.shape[:-1] != teacher.rest.shape:
        raise ValueError(
            f"student_logits has positions {tuple(student_logits.shape[:-1])}, the teacher's "
            f"stored logits {tuple(teacher.rest.shape)}: give the student the same rows"
        )
    temperature = teacher.temperature
    ours = bucket_logits(student_logits, teacher.indices.long(), temperature)  # (..., k + 1)
    kept = teacher.values.to(ours.dtype) / temperature
    theirs = torch.cat((kept, teacher.rest.to(ours.dtype)[..., None]), -1)
    # The buckets are logits at temperature 1: softmax over them gives the buckets' masses.
    loss = distillation_loss(ours, theirs, 1.0, divergence, beta, mask)
    return (loss * temperature**2).to(student_logits.dtype)


def bucket_logits(logits: Tensor, indices: Tensor, temperature: float) -> Tensor:
    """Logits of k chosen tokens and of the rest as one: (..., V), (..., k) -> (..., k + 1).

    Already divided by the temperature, at least float32: their softmax is the mass of each bucket.
    Differentiable in the logits, with one tensor of their size, the gradient.
    """
    buckets: Tensor = _BucketLogits.apply(logits, indices, temperature)  # type: ignore[no-untyped-call]
    return buckets


class _BucketLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, indices: Tensor, temperature: float) -> Tensor:
        rest = _rest(logits, indices, temperature)
        ctx.save_for_backward(logits, indices, rest)
        ctx.temperature = temperature
        kept = logits.gather(-1, indices).to(rest.dtype) / temperature
        return torch.cat((kept, rest[..., None]), -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        """A kept token's logit moves its own bucket, any other the rest, by its share of it."""
        logits, indices, rest = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        scaled = upstream / ctx.temperature
        for at in _chunks(logits):
            to_rest, to_kept = scaled[at][..., -1:], scaled[at][..., :-1]
            share = logits[at].to(rest.dtype).div_(ctx.temperature).sub_(rest[at][..., None]).exp_()
            # Padding has no upstream gradient, but may hold NaN, which times 0 stays NaN.
            share = share.mul_(to_rest).masked_fill_(to_rest == 0, 0.0)
            gradient[at] = share.scatter_(-1, indices[at], to_kept).to(gradient.dtype)
        return gradient, None, None


def _rest(logits: Tensor, indices: Tensor, temperature: float) -> Tensor:
    """Log-sum-exp of the logits over the temperature, without those at ``indices``: (...,), at
    least float32."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    rest = logits.new_empty(logits.shape[:-1], dtype=dtype)
    for at in _chunks(logits):
        scaled = logits[at].to(dtype).div_(temperature)
        rest[at] = scaled.scatter_(-1, indices[at], float("-inf")).logsumexp(-1)
    return rest


def _chunks(logits: Tensor) -> list[tuple[Tensor, ...]]:
    positions = counted_positions(logits.shape[:-1], None, logits.device)
    rows = max(1, losses.CHUNK_ELEMENTS // logits.shape[-1])
    return [chunk.unbind(-1) for chunk in positions.split(rows)]
