"""kv.quantize_cache: keys in groups along a channel, values in groups along a token."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake

Answer = tuple[Tensor, Tensor]
CHANNEL, TOKEN = 0, 1  # the dimension of (tokens, head_dim) along which a group runs


def cases(seed: int) -> list[Case]:
    """Two tokens, a constant channel and token, three widths of code, loud channels."""
    random = torch.Generator().manual_seed(seed)

    def case(tokens: int, width: int, bits: int, loud: bool = False) -> Case:
        while True:
            keys, values = (
                (2 * torch.randn(tokens, width, generator=random)).round(decimals=1)
                for _ in range(2)
            )
            if loud:
                keys[:, 1] = 4 * keys[:, 1] + 30
            if tokens == 3:
                keys[:, 0], values[0] = 0.5, -1.5
            if _far_from_ties(keys, bits, CHANNEL) and _far_from_ties(values, bits, TOKEN):
                return Case({"keys": keys, "values": values, "bits": bits})

    return [case(2, 2, 2), case(3, 2, 2), case(3, 3, 4), case(8, 4, 4, True), case(12, 6, 8, True)]


def _steps(x: Tensor, bits: int, along: int) -> Tensor:
    low, high = x.amin(along, keepdim=True), x.amax(along, keepdim=True)
    return (x - low) * (2**bits - 1) / (high - low).clamp(min=1e-9)


def _far_from_ties(x: Tensor, bits: int, along: int) -> bool:
    """No value lies halfway between two codes, and none needs the last bit to tell."""
    steps = _steps(x, bits, along)
    return bool(((steps - steps.floor() - 0.5).abs() > 0.02).all())


def back(
    x: Tensor, bits: int, along: int, *, levels: int = -1, minimum: bool = True, add: bool = True
) -> Tensor:
    """(tokens, head_dim) through codes of ``bits`` and back; a group runs along ``along``."""
    low = x.amin(along, keepdim=True) if minimum else torch.zeros_like(x[:1, :1])
    high = x.amax(along, keepdim=True) if minimum else x.abs().amax(along, keepdim=True)
    count = 2**bits + levels if minimum else 2 ** (bits - 1) - 1
    scale = (high - low) / count
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    codes = torch.round((x - low) / scale)
    return codes * scale + (low if add else 0)


def reference(keys: Tensor, values: Tensor, bits: int) -> Answer:
    """Minimum and scale of each key channel, and of each token's values."""
    return back(keys, bits, CHANNEL), back(values, bits, TOKEN)


def _keys_per_token(keys: Tensor, values: Tensor, bits: int) -> Answer:
    return back(keys, bits, TOKEN), back(values, bits, TOKEN)


def _values_per_channel(keys: Tensor, values: Tensor, bits: int) -> Answer:
    return back(keys, bits, CHANNEL), back(values, bits, CHANNEL)


def _swapped(keys: Tensor, values: Tensor, bits: int) -> Answer:
    return back(keys, bits, TOKEN), back(values, bits, CHANNEL)


def _around_zero(keys: Tensor, values: Tensor, bits: int) -> Answer:
    return back(keys, bits, CHANNEL, minimum=False), back(values, bits, TOKEN, minimum=False)


def _one_code_too_many(keys: Tensor, values: Tensor, bits: int) -> Answer:
    return back(keys, bits, CHANNEL, levels=0), back(values, bits, TOKEN, levels=0)


def _minimum_not_added(keys: Tensor, values: Tensor, bits: int) -> Answer:
    return back(keys, bits, CHANNEL, add=False), back(values, bits, TOKEN, add=False)


def _group_by_group(keys: Tensor, values: Tensor, bits: int) -> Answer:
    def one_group(numbers: list[float]) -> list[float]:
        low = min(numbers)
        step = (max(numbers) - low) / (2**bits - 1)
        return [low + round((x - low) / step) * step if step else low for x in numbers]

    channels = [one_group(channel) for channel in keys.T.tolist()]
    return torch.tensor(channels).T, torch.tensor([one_group(token) for token in values.tolist()])


QUANTIZE_CACHE = Exercise(
    id="kv.quantize_cache",
    title="Quantise keys per channel, values per token",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "keys per token",
            "Your values are right and your keys share a scale within a token: a loud channel then "
            "sets the step of its quiet neighbours. Along which dimension does a channel run?",
            _keys_per_token,
        ),
        Mistake(
            "values per channel",
            "Your keys are right and your values share a scale within a channel: a new token would "
            "move the scale of all the old ones. Along which dimension does a token run?",
            _values_per_channel,
        ),
        Mistake(
            "keys and values swapped",
            "Both run the other way round: keys got a scale for each token, values one for each "
            "channel. Which of them has channels that are loud in every token?",
            _swapped,
        ),
        Mistake(
            "grid around zero",
            "Your grid is centred on zero: a channel between 25 and 35 then uses a few of its "
            "codes. What is taken off first, so that code 0 is the smallest of the group?",
            _around_zero,
        ),
        Mistake(
            "one code too many",
            "Your step divides the range by 2**bits: four codes have three steps between them. "
            "Which code does the group's largest get?",
            _one_code_too_many,
        ),
        Mistake(
            "minimum not put back",
            "Each group comes back shifted: you take the minimum off and do not add it again. What "
            "does code 0 stand for?",
            _minimum_not_added,
        ),
    ),
    hints=(
        "The smallest and the largest of every group come back as they were, and nothing is off by "
        "more than half of its group's step. Which of your groups breaks that?",
        "Keys of one channel [30, 33, 31], 2 bits. Minimum 30, step (33 - 30) / 3 = 1, codes "
        "[0, 3, 1], back [30, 33, 31]. Around zero the step would be 33 and all three become 33.",
        "group of keys: keys[:, channel], all tokens; group of values: values[token], all channels\n"
        "low, high = smallest, largest of the group; step = (high - low) / (2**bits - 1), 1 if 0\n"
        "code = round((x - low) / step)\n"
        "back = code * step + low",
    ),
    compare=Close(rtol=1e-4, atol=1e-4),
    alternatives=(_group_by_group,),
)
