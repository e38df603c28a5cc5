"""quantization.choose_group: the group size with the least error that fits a budget of bytes."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake
from slmlab.quant.tensor import quantize_tensor

# Two sizes whose errors differ by less are equally good.
CLOSE = 1.05


def cases(seed: int) -> list[Case]:
    """Room for small groups, none for them, for nothing; a short group; saved weights; matrices."""
    random = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random)

    while True:
        # One weight towers over its neighbours: a group of its own pair spares the others.
        pair = torch.tensor([[3.0, 1.3, 0.2, 0.11]]) * (1 + 0.3 * noise(1, 4)).round(decimals=1)
        five = torch.tensor([[3.0, 1.3, 0.2, 0.11, 0.07]]) * (1 + 0.3 * noise(1, 5))
        # Weights that were quantised before, in groups of 8: any other grid only adds error.
        saved = quantize_tensor(torch.randn(4, 32, generator=random), "int4-g8").dequantize()
        matrix = torch.randn(6, 64, generator=random)
        matrix[:, ::19] *= 4
        built = [
            Case({"w": pair, "group_sizes": [4, 2], "budget_bytes": 6}),
            Case({"w": pair, "group_sizes": [4, 2], "budget_bytes": 5}),
            Case({"w": pair, "group_sizes": [4, 2], "budget_bytes": 3}),
            Case({"w": five, "group_sizes": [5, 2], "budget_bytes": 8}),
            Case({"w": saved, "group_sizes": [32, 16, 8, 4], "budget_bytes": 4 * (16 + 2 * 8)}),
            Case({"w": matrix, "group_sizes": [64, 32, 16, 8], "budget_bytes": 6 * (32 + 2 * 4)}),
            Case({"w": matrix, "group_sizes": [8, 16, 32, 64], "budget_bytes": 6 * (32 + 5)}),
        ]
        if all(_clear(case.arguments) for case in built):
            return built


def _clear(arguments: dict[str, Any]) -> bool:
    """The best choice is ahead of each other one by a factor, so that rounding decides nothing."""
    errors = sorted(_error(arguments["w"], size) for size in arguments["group_sizes"])
    return all(b > CLOSE**2 * a + 1e-9 for a, b in itertools.pairwise(errors))


def _stored_bytes(w: Tensor, size: int) -> int:
    return quantize_tensor(w, f"int4-g{size}").nbytes


def _error(w: Tensor, size: int) -> float:
    """Sum of squared errors of what comes back, with scales as they are stored."""
    return float((quantize_tensor(w, f"int4-g{size}").dequantize() - w).square().sum())


def least_error_that_fits(arguments: dict[str, Any], output: Any) -> str | None:
    """None where `output` fits the budget and no size that fits has a clearly smaller error."""
    w, sizes, budget = (arguments[name] for name in ("w", "group_sizes", "budget_bytes"))
    fitting = [size for size in sizes if _stored_bytes(w, size) <= budget]
    if output is None:
        return f"You return None, and groups of {fitting[0]} fit the budget." if fitting else None
    if type(output) is not int or output not in sizes:
        return "Return one of group_sizes, an int, or None where none fits."
    needed = _stored_bytes(w, output)
    if needed > budget:
        return f"Groups of {output} take {needed:,} bytes, and the budget is {budget:,}."
    best = min(fitting, key=lambda size: _error(w, size))
    if _error(w, output) > CLOSE * _error(w, best) + 1e-9:
        return (
            f"Groups of {output} fit and leave an error of {_error(w, output):.3g}; groups of "
            f"{best} fit too and leave {_error(w, best):.3g}."
        )
    return None


def reference(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    """By the package's tensors: true bytes, true error."""
    fitting = [size for size in group_sizes if _stored_bytes(w, size) <= budget_bytes]
    return min(fitting, key=lambda size: _error(w, size), default=None)


def _least_error(w: Tensor, fitting: list[int]) -> int | None:
    return min(fitting, key=lambda size: _error(w, size), default=None)


