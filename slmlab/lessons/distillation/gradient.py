"""distillation.gradient: the pull of the forward KL on each logit, written down by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slmlab.checking import Close, Exercise, Mistake
from slmlab.distill import distillation_loss
from slmlab.lessons.distillation.draws import loss_cases


def reference(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Of the package's loss, by its own backward pass."""
    return _differentiated(student_logits, teacher_logits, temperature, "forward_kl")


def _differentiated(student: Tensor, teacher: Tensor, temperature: float, name: str) -> Tensor:
    with torch.enable_grad():
        leaf = student.detach().clone().requires_grad_()
        loss = distillation_loss(leaf, teacher, temperature, name)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


Answer = Callable[[Tensor, Tensor, float], Tensor]


def _pull(
    factor: Callable[[float], float] = lambda t: t,
    softened: bool = True,
    share: Callable[[Tensor], int] = len,
) -> Answer:
    """factor(T) (q - p) over what ``share`` counts."""

    def answer(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        by = temperature if softened else 1.0
        q, p = (student_logits / by).softmax(-1), (teacher_logits / by).softmax(-1)
        return factor(temperature) * (q - p) / share(q)

    return answer


def _reverse(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    return _differentiated(student_logits, teacher_logits, temperature, "reverse_kl")


def _token_by_token(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    rows = []
    for z, guide in zip(student_logits / temperature, teacher_logits / temperature, strict=True):
        q, p = (z - z.logsumexp(-1)).exp(), (guide - guide.logsumexp(-1)).exp()
        # T^2 of the loss, 1 / T of d(z / T) / dz.
        rows.append(temperature**2 * (1 / temperature) * (q - p) / len(student_logits))
    return torch.stack(rows)


GRADIENT = Exercise(
    id="distillation.gradient",
    title="The pull on the student's logits",
    points=3,
    minutes=10,
    difficulty=2,
    cases=loss_cases,
    reference=reference,
    mistakes=(
        Mistake(
            "sign",
            "Right but for the sign: descent subtracts the gradient, so it must be positive where the "
            "student gives a token too much. Which of q and p comes first?",
            _pull(lambda t: -t),
        ),
        Mistake(
            "wrong power of T",
            "Right at T = 1 and off by a power of T elsewhere: the loss brings T^2, the derivative of "
            "z / T brings 1 / T. What is left of both?",
            _pull(lambda t: t * t),
            (_pull(lambda t: 1.0), _pull(lambda t: 1 / t), _pull(lambda t: 1 / t**2)),
        ),
        Mistake(
            "softmax without the temperature",
            "Right at T = 1 and not by a factor elsewhere: your q and p are those of temperature 1. "
            "At which distributions does the loss look?",
            _pull(softened=False),
            (_pull(lambda t: 1.0, softened=False),),
        ),
        Mistake(
            "not divided by the positions",
            "Too large by the number of positions: the loss is their mean. What is one position's "
            "share in it?",
            _pull(share=lambda q: 1),
        ),
        Mistake(
            "averaged over the vocabulary",
            "Too small by the size of the vocabulary: a KL sums over the tokens, and a sum has no "
            "divisor to hand down. Over which axis is the mean?",
            _pull(share=lambda q: q.numel()),
            (_pull(share=lambda q: q.shape[-1]),),
        ),
        Mistake(
            "the reverse KL's",
            "This is the gradient of KL(student || teacher): each token's pull is weighed by the "
            "student's own probability. What pulls on a token that the student has given up?",
            _reverse,
        ),
    ),
    hints=(
        "Every row sums to 0, vanishes where both sides are equal, and is positive where the student "
        "gives a token too much. Then compare with a difference: raise one logit by 0.001.",
        "One position, T = 2: student logits [0, 0, 0], teacher logits [4, 0, 0]. q = [0.333, 0.333, "
        "0.333], p = [0.787, 0.107, 0.107]. q - p = [-0.454, 0.227, 0.227]; times T^2 / T = 2: "
        "[-0.907, 0.454, 0.454].",
        "q = softmax(student_logits / T), p = softmax(teacher_logits / T)\n"
        "d KL / d(z / T) = q - p, row by row\n"
        "d(z / T) / dz = 1 / T; times T^2; over the number of positions",
    ),
    compare=Close(rtol=1e-4, atol=1e-6),
    alternatives=(_token_by_token,),
)
