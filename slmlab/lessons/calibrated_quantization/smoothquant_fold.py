"""calibration.smoothquant_fold: one scale for all matrices that read the same norm."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.quant.smoothquant import smoothing_scales


def cases(seed: int) -> list[Case]:
    """One reader, two readers, another exponent, a dead channel, one that no reader uses."""
    random = torch.Generator().manual_seed(seed)

    def case(
        channels: int,
        outputs: tuple[int, ...],
        alpha: float,
        *,
        dead: bool = False,
        unused: bool = False,
    ) -> Case:
        def draw(*shape: int) -> Tensor:
            values = 0.2 + 1.8 * torch.rand(*shape, generator=random)
            signs = torch.randint(2, shape, generator=random) * 2 - 1
            return (values * signs).round(decimals=1)

        x_max = draw(channels).abs() + 0.5
        x_max[torch.randint(channels, (1,), generator=random)] *= 8
        if dead:
            x_max[0] = 0.0
        weights = [draw(rows, channels) for rows in outputs]
        if unused:
            for weight in weights:
                weight[:, -1] = 0.0
        return Case(
            {
                "gain": draw(channels).abs(),
                "weights": weights,
                "x_max": x_max,
                "alpha": alpha,
            }
        )

    return [
        case(2, (2,), 0.5),
        case(2, (2, 2), 0.5),
        case(2, (2, 2), 0.75),
        case(2, (2,), 0.5, dead=True),
        case(2, (2,), 0.5, unused=True),
        case(4, (4, 6, 2), 0.6, dead=True, unused=True),
    ]


def _scale(x_max: Tensor, w_max: Tensor, alpha: float) -> Tensor:
    scale = x_max**alpha / w_max ** (1 - alpha)
    return torch.where((x_max > 0) & (w_max > 0), scale, 1.0)


def _fold(gain: Tensor, weights: list[Tensor], scale: Tensor) -> dict[str, Any]:
    return {"gain": gain / scale, "weights": [weight * scale for weight in weights]}


def reference(gain: Tensor, weights: list[Tensor], x_max: Tensor, alpha: float) -> dict[str, Any]:
    """The package's scales, over every matrix that reads the norm; 1 for a dead channel."""
    w_max = torch.cat(weights).abs().amax(dim=0)  # (channels,)
    alive = (x_max > 0) & (w_max > 0)
    return _fold(gain, weights, torch.where(alive, smoothing_scales(x_max, w_max, alpha), 1.0))


def _as_given(gain: Tensor, weights: list[Tensor], x_max: Tensor, alpha: float) -> dict[str, Any]:
    smoothed = []
    for weight in weights:
        w_max = weight.abs().amax(dim=0)
        scale = x_max**alpha / w_max ** (1 - alpha)
        scale[(x_max == 0) | (w_max == 0)] = 1.0
        gain = gain / scale
        smoothed.append(weight * scale)
    return {"gain": gain, "weights": smoothed}


def _variant(
    gain: Tensor,
    weights: list[Tensor],
    x_max: Tensor,
    alpha: float,
    *,
    of_first: bool = False,
    axis: int = 0,
    unused_guarded: bool = True,
    swapped: bool = False,
    first_only: bool = False,
) -> dict[str, Any]:
    if axis == 1:
        w_max = weights[0].abs().amax(dim=1)
    else:
        w_max = torch.cat(weights[:1] if of_first else weights).abs().amax(dim=0)
    power = 1 - alpha if swapped else alpha
    scale = _scale(x_max, w_max, power)
    if not unused_guarded:
        scale = torch.where(x_max > 0, x_max**power / w_max ** (1 - power), 1.0)
    folded = _fold(gain, weights, scale)
    if first_only:
        folded["weights"][1:] = weights[1:]
    return folded


def _gain_of_the_last(
    gain: Tensor, weights: list[Tensor], x_max: Tensor, alpha: float
) -> dict[str, Any]:
    scales = [_scale(x_max, weight.abs().amax(dim=0), alpha) for weight in weights]
    return {
        "gain": gain / scales[-1],
        "weights": [weight * scale for weight, scale in zip(weights, scales, strict=True)],
    }


def _channel_by_channel(
    gain: Tensor, weights: list[Tensor], x_max: Tensor, alpha: float
) -> dict[str, Any]:
    new_gain, new_weights = gain.clone(), [weight.clone() for weight in weights]
    for channel, loudest in enumerate(x_max.tolist()):
        heaviest = max(float(weight[:, channel].abs().max()) for weight in weights)
        scale = loudest**alpha * heaviest ** (alpha - 1) if loudest and heaviest else 1.0
        new_gain[channel] /= scale
        for weight in new_weights:
            weight[:, channel] *= scale
    return {"gain": new_gain, "weights": new_weights}


SMOOTHQUANT_FOLD = Exercise(
    id="calibration.smoothquant_fold",
    title="Repair this: SmoothQuant with three readers",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "Right with one reader, wrong with two: each matrix takes a scale of its own, and the "
            "gain is divided by all of them. A channel leaves the norm once. How many scales can "
            "it carry?",
            _as_given,
        ),
        Mistake(
            "gain of one reader only",
            "Each matrix has its own scale and the gain undoes one of them: the other readers see "
            "inputs of the wrong size. Which scale would suit all of them at once?",
            _gain_of_the_last,
        ),
        Mistake(
            "scale of the first reader",
            "The outputs are kept, and the scale looks at one matrix: another reader's largest "
            "weight may be far greater. Over which matrices does the maximum run?",
            partial(_variant, of_first=True),
        ),
        Mistake(
            "unused channel not guarded",
            "A channel that no reader uses gets an infinite scale: its largest weight is 0, and "
            "you divide by that. What should its scale be, so that nothing changes?",
            partial(_variant, unused_guarded=False),
        ),
        Mistake(
            "exponents swapped",
            "Right at alpha 0.5 and wrong elsewhere: the activations have the exponent that belongs "
            "to the weights. Which of the two should a larger alpha smooth more?",
            partial(_variant, swapped=True),
        ),
        Mistake(
            "only the first reader scaled",
            "The gain fell for all readers, and only the first was multiplied: the others see "
            "inputs that are too small. Which weights does the scale belong into?",
            partial(_variant, first_only=True),
        ),
    ),
    hints=(
        "For every reader, gain times weight must stay what it was, channel by channel. Multiply "
        "your new gain with each of your new weights: which reader has changed?",
        "One channel, two readers: gain 1, weights 1 and 4, x_max 16, alpha 0.5. One scale for "
        "both: sqrt(16) / sqrt(4) = 2. Gain 0.5, weights 2 and 8: the products are 1 and 4 as "
        "before, and the largest input falls from 16 to 8.",
        "w_max = largest |weight| of each channel, over all rows of all readers\n"
        "scale = x_max ** alpha / w_max ** (1 - alpha); 1 where x_max or w_max is 0\n"
        "gain / scale; every weight * scale",
    ),
    compare=Close(rtol=1e-4, atol=1e-5),
    alternatives=(_channel_by_channel, _variant),
)
