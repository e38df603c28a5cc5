"""distillation.top_k: k logits of the teacher and one bucket for the mass of all others."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.distill import top_k_logits, top_k_loss
from slmlab.lessons.distillation.draws import logits


def cases(seed: int) -> list[Case]:
    """One of three tokens, two of four; a temperature above and below 1; several positions."""
    draw = random.Random(seed)

    def case(positions: int, size: int, k: int, temperature: float) -> Case:
        while True:
            # No two logits of a position are equal: its k largest are certain.
            steps = [draw.sample(range(-20, 21), size) for _ in range(positions)]
            teacher, student = torch.tensor(steps) / 10, logits(draw, positions, size)
            theirs, ours = (x.topk(k).indices.sort().values for x in (teacher, student))
            mass = (student / temperature).softmax(-1).gather(-1, teacher.topk(k).indices).sum(-1)
            far = (mass - (teacher / temperature).softmax(-1).topk(k).values.sum(-1)).abs()
            if bool((theirs != ours).any()) and float(far.min()) > 0.05:
                return Case(
                    {
                        "student_logits": student,
                        "teacher_logits": teacher,
                        "k": k,
                        "temperature": temperature,
                    }
                )

    return [
        case(1, 3, 1, 1.0),
        case(1, 4, 2, 1.0),
        case(1, 4, 2, 2.0),
        case(2, 5, 3, 0.5),
        case(3, 8, 3, draw.choice((1.5, 2.0, 3.0))),
        case(4, 10, 4, 2.0),
    ]


def reference(student_logits: Tensor, teacher_logits: Tensor, k: int, temperature: float) -> Tensor:
    """The package's, of logits that it stored."""
    return top_k_loss(student_logits, top_k_logits(teacher_logits, k, temperature))


Answer = Callable[[Tensor, Tensor, int, float], Tensor]


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1).mean()


def _with_rest(kept: Tensor, rest: Tensor) -> Tensor:
    return torch.cat((kept, rest[..., None]), -1)


