"""distillation.two_modes: forward KL covers both modes of a teacher, reverse KL settles on one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.distill.losses import forward_kl, jensen_shannon, reverse_kl

CLEAR = 1.1  # the best student is ahead of the second by this factor


def cases(seed: int) -> list[Case]:
    """Two students and three tokens; then more of both, where other measures choose another one."""
    draw = random.Random(seed)

    def case(
        places: int, students: int, unlike: tuple[Pair, ...] = (), apart: bool = False
    ) -> Case:
        """unlike: wrong answers that must not be right here. apart: the distances and the mixtures
        must not agree either."""
        pool = _pool(places)
        for _ in range(2_000):
            teacher = _two_bumps(draw, places)
            of_all = {measure: measure(teacher, pool).tolist() for measure in MEASURES}
            for _ in range(20):
                chosen = draw.sample(range(len(pool)), students)
                values = {m: [of_all[m][at] for at in chosen] for m in MEASURES}
                best = {m: numbers.index(min(numbers)) for m, numbers in values.items()}

                if best[_forward] == best[_reverse]:
                    continue
                if not all(_clear(values[m]) for m in (_forward, _reverse)):
                    continue
                wanted = (best[_forward], best[_reverse])
                if any((best[first], best[second]) == wanted for first, second in unlike):
                    continue
                mixed = (best[_middle], best[_both_ways])
                if not apart or not {best[_distance], best[_overlap]}.intersection(mixed):
                    return Case({"teacher": teacher, "students": pool[chosen]})
        raise RuntimeError(f"seed {seed}: no two-mode teacher with {students} students found")

    return [
        case(3, 2),
        case(5, 3),
        case(5, 4, (SQUARED,)),
        case(6, 4, (NO_ENTROPY,)),
        case(8, 5, (BETWEEN, SUMMED)),
        case(8, 6, (SQUARED, NO_ENTROPY)),
        case(8, 6, apart=True),
    ]


def _hundredths(weights: list[float]) -> Tensor:
    """A distribution in steps of 0.01, no entry 0."""
    counts = [max(1, math.floor(100 * weight / sum(weights))) for weight in weights]
    counts[counts.index(max(counts))] += 100 - sum(counts)
    return torch.tensor(counts, dtype=torch.float32) / 100


def _two_bumps(draw: random.Random, places: int) -> Tensor:
    """Nearly all of it at two tokens that are no neighbours."""
    low, high = sorted(draw.sample(range(places), 2))
    while high - low < 2:
        low, high = sorted(draw.sample(range(places), 2))
    weights = [0.02] * places
    weights[low] = draw.uniform(0.3, 0.6)
    weights[high] = 0.9 - weights[low]
    return _hundredths(weights)


def _pool(places: int) -> Tensor:
    """Students of one bump each, narrow and wide, in many places."""
    return torch.stack(
        [
            _hundredths([math.exp(-(((at - half / 2) / width) ** 2) / 2) for at in range(places)])
            for half in range(2 * places - 1)
            for width in (0.4, 0.6, 1.0, 2.0, 4.0)
        ]
    )


def _clear(values: list[float]) -> bool:
    """Whether the least is ahead of every other."""
    first, second = sorted(values)[:2]
    return second > CLEAR * first


Measure = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Measure, Measure]
Answer = Callable[[Tensor, Tensor], list[int]]


def _forward(teacher: Tensor, students: Tensor) -> Tensor:
    return forward_kl(teacher.log().expand_as(students), students.log())


def _reverse(teacher: Tensor, students: Tensor) -> Tensor:
    return reverse_kl(teacher.log().expand_as(students), students.log())


def _least(first: Measure, second: Measure) -> Answer:
    """The best student under each of two measures."""

    def answer(teacher: Tensor, students: Tensor) -> list[int]:
        return [int(measure(teacher, students).argmin()) for measure in (first, second)]

    return answer


def reference(teacher: Tensor, students: Tensor) -> list[int]:
    """By the package's divergences."""
    return _least(_forward, _reverse)(teacher, students)


def _distance(teacher: Tensor, students: Tensor) -> Tensor:
    return (students - teacher).square().sum(-1)


