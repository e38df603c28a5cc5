"""The calibration plot: predicted against measured, on log axes, each point labelled directly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from slmlab.checking.render import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from slmlab.checking.predictions import Prediction

MAX_LABEL = 24
# As fractions of the width of the axes: from point to label, and one character of a label.
GAP, CHARACTER = 0.03, 0.0095
# Okabe-Ito blue and vermilion; the marker's shape says the same as its colour.
NEAR, FAR = ("#0072B2", "o"), ("#D55E00", "^")
INK = "#222222"


def draw(predictions: Sequence[Prediction], waiting: int = 0) -> Figure:
    """A matplotlib figure; `predictions` have both a value and a measurement.

    waiting: how many others were predicted and not measured. Where nothing was measured, the figure
    says what is missing.
    Points within a factor of 2 are circles inside the hatched band, the others are triangles.
    """
    import matplotlib.pyplot as plt

    height = max(4.2, 1.8 + 0.3 * len(predictions))
    figure, axes = plt.subplots(figsize=(7.2, height), layout="constrained")
    # A closed figure is not shown a second time by the notebook when the cell ends.
    plt.close(figure)
    # An opaque white ground keeps the ink readable on a dark page.
    figure.set_facecolor("white")
    axes.set_facecolor("white")
    axes.set_xlabel("measured (each in its own unit)", color=INK)
    axes.set_ylabel("your prediction (same unit)", color=INK)
    axes.tick_params(colors=INK, which="both")
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.set_title(_title(predictions), loc="left", color=INK)
    if not predictions:
        axes.set_xticks([])
        axes.set_yticks([])
        text = _what_is_missing(waiting)
        axes.text(0.5, 0.5, text, ha="center", va="center", color=INK, transform=axes.transAxes)
        return figure
    _frame(axes, predictions)
    _points(axes, predictions)
    return figure


def _what_is_missing(waiting: int) -> str:
    if waiting:
        count = "One prediction waits" if waiting == 1 else f"{waiting} predictions wait"
        return f"{count} for a measurement.\nRun the cell that measures, then this one again."
    return (
        "You left every prediction at None. Put a number into one,\n"
        "then run its cell, the cell that measures, and this one again."
    )


def _title(predictions: Sequence[Prediction]) -> str:
    if not predictions:
        return "No predictions measured yet"
    near = sum((p.ratio or math.inf) <= 2 for p in predictions)
    noun = "prediction is" if len(predictions) == 1 else "predictions are"
    return f"{near} of {len(predictions)} {noun} within a factor of 2"


def _frame(axes: Axes, predictions: Sequence[Prediction]) -> None:
    numbers = [x for p in predictions for x in (p.value, p.measured) if x is not None]
    # Labels stand beside the points, so the axes reach well past them.
    margin = 4 * (max(numbers) / min(numbers)) ** 0.3
    low, high = min(numbers) / margin, max(numbers) * margin
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = [low, high]
    axes.fill_between(
        ends,
        [x / 2 for x in ends],
        [x * 2 for x in ends],
        facecolor="#EEEEEE",
        edgecolor="#BBBBBB",
        hatch="//",
        linewidth=0,
    )
    axes.plot(ends, ends, color=INK, linewidth=1)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.annotate(
        "exact",
        (0.985, 0.985),
        xycoords="axes fraction",
        xytext=(-6, -16),
        textcoords="offset points",
        ha="right",
        va="top",
        color=INK,
        fontsize=8,
    )
    axes.annotate(
        "hatched: within a factor of 2",
        (0.015, 0.985),
        xycoords="axes fraction",
        ha="left",
        va="top",
        color=INK,
        fontsize=8,
    )


def _points(axes: Axes, predictions: Sequence[Prediction]) -> None:
    """Draws the points; labels go left of those above the diagonal and right of the others, unless
    the frame is too near."""
    for left in (True, False):
        side = [p for p in predictions if _goes_left(axes, p) is left]
        side.sort(key=lambda p: p.value or 0.0)
        heights = _spread([_place(axes, p.value) for p in side])
        for prediction, height in zip(side, heights, strict=True):
            _point(axes, prediction, height, left)


def _place(axes: Axes, value: float | None) -> float:
    """A value's position as a fraction of either axis; both have the same limits."""
    low, high = (math.log(x) for x in axes.get_xlim())
    return (math.log(value or 1.0) - low) / (high - low)


def _goes_left(axes: Axes, prediction: Prediction) -> bool:
    place = _place(axes, prediction.measured)
    width = GAP + CHARACTER * len(_label(prediction))
    if place - width < 0 or place + width > 1:
        return place > 0.5
    return (prediction.value or 0.0) >= (prediction.measured or 0.0)


def _spread(heights: list[float]) -> list[float]:
    """Heights in the axes' fraction, ascending, moved apart until labels have room."""
    room = min(0.055, 0.85 / max(len(heights), 1))
    spread: list[float] = []
    for height in heights:
        spread.append(max(height, spread[-1] + room) if spread else height)
    ceiling = 0.92
    for index in reversed(range(len(spread))):
        spread[index] = min(spread[index], ceiling)
        ceiling = spread[index] - room
    return spread


def _point(axes: Axes, prediction: Prediction, height: float, left: bool) -> None:
    x, y = prediction.measured or 1.0, prediction.value or 1.0
    colour, marker = NEAR if (prediction.ratio or math.inf) <= 2 else FAR
    axes.plot([x], [y], marker=marker, color=colour, markersize=8, linestyle="none", zorder=5)
    place = _place(axes, x)
    axes.annotate(
        _label(prediction),
        (x, y),
        xytext=(place + (-GAP if left else GAP), height),
        textcoords="axes fraction",
        ha="right" if left else "left",
        va="center",
        color=INK,
        fontsize=8,
        parse_math=False,
        arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.6, "shrinkB": 4},
    )


def _label(prediction: Prediction) -> str:
    name = visible(prediction.name).replace("\n", " ")
    name = name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 3] + "..."
    unit = f" [{visible(prediction.unit)}]" if prediction.unit else ""
    return f"{name}{unit}"