def _softened(student: Tensor, teacher: Tensor, k: int, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Both distributions, and the ids that the teacher keeps."""
    return (student / t).softmax(-1), (teacher / t).softmax(-1), teacher.topk(k).indices


def _bucketed(student: Tensor, teacher: Tensor, k: int, t: float) -> Tensor:
    q, p, at = _softened(student, teacher, k, t)
    q, p = (x.gather(-1, at) for x in (q, p))
    return _kl(_with_rest(p, 1 - p.sum(-1)), _with_rest(q, 1 - q.sum(-1)))


def _renormalised(student: Tensor, teacher: Tensor, k: int, t: float) -> Tensor:
    kept, at = teacher.topk(k)
    return t * t * _kl((kept / t).softmax(-1), (student.gather(-1, at) / t).softmax(-1))


def _renormalised_teacher(student: Tensor, teacher: Tensor, k: int, t: float) -> Tensor:
    kept, at = teacher.topk(k)
    return t * t * _kl((kept / t).softmax(-1), (student / t).softmax(-1).gather(-1, at))


def _tail_dropped(student: Tensor, teacher: Tensor, k: int, t: float) -> Tensor:
    q, p, at = _softened(student, teacher, k, t)
    return t * t * _kl(p.gather(-1, at), q.gather(-1, at))


def _students_top_k(student: Tensor, teacher: Tensor, k: int, t: float) -> Tensor:
    q, p, _ = _softened(student, teacher, k, t)
    at = student.topk(k).indices
    q, p = (x.gather(-1, at) for x in (q, p))
    return t * t * _kl(_with_rest(p, 1 - p.sum(-1)), _with_rest(q, 1 - q.sum(-1)))


def _each_its_own(student: Tensor, teacher: Tensor, k: int, t: float) -> Tensor:
    q, p, _ = _softened(student, teacher, k, t)
    q, p = (x.topk(k).values for x in (q, p))
    return t * t * _kl(_with_rest(p, 1 - p.sum(-1)), _with_rest(q, 1 - q.sum(-1)))


def _rest_at_one(both: bool) -> Answer:
    """The rest is summed from the logits as they are, of the teacher alone or of both sides."""

    def answer(student: Tensor, teacher: Tensor, k: int, t: float) -> Tensor:
        at = teacher.topk(k).indices

        def buckets(z: Tensor, rest_temperature: float) -> Tensor:
            others = (z / rest_temperature).scatter(-1, at, float("-inf"))
            return _with_rest(z.gather(-1, at) / t, others.logsumexp(-1)).softmax(-1)

        return t * t * _kl(buckets(teacher, 1.0), buckets(student, 1.0 if both else t))

    return answer


def _named(rule: Answer) -> Answer:
    """The rule under the exercise's parameter names."""

    def answer(
        student_logits: Tensor, teacher_logits: Tensor, k: int, temperature: float
    ) -> Tensor:
        return rule(student_logits, teacher_logits, k, temperature)

    return answer


def _spread_evenly(student: Tensor, teacher: Tensor, k: int, t: float) -> Tensor:
    q, p, at = _softened(student, teacher, k, t)
    share = (1 - p.gather(-1, at).sum(-1, keepdim=True)) / (p.shape[-1] - k)
    return t * t * _kl(share.expand_as(p).scatter(-1, at, p.gather(-1, at)), q)


def _sorted_and_split(
    student_logits: Tensor, teacher_logits: Tensor, k: int, temperature: float
) -> Tensor:
    total = student_logits.new_zeros(())
    for ours, theirs in zip(student_logits, teacher_logits, strict=True):
        order = theirs.argsort(descending=True)
        log_q = torch.log_softmax(ours / temperature, -1)[order]
        log_p = torch.log_softmax(theirs / temperature, -1)[order]
        kept = (log_p[:k].exp() * (log_p[:k] - log_q[:k])).sum()
        rest_p, rest_q = log_p[k:].logsumexp(-1), log_q[k:].logsumexp(-1)
        total = total + kept + rest_p.exp() * (rest_p - rest_q)
    return total / len(student_logits) * temperature**2


TOP_K = Exercise(
    id="distillation.top_k",
    title="Top k and the rest",
    points=4,
    minutes=12,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "renormalised over k",
            "You scale the k probabilities up to sum 1: that teacher says that no other token exists, "
            "and the student learns it. Where does the mass of the others go?",
            _named(_renormalised),
            (_named(_renormalised_teacher),),
        ),
        Mistake(
            "the tail dropped",
            "You sum over the k tokens and stop: what is left does not sum to 1 and can fall below "
            "0. Which bucket is missing in the sum?",
            _named(_tail_dropped),
        ),
        Mistake(
            "the student's top k",
            "The tokens are chosen by the student's logits, or each side has its own: only the "
            "teacher's are on disk. Whose ids must both sides be read at?",
            _named(_students_top_k),
            (_named(_each_its_own),),
        ),
        Mistake(
            "rest without the temperature",
            "Right at T = 1: the rest is summed from logits that were not divided by T, beside kept "
            "ones that were. Do your k + 1 masses come from one softmax?",
            _named(_rest_at_one(both=True)),
            (_named(_rest_at_one(both=False)),),
        ),
        Mistake(
            "rest spread evenly",
            "You spread the teacher's rest evenly over the other tokens: it never said so, and the "
            "student is pulled towards noise. How many buckets are there to compare?",
            _named(_spread_evenly),
        ),
        Mistake(
            "T squared missing",
            "Right at T = 1 and off by T^2 elsewhere: merging tokens changes nothing about the "
            "gradient's 1 / T^2. Which factor is missing?",
            _named(_bucketed),
        ),
    ),
    hints=(
        "On both sides the k + 1 numbers sum to 1, and the loss lies between 0 and that over the "
        "whole vocabulary. Which of the two breaks?",
        "k = 1, T = 1. Teacher [0.7, 0.2, 0.1], student [0.5, 0.1, 0.4] as probabilities. Kept: token "
        "0. Buckets [0.7, 0.3] and [0.5, 0.5]. 0.7 log 1.4 + 0.3 log 0.6 = 0.082. All three tokens "
        "would give 0.236.",
        "p = softmax(teacher_logits / T), q = softmax(student_logits / T)\n"
        "ids = k largest of the teacher; p_k, q_k = p and q at ids\n"
        "append 1 - sum to each: k + 1 buckets\n"
        "return T^2 * mean over positions of sum p_k log(p_k / q_k)",
    ),
    compare=Close(rtol=1e-3, atol=1e-5),
    alternatives=(_sorted_and_split,),
)
