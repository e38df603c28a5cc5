"""example_pack.running_mean: the mean of all values so far."""

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake


def cases(seed: int) -> list[Case]:
    """Two values, three with a negative one, a longer row. The same seed gives the same cases."""
    random = torch.Generator().manual_seed(seed)
    first = torch.rand(2, generator=random) + torch.tensor([1.0, 3.0])
    second = torch.rand(3, generator=random) * torch.tensor([-2.0, 5.0, 9.0])
    return [Case({"values": values}) for values in (first, second, torch.rand(8, generator=random))]


def reference(values: Tensor) -> Tensor:
    """(n,) -> (n,): the right answer."""
    return values.cumsum(0) / torch.arange(1, len(values) + 1)


def _whole_length(values: Tensor) -> Tensor:
    return values.cumsum(0) / len(values)


def _without_newest(values: Tensor) -> Tensor:
    means = reference(values)
    return torch.cat((torch.zeros(1), means[:-1]))


def _sum(values: Tensor) -> Tensor:
    return values.cumsum(0)


def _in_a_loop(values: Tensor) -> Tensor:
    return torch.stack([values[: end + 1].mean() for end in range(len(values))])


RUNNING_MEAN = Exercise(
    id="example_pack.running_mean",
    title="The mean so far",
    points=2,
    minutes=5,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "divided by the whole length",
            "Only your last mean is right: each one is divided by the length of the row. How many "
            "values has place 0 seen?",
            _whole_length,
        ),
        Mistake(
            "newest value left out",
            "Each of your means is one place late: it leaves out the value at its own place. What "
            "is the mean at place 0?",
            _without_newest,
        ),
        Mistake(
            "sum instead of mean",
            "Your values grow with the length of the row: they are sums. What turns a sum of k "
            "values into their mean?",
            _sum,
        ),
    ),
    hints=(
        "The mean at place k is the sum of k + 1 values, divided by k + 1. Check place 0 first.",
        "[2, 4, 9]: sums 2, 6, 15, counts 1, 2, 3, means 2, 3, 5.",
        "return cumulative sums / (1, 2, ..., n)",
    ),
    compare=Close(rtol=1e-5, atol=1e-6),
    alternatives=(_in_a_loop,),
)
