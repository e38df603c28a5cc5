"""distillation.soft_targets: forward KL at a temperature, its square, and the axes of both sums."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from slmlab.checking import Close, Exercise, Mistake
from slmlab.distill import distillation_loss
from slmlab.lessons.distillation.draws import loss_cases


def reference(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """The package's."""
    return distillation_loss(student_logits, teacher_logits, temperature)


Answer = Callable[[Tensor, Tensor, float], Tensor]


def _loss(
    student_log: Callable[[Tensor, float], Tensor] = lambda z, t: (z / t).log_softmax(-1),
    teacher_log: Callable[[Tensor, float], Tensor] = lambda z, t: (z / t).log_softmax(-1),
    power: int = 2,
    reduce: Callable[[Tensor], Tensor] = lambda kl: kl.sum(-1).mean(),
) -> Answer:
    """The loss of four exchangeable parts."""

    def answer(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
        log_q = student_log(student_logits, temperature)
        log_p = teacher_log(teacher_logits, temperature)
        return reduce(log_p.exp() * (log_p - log_q)) * temperature**power

    return answer


def _swapped(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    return distillation_loss(teacher_logits, student_logits, temperature)


def _softmax_twice(z: Tensor, t: float) -> Tensor:
    return (z / t).softmax(-1).log_softmax(-1)


def _no_temperature(z: Tensor, t: float) -> Tensor:
    return z.log_softmax(-1)


def _cross_entropy_less_entropy(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """Position by position: what the student pays for the teacher's tokens, less what they cost."""
    total = student_logits.new_zeros(())
    for z, guide in zip(student_logits, teacher_logits, strict=True):
        p = (guide / temperature).softmax(-1)
        cross = (z / temperature).logsumexp(-1) - (p * z / temperature).sum()
        entropy = (guide / temperature).logsumexp(-1) - (p * guide / temperature).sum()
        total = total + temperature**2 * (cross - entropy)
    return total / len(student_logits)


SOFT_TARGETS = Exercise(
    id="distillation.soft_targets",
    title="Soft targets: forward KL at a temperature",
    points=3,
    minutes=8,
    difficulty=1,
    cases=loss_cases,
    reference=reference,
    mistakes=(
        Mistake(
            "swapped arguments",
            "This is the reverse KL, KL(student || teacher): the two sides are swapped. Whose "
            "probabilities weigh the logarithms if the student must cover all that the teacher does?",
            _swapped,
        ),
        Mistake(
            "T squared missing",
            "Right at T = 1 and off by a power of T elsewhere: the gradient of the bare KL shrinks as "
            "1 / T^2. Which factor keeps its size?",
            _loss(power=0),
            (_loss(power=1),),
        ),
        Mistake(
            "log of softmax of softmax",
            "One side went through softmax twice: probabilities lie between 0 and 1, and a softmax of "
            "them is nearly flat. What does log_softmax expect, logits or probabilities?",
            _loss(student_log=_softmax_twice),
            (
                _loss(student_log=_softmax_twice, teacher_log=_softmax_twice),
                _loss(teacher_log=_softmax_twice),
            ),
        ),
        Mistake(
            "averaged over the vocabulary",
            "Too small by the size of the vocabulary: you take the mean over every entry, as "
            'kl_div\'s reduction "mean" does. A KL is a sum over tokens; over what is the mean?',
            _loss(reduce=lambda kl: kl.mean()),
        ),
        Mistake(
            "mean over the wrong axis",
            "You sum over positions and average over tokens: the two axes are swapped. With twice the "
            "positions, should the loss double?",
            _loss(reduce=lambda kl: kl.sum(0).mean()),
            (_loss(reduce=lambda kl: kl.sum()),),
        ),
        Mistake(
            "temperature on one side only",
            "Right at T = 1: only one of the two distributions is softened. Equal logits must give 0 "
            "at every temperature; do yours?",
            _loss(student_log=_no_temperature),
            (_loss(teacher_log=_no_temperature),),
        ),
    ),
    hints=(
        "Equal logits give 0 at every T, each position counts the same, and at a large T the loss "
        "hardly depends on T. Which of the three breaks?",
        "One position, T = 2: student logits [0, 0, 0], teacher logits [4, 0, 0]. Teacher: softmax of "
        "[2, 0, 0] = [0.787, 0.107, 0.107], student a third each. 0.787 log(0.787 / 0.333) + 2 * "
        "0.107 log(0.107 / 0.333) = 0.433; times 4 = 1.73.",
        "log_p = log_softmax(teacher_logits / T) over the last axis; log_q likewise\n"
        "kl = sum over the last axis of exp(log_p) * (log_p - log_q)\n"
        "return T^2 * mean of kl over positions",
    ),
    compare=Close(rtol=1e-4, atol=1e-6),
    alternatives=(_cross_entropy_less_entropy,),
)