def _overlap(teacher: Tensor, students: Tensor) -> Tensor:
    return (students - teacher).abs().sum(-1)


def _price(teacher: Tensor, students: Tensor) -> Tensor:
    """The cross-entropy of the student's samples under the teacher."""
    return -(students * teacher.log()).sum(-1)


def _middle(teacher: Tensor, students: Tensor) -> Tensor:
    return jensen_shannon(teacher.log().expand_as(students), students.log(), 0.5)


def _both_ways(teacher: Tensor, students: Tensor) -> Tensor:
    return _forward(teacher, students) + _reverse(teacher, students)


MEASURES: tuple[Measure, ...] = (
    _forward,
    _reverse,
    _distance,
    _overlap,
    _price,
    _middle,
    _both_ways,
)
SQUARED, ABSOLUTE = (_distance, _distance), (_overlap, _overlap)
NO_ENTROPY = (_forward, _price)
BETWEEN, SUMMED = (_middle, _middle), (_both_ways, _both_ways)


def _largest(teacher: Tensor, students: Tensor) -> list[int]:
    return [int(m(teacher, students).argmax()) for m in (_forward, _reverse)]


def _by_likelihood(teacher: Tensor, students: Tensor) -> list[int]:
    """For forward KL the teacher's entropy is the same for all: likelihood alone decides."""
    rows = students.tolist()
    p = teacher.tolist()
    likelihood = [sum(a * math.log(b) for a, b in zip(p, row, strict=True)) for row in rows]
    surplus = [sum(b * math.log(b / a) for a, b in zip(p, row, strict=True)) for row in rows]
    return [likelihood.index(max(likelihood)), surplus.index(min(surplus))]


TWO_MODES = Exercise(
    id="distillation.two_modes",
    title="Cover both modes or settle on one",
    points=3,
    minutes=8,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the two directions swapped",
            "The right two, in the wrong order: forward KL is weighed by the teacher. Which of them "
            "punishes a student for missing something that the teacher does?",
            _least(_reverse, _forward),
        ),
        Mistake(
            "one direction for both",
            "Both entries come from one and the same direction: here the two choose different "
            "students. What changes when the other side weighs the logarithms?",
            _least(_forward, _forward),
            (_least(_reverse, _reverse),),
        ),
        Mistake(
            "distance between probabilities",
            "You compare by squared or absolute differences: a KL compares logarithms, so a missing "
            "token at 0.01 instead of 0.3 costs far more. Where is the log in yours?",
            _least(*SQUARED),
            (_least(*ABSOLUTE),),
        ),
        Mistake(
            "the student's own logarithm missing",
            "The forward entry is right; in the reverse one only log p is left. The students' "
            "entropies differ, so they do not cancel: what does a narrow student pay for being sure?",
            _least(*NO_ENTROPY),
        ),
        Mistake(
            "a mixture of both directions",
            "Both entries come from a symmetric measure, the JSD or the sum of both directions: it "
            "takes neither side. What does each direction alone choose?",
            _least(*BETWEEN),
            (_least(*SUMMED),),
        ),
        Mistake(
            "the largest",
            "You name the students that are farthest away: a divergence is 0 where the two agree. Is "
            "it argmax or argmin?",
            _largest,
        ),
    ),
    hints=(
        "The forward winner has no small number where the teacher has a large one; the reverse winner "
        "has no large number where the teacher has a small one.",
        "Teacher [0.55, 0.02, 0.43]. Students [0.4, 0.3, 0.3] and [0.90, 0.05, 0.05]. Forward: 0.55 "
        "log(0.55 / 0.4) + ... = 0.28 and 0.64. Reverse: 0.4 log(0.4 / 0.55) + ... = 0.58 and 0.38. "
        "So [0, 1].",
        "forward = sum over tokens of teacher * log(teacher / students)\n"
        "reverse = sum over tokens of students * log(students / teacher)\n"
        "return [argmin of forward, argmin of reverse] as ints",
    ),
    compare=Exact(),
    alternatives=(_by_likelihood,),
)