def _codes_bytes(w: Tensor) -> int:
    return w.shape[0] * -(-w.shape[1] // 2)


def _groups(w: Tensor, size: int) -> int:
    return w.shape[0] * -(-w.shape[1] // size)


def _scales_forgotten(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    return _least_error(w, [size for size in group_sizes if _codes_bytes(w) <= budget_bytes])


def _scales_in_float32(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    return _least_error(
        w, [g for g in group_sizes if _codes_bytes(w) + 4 * _groups(w, g) <= budget_bytes]
    )


def _a_byte_a_code(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    return _least_error(
        w, [g for g in group_sizes if w.numel() + 2 * _groups(w, g) <= budget_bytes]
    )


def _short_group_free(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    def stored(size: int) -> int:
        return _codes_bytes(w) + 2 * w.shape[0] * (w.shape[1] // size)

    return _least_error(w, [size for size in group_sizes if stored(size) <= budget_bytes])


def _smallest_that_fits(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    return min((g for g in group_sizes if _stored_bytes(w, g) <= budget_bytes), default=None)


def _fewest_bytes(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    return max((g for g in group_sizes if _stored_bytes(w, g) <= budget_bytes), default=None)


def _by_loops(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    best, least = None, float("inf")
    for size in group_sizes:
        needed, error = 0, 0.0
        for row in w.tolist():
            needed += (len(row) + 1) // 2
            for start in range(0, len(row), size):
                group = row[start : start + size]
                needed += 2
                scale = max(abs(x) for x in group) / 7 or 1.0
                error += sum((round(x / scale) * scale - x) ** 2 for x in group)
        if needed <= budget_bytes and error < least:
            best, least = size, error
    return best


CHOOSE_GROUP = Exercise(
    id="quantization.choose_group",
    title="Decide: a group size under a byte budget",
    points=4,
    minutes=15,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "scales not counted",
            "You compare the codes alone with the budget: their bytes are the same for every group "
            "size. What does each group store besides?",
            _scales_forgotten,
        ),
        Mistake(
            "scales in four bytes",
            "You count four bytes a scale and so see room for fewer groups than there is: scales "
            "are stored in fp16. How many bytes is that?",
            _scales_in_float32,
        ),
        Mistake(
            "a byte a code",
            "You count one byte a code: two 4-bit codes share a byte. How many bytes do 64 of them "
            "take?",
            _a_byte_a_code,
        ),
        Mistake(
            "short group without a scale",
            "You divide and drop the rest: where the group size does not divide the row, the last "
            "short group still needs a scale. How many groups of 2 has a row of 5?",
            _short_group_free,
        ),
        Mistake(
            "smallest group assumed best",
            "You take the smallest group that fits and measure nothing: on weights that were "
            "quantised before, another grid adds error. What decides here, and can you compute it?",
            _smallest_that_fits,
        ),
        Mistake(
            "fewest bytes",
            "Your choice fits and leaves more error than it must: bytes below the budget earn "
            "nothing. Which of the sizes that fit brings the weights back best?",
            _fewest_bytes,
        ),
    ),
    hints=(
        "Your choice fits the budget, and every other size that fits leaves at least as much error. "
        "Check both halves of that sentence.",
        "Row [3.0, 1.3, 0.2, 0.1]: 2 bytes of codes. One group: + 2 = 4 bytes, scale 0.4286, back "
        "[3.0, 1.2857, 0.0, 0.0]. Two groups: + 4 = 6 bytes, the second with scale 0.0286, back "
        "[0.2, 0.1143]. A budget of 5 allows the first only.",
        "for each size: groups = rows * ceil(columns / size)\n"
        "    bytes = rows * ceil(columns / 2) + 2 * groups; skip where above the budget\n"
        "    quantise each group: scale = amax / 7, round, back; error = sum of squares\n"
        "return the size with the least error, None where all were skipped",
    ),
    compare=Invariant(least_error_that_fits, match=Exact()),
    alternatives=(_by_loops,),
)
