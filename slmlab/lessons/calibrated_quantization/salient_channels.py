"""calibration.salient_channels: the input channels that are worth 16 bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.quant.calibration import LayerStatistics


def cases(seed: int) -> list[Case]:
    """Two channels that only one rule tells apart, each in turn; then random matrices."""
    random = torch.Generator().manual_seed(seed)

    def case(x: Tensor, w: Tensor, share: float) -> Case:
        # A learner meets the loud channel at any place.
        order = torch.randperm(x.shape[1], generator=random)
        return Case({"x": x[:, order], "w": w[:, order], "share": share})

    size = torch.randint(3, 9, (1,), generator=random).item()
    loud = torch.tensor([[float(size), 1.0]])
    swings = torch.tensor([[size + 0.5, 1.0], [-float(size), 1.0]])
    steady = size + 4.0

    def spike(height: float) -> Tensor:
        """(3, 2): a channel that speaks once, beside a steady one with the larger mean."""
        return torch.tensor([[0.0, 1.0], [height, 1.0], [0.0, 1.0]]) * steady

    quiet_weights = torch.tensor([[0.1, 2.0]])
    found = [
        case(loud, quiet_weights, 0.5),
        case(swings, torch.ones(1, 2), 0.5),
        # Squared, the first spike beats the steady channel; only its maximum does in the second.
        case(spike(2.25), torch.ones(1, 2), 0.5),
        case(spike(1.5), torch.ones(1, 2), 0.5),
        case(torch.tensor([[float(size), 1.0, 2.0]]), torch.ones(1, 3), 0.25),
        case(torch.tensor([[1.0, float(size), 2.0]]), torch.ones(1, 3), 0.5),
    ]
    for tokens, channels, share in ((6, 6, 0.3), (5, 40, 0.06)):
        spread = torch.rand(channels, generator=random) * 3 + 0.1
        x = torch.randn(tokens, channels, generator=random) * spread
        # No mean is negative: so a mean without abs and the abs of a mean are one mistake.
        x = x * torch.where(x.mean(dim=0) < 0, -1.0, 1.0)
        found.append(case(x, torch.randn(4, channels, generator=random), share))
    return found


def _mask(scores: Tensor, share: float, count: int | None = None) -> Tensor:
    count = math.ceil(share * len(scores)) if count is None else count
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[scores.topk(min(count, len(scores))).indices] = True
    return mask


def reference(x: Tensor, w: Tensor, share: float) -> Tensor:
    """The largest mean magnitudes, as the package's calibration pass collects them."""
    statistics = LayerStatistics.empty(x.shape[1])
    statistics.add(x)
    return _mask(statistics.mean_magnitude, share)


def _by_weight(x: Tensor, w: Tensor, share: float) -> Tensor:
    return _mask(w.abs().mean(dim=0), share)


def _over_tokens(x: Tensor, w: Tensor, share: float) -> Tensor:
    return _mask(x.abs().mean(dim=1), share)


def _signed(x: Tensor, w: Tensor, share: float) -> Tensor:
    return _mask(x.mean(dim=0), share)


def _by_squares(x: Tensor, w: Tensor, share: float) -> Tensor:
    return _mask(x.square().mean(dim=0), share)


def _by_largest(x: Tensor, w: Tensor, share: float) -> Tensor:
    return _mask(x.abs().amax(dim=0), share)


def _rounded_down(x: Tensor, w: Tensor, share: float) -> Tensor:
    return _mask(x.abs().mean(dim=0), share, int(share * x.shape[1]))


def _channel_by_channel(x: Tensor, w: Tensor, share: float) -> Tensor:
    magnitudes = [float(x[:, channel].abs().sum()) for channel in range(x.shape[1])]
    ranked = sorted(range(len(magnitudes)), key=magnitudes.__getitem__, reverse=True)
    chosen = set(ranked[: math.ceil(share * len(ranked))])
    return torch.tensor([channel in chosen for channel in range(len(ranked))])


SALIENT_CHANNELS = Exercise(
    id="calibration.salient_channels",
    title="The channels that are worth 16 bits",
    points=2,
    minutes=6,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "by weight magnitude",
            "You rank channels by their weights. A large weight on an input that is always small "
            "does little harm when it is rounded. Which of the two matrices says how hard a "
            "channel is driven?",
            _by_weight,
        ),
        Mistake(
            "mean over channels",
            "You rank tokens, not channels: the mean runs over the wrong axis of x. A weight "
            "column meets one channel of every token. Which axis is left after the mean?",
            _over_tokens,
        ),
        Mistake(
            "sign kept",
            "Positive and negative inputs cancel in your mean: a channel that swings between "
            "large values of both signs looks quiet. What has to happen before the mean?",
            _signed,
        ),
        Mistake(
            "largest instead of mean",
            "One spike decides: you rank by the largest magnitude, so a channel that is loud once "
            "beats one that is loud always. What does the average token see?",
            _by_largest,
        ),
        Mistake(
            "mean of squares",
            "You average squares, in which a spike counts twice: a channel that is loud once "
            "beats one that is always a little loud. Which mean does the statement rank by?",
            _by_squares,
        ),
        Mistake(
            "rounded down",
            "Where the share is not a whole number of channels you keep one too few, and none at "
            "all in a narrow matrix. Which way does the statement round?",
            _rounded_down,
        ),
    ),
    hints=(
        "An error d in a weight moves the output by d times the input. So no channel that you "
        "leave in few bits may have a larger mean |input| than one that you keep. Does w enter "
        "that sentence?",
        "Three channels, two tokens: x = [[3, 1, 0], [-3, 2, 0]], share 0.4. Mean magnitudes "
        "[3.0, 1.5, 0.0]; 0.4 of 3 is 1.2, rounded up 2: [True, True, False].",
        "importance = mean over tokens of |x|\n"
        "count = share * channels, rounded up\n"
        "mask = all False; mask[indices of the count largest] = True",
    ),
    compare=Exact(),
    alternatives=(_channel_by_channel,),
)
