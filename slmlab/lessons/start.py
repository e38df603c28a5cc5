"""The exercise of lesson 00: softmax with temperature, and how a check answers."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.generation import next_token_probabilities


def cases(seed: int) -> list[Case]:
    """Two logits at temperature 1, at another temperature, large ones, then matrices."""
    random = torch.Generator().manual_seed(seed)
    # One decimal reads well; the gap keeps the two probabilities apart.
    low = torch.rand(1, generator=random).round(decimals=1).item()
    gap = 0.5 + torch.rand(1, generator=random).round(decimals=1).item()
    pair = torch.tensor([[low, low + gap]])
    temperature = (0.5, 2.0, 4.0)[int(torch.randint(3, (1,), generator=random))]
    high = 1001.0 + float(torch.randint(3, (1,), generator=random))
    square = torch.tensor([[low + 1.0, low], [low, low + gap]])
    wide = torch.randn(3, 7, generator=random) * 3
    return [
        Case({"logits": pair, "temperature": 1.0}),
        Case({"logits": pair, "temperature": temperature}),
        Case({"logits": torch.tensor([[1000.0, high]]), "temperature": 1.0}),
        Case({"logits": torch.tensor([[1000.0, high]]), "temperature": temperature}),
        # After subtracting 1000 from both rows, all of the second one underflows.
        Case({"logits": torch.tensor([[1000.0, 0.0], [0.0, low + gap]]), "temperature": 1.0}),
        Case({"logits": square, "temperature": temperature}),
        Case({"logits": wide, "temperature": 0.7}),
        Case({"logits": wide * 100.0, "temperature": 1.5}),
    ]


def _exponentials(logits: Tensor) -> Tensor:
    return (logits - logits.amax(dim=-1, keepdim=True)).exp()


def _without_maximum(logits: Tensor, temperature: float) -> Tensor:
    exponentials = (logits / temperature).exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def _divided_afterwards(logits: Tensor, temperature: float) -> Tensor:
    scaled = _exponentials(logits) / temperature
    return scaled / scaled.sum(dim=-1, keepdim=True)


def _multiplied(logits: Tensor, temperature: float) -> Tensor:
    return (logits * temperature).softmax(dim=-1)


def _over_rows(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(dim=0)


def _one_maximum(logits: Tensor, temperature: float) -> Tensor:
    scaled = logits / temperature
    exponentials = (scaled - scaled.max()).exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def _undivided_maximum(logits: Tensor, temperature: float) -> Tensor:
    exponentials = (logits / temperature - logits.amax(dim=-1, keepdim=True)).exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def _by_torch(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits / temperature, dim=-1)


def _by_logsumexp(logits: Tensor, temperature: float) -> Tensor:
    scaled = logits / temperature
    return (scaled - scaled.logsumexp(dim=-1, keepdim=True)).exp()


SOFTMAX = Exercise(
    id="start.softmax",
    title="Softmax with temperature",
    points=2,
    minutes=5,
    difficulty=1,
    cases=cases,
    reference=next_token_probabilities,
    mistakes=(
        Mistake(
            "maximum not subtracted",
            "Small logits are right, large ones give NaN: exp(1000) is infinite in floating point, "
            "and infinity over infinity is not a number. What can you subtract from a whole row "
            "without changing its softmax?",
            _without_maximum,
        ),
        Mistake(
            "one maximum for the whole tensor",
            "A row far below the largest logit gives NaN: you subtract one maximum from all rows, "
            "every exponential of a low row becomes 0, and 0/0 is not a number. Over which axis do "
            "you take the maximum?",
            _one_maximum,
        ),
        Mistake(
            "maximum of the undivided logits",
            "Right at temperature 1, NaN for large logits at another: you divide the logits by the "
            "temperature and subtract the maximum of the undivided ones. What is the largest "
            "exponent that is left?",
            _undivided_maximum,
        ),
        Mistake(
            "temperature after the exponential",
            "The temperature has no effect: a factor that stands behind the exponential cancels "
            "when you normalise. At which step does dividing change the ratio of two probabilities?",
            _divided_afterwards,
        ),
        Mistake(
            "temperature multiplied",
            "The temperature works the wrong way round: a higher one must make the probabilities "
            "more equal, and yours makes the largest larger. Multiply or divide?",
            _multiplied,
        ),
        Mistake(
            "normalised over the wrong axis",
            "Your columns sum to 1 and your rows do not: each row is one distribution over the "
            "vocabulary. Which axis holds the vocabulary?",
            _over_rows,
        ),
    ),
    hints=(
        "Every row sums to 1, and adding the same number to all logits of a row changes nothing. "
        "Which step of yours would notice a logit of 1000?",
        "Row [2.0, 0.0, -2.0] at temperature 2.0: divided [1, 0, -1]; minus the largest "
        "[0, -1, -2]; exponentials [1.0, 0.3679, 0.1353], their sum 1.5032; "
        "answer [0.6652, 0.2447, 0.0900].",
        "scaled = logits / temperature\n"
        "shifted = scaled - largest of each row (keep the axis)\n"
        "exponentials = exp(shifted)\n"
        "return exponentials / sum of each row (keep the axis)",
    ),
    compare=Close(rtol=1e-4, atol=1e-6),
    alternatives=(_by_torch, _by_logsumexp),
)

EXERCISES: tuple[Exercise, ...] = (SOFTMAX,)
