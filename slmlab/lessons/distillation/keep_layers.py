"""distillation.keep_layers: the layers that a student takes over, by what each is worth."""

from __future__ import annotations

import random

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.distill import evenly_spaced_layers


def cases(seed: int) -> list[Case]:
    """Three layers, two stay; one stays; one cut helps; more layers, twice."""
    draw = random.Random(seed)

    def case(count: int, keep: int, helps: bool = False) -> Case:
        """helps: leaving one layer out lowers the loss, by more than others raise it."""
        while True:
            steps = draw.sample(range(1, 60), count)
            if helps:
                steps[draw.randrange(1, count)] = -max(steps) // 2
            increase = [step / 20 for step in steps]
            wanted = reference(increase, keep)
            plain = (_by_size(increase, keep), evenly_spaced_layers(count, keep))
            if len(set(map(abs, steps))) == count and _informative(wanted, plain, helps):
                return Case({"increase": increase, "keep": keep})

    def _informative(wanted: list[int], plain: tuple[list[int], list[int]], helps: bool) -> bool:
        """Neither evenly spaced, nor by size alone where a cut helps, nor the first ones."""
        by_size, even = plain
        return wanted != even and wanted != by_size and (wanted != sorted(by_size)) == helps

    def first() -> Case:
        while True:
            found = [step / 20 for step in draw.sample(range(1, 60), 3)]
            if reference(found, 2) != evenly_spaced_layers(3, 2):
                return Case({"increase": found, "keep": 2})

    return [
        first(),
        case(5, 2),
        case(5, 3, helps=True),
        case(6, 3),
        case(8, 5),
        case(12, 6, helps=True),
    ]


def reference(increase: list[float], keep: int) -> list[int]:
    """As the package ranks them: the largest increases stay, in the order of depth."""
    ranked = sorted(range(len(increase)), key=lambda layer: -increase[layer])
    return sorted(ranked[:keep])


def _by_size(increase: list[float], keep: int) -> list[int]:
    """Most important first, a gain taken for importance."""
    return sorted(range(len(increase)), key=lambda layer: -abs(increase[layer]))[:keep]


def _ranked(increase: list[float], most_first: bool = True) -> list[int]:
    order = sorted(range(len(increase)), key=lambda layer: increase[layer])
    return order[::-1] if most_first else order


def _least_important(increase: list[float], keep: int) -> list[int]:
    return sorted(_ranked(increase, most_first=False)[:keep])


def _removed_ones(increase: list[float], keep: int) -> list[int]:
    return sorted(_ranked(increase, most_first=False)[: len(increase) - keep])


def _in_order_of_worth(increase: list[float], keep: int) -> list[int]:
    return _ranked(increase)[:keep]


def _in_reverse_order_of_worth(increase: list[float], keep: int) -> list[int]:
    return _ranked(increase)[:keep][::-1]


def _counted_from_one(increase: list[float], keep: int) -> list[int]:
    return [layer + 1 for layer in reference(increase, keep)]


def _as_many_cut(increase: list[float], keep: int) -> list[int]:
    return reference(increase, len(increase) - keep)


def _absolute(increase: list[float], keep: int) -> list[int]:
    return sorted(_by_size(increase, keep))


def _evenly(increase: list[float], keep: int) -> list[int]:
    return evenly_spaced_layers(len(increase), keep)


def _ends_and_between(increase: list[float], keep: int) -> list[int]:
    last = len(increase) - 1
    return [round(place * last / max(1, keep - 1)) for place in range(keep)]


def _cut_one_at_a_time(increase: list[float], keep: int) -> list[int]:
    left = dict(enumerate(increase))
    while len(left) > keep:
        del left[min(left, key=lambda layer: left[layer])]
    return list(left)


KEEP_LAYERS = Exercise(
    id="distillation.keep_layers",
    title="Depth pruning: which layers stay",
    points=2,
    minutes=5,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the least important kept",
            "You keep the layers that the model misses least, or name those that go: a large increase "
            "says that the text needs this layer. Which ones may leave?",
            _least_important,
            (_removed_ones,),
        ),
        Mistake(
            "in order of worth",
            "The right layers in the wrong order: your list is sorted by importance. In which order "
            "does a hidden state go through them?",
            _in_order_of_worth,
            (_in_reverse_order_of_worth,),
        ),
        Mistake(
            "counted from 1",
            "Each number is one too large: layers are counted from 0, as model.layers is. What would "
            "become of the last one?",
            _counted_from_one,
        ),
        Mistake(
            "keep taken for the cut",
            "You remove as many layers as should stay: keep is the number of layers of the student. "
            "How many does your list name?",
            _as_many_cut,
        ),
        Mistake(
            "a gain taken for importance",
            "You rank by size and lose the sign: below 0 the model is better without that layer. "
            "Which layer goes first?",
            _absolute,
        ),
        Mistake(
            "evenly spaced",
            "You space the layers evenly, which needs no measurement: here there is one. What does "
            "increase say about the layers that you cut?",
            _evenly,
            (_ends_and_between,),
        ),
    ),
    hints=(
        "Every layer that stays has a larger increase than every layer that goes, and the list is "
        "ascending. Which of the two breaks?",
        "increase [2.0, 0.1, 0.7], keep 2. Leaving out layer 1 costs least, so it goes. Layers 0 and "
        "2 stay: [0, 2].",
        "order = layer numbers sorted by increase, largest first\n"
        "return the first keep of them, sorted ascending",
    ),
    compare=Exact(),
    alternatives=(_cut_one_at_a_time,),
)
