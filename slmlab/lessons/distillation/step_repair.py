"""distillation.step_repair: a training step whose teacher is shifted like the labels."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.distill import distillation_loss
from slmlab.lessons.distillation.draws import logits

IGNORED = -100


def cases(seed: int) -> list[Case]:
    """Two tokens, the teacher alone; the labels alone; both; padding; a prompt that does not count."""
    draw = random.Random(seed)

    def case(
        rows: int, time: int, size: int, alpha: float, temperature: float, ignored: str = ""
    ) -> Case:
        student, teacher = (logits(draw, rows * time, size).view(rows, time, size) for _ in "st")
        labels = torch.tensor([[draw.randrange(size) for _ in range(time)] for _ in range(rows)])
        if "padding" in ignored:
            labels[0, -2:] = IGNORED
        if "prompt" in ignored:
            labels[-1, :2] = IGNORED
        arguments = (student, teacher, labels, alpha, temperature)
        return Case(dict(zip(NAMES, arguments, strict=True)))

    share = draw.choice((0.3, 0.7))
    return [
        case(1, 2, 2, 1.0, 1.0),
        case(1, 2, 2, 0.0, 2.0),
        case(1, 3, 3, 0.5, 1.0),
        case(2, 4, 3, share, 2.0),
        case(2, 5, 4, share, 1.5, "padding"),
        case(2, 6, 4, 1.0, 2.0, "padding, prompt"),
    ]


NAMES = ("student_logits", "teacher_logits", "labels", "alpha", "temperature")
Answer = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


def reference(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """The package's loss beside torch's cross-entropy, over the positions with a label."""
    student, targets = student_logits[:, :-1], labels[:, 1:]
    soft = distillation_loss(student, teacher_logits[:, :-1], temperature, mask=targets != IGNORED)
    hard = functional.cross_entropy(student.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    return alpha * soft + (1 - alpha) * hard


def _step(
    teacher_rows: slice = slice(None, -1),
    target_rows: slice = slice(1, None),
    student_rows: slice = slice(None, -1),
    hard_factor: Callable[[float], float] = lambda t: 1.0,
    hard_softened: bool = False,
    soft_masked: bool = True,
    weights: Callable[[float], tuple[float, float]] = lambda alpha: (alpha, 1 - alpha),
) -> Answer:
    """The step of exchangeable parts."""

    def answer(
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        alpha: float,
        temperature: float,
    ) -> Tensor:
        student, teacher = student_logits[:, student_rows], teacher_logits[:, teacher_rows]
        targets = labels[:, target_rows]
        counts = targets != IGNORED
        log_q, log_p = ((z / temperature).log_softmax(-1) for z in (student, teacher))
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        soft = (kl[counts] if soft_masked else kl).mean() * temperature**2
        judged = (student / temperature if hard_softened else student)[counts]
        hard = functional.cross_entropy(judged, targets[counts]) * hard_factor(temperature)
        on_soft, on_hard = weights(alpha)
        return on_soft * soft + on_hard * hard

    return answer


def _by_hand(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    total, count = torch.tensor(0.0), 0
    for z, guide, ids in zip(student_logits, teacher_logits, labels.tolist(), strict=True):
        for at, token in enumerate(ids[1:]):
            if token == IGNORED:
                continue
            p = (guide[at] / temperature).softmax(-1)
            q = (z[at] / temperature).softmax(-1)
            kl = (p * (p / q).log()).sum()
            hard = -z[at].softmax(-1)[token].log()
            total = total + alpha * temperature**2 * kl + (1 - alpha) * hard
            count += 1
    return total / count


STEP_REPAIR = Exercise(
    id="distillation.step_repair",
    title="Repair this: a step whose student stays bad",
    points=4,
    minutes=12,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: the teacher is shifted like the labels, so the student is pulled "
            "to what the teacher thinks one token later. Which position of the teacher answers the "
            "same question as the student's?",
            _step(teacher_rows=slice(1, None)),
        ),
        Mistake(
            "T squared on the hard loss too",
            "You multiply both parts by T^2: at alpha = 0 the loss must not depend on T. Which of the "
            "two was divided by it?",
            _step(hard_factor=lambda t: t * t),
        ),
        Mistake(
            "hard loss at the temperature",
            "Your hard loss is taken of softened logits: the given code had that right. At which "
            "temperature will the student be used?",
            _step(hard_softened=True),
        ),
        Mistake(
            "alpha on the wrong side",
            "alpha weighs the labels in your answer: it is the share of the teacher. What must be "
            "left at alpha = 1?",
            _step(weights=lambda alpha: (1 - alpha, alpha)),
        ),
        Mistake(
            "labels not shifted",
            "Both models stand at the same position, and the label does not fit it: position t is "
            "asked for the token that it has just read. Which label belongs to it?",
            _step(target_rows=slice(None, -1)),
            (
                _step(slice(None), slice(None), slice(None)),
                _step(slice(1, None), slice(1, None), slice(1, None)),
            ),
        ),
        Mistake(
            "soft loss of padding",
            "Right where every token has a label: your soft loss also counts positions with -100. "
            "Which positions may the teacher speak at?",
            _step(soft_masked=False),
        ),
    ),
    hints=(
        "Give the same logits to both sides at alpha = 1: the loss must be 0. If it is not, the two "
        "sides are not compared at the same positions.",
        "Three tokens a b c. Position 0 of either model has read a and speaks about b; its label is "
        "b, number 1. Student 0 with teacher 0 with label 1; student 1 with teacher 1 with label 2; "
        "position 2 has no label.",
        "student = student_logits[:, :-1], teacher likewise, targets = labels[:, 1:]\n"
        "keep the positions where targets is not -100\n"
        "soft = T^2 * mean KL(teacher || student) at T; hard = cross-entropy at T = 1\n"
        "return alpha * soft + (1 - alpha) * hard",
    ),
    compare=Close(rtol=1e-4, atol=1e-5),
    alternatives=(_by_hand,),
)
