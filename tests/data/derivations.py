"""Every derivation of a grammar, by walking the tree of its choices."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction

from slmlab.data.grammar import Chooser

Text = tuple[str, str]


class ReplayChooser(Chooser):
    """Follows a path of choices, then takes the first option; remembers how many there were."""

    def __init__(self, path: list[int]) -> None:
        super().__init__(random.Random(0))
        self.path = list(path)
        self.counts: list[int] = []

    def index(self, count: int) -> int:
        super().index(count)
        depth = len(self.counts)
        self.counts.append(count)
        if depth == len(self.path):
            self.path.append(0)
        return self.path[depth]


def derivations(generate: Callable[[Chooser], Text]) -> Iterator[tuple[Text, Fraction, float]]:
    """(prompt and answer, exact probability, bits as the chooser counted them), one a leaf."""
    path: list[int] = []
    while True:
        chooser = ReplayChooser(path)
        text = generate(chooser)
        probability = Fraction(1)
        for count in chooser.counts:
            probability /= count
        yield text, probability, chooser.bits
        path = chooser.path
        while path and path[-1] == chooser.counts[len(path) - 1] - 1:
            path.pop()
        if not path:
            return
        path[-1] += 1
