"""A prediction and its measurement on one axis, with the ceiling that both stay under."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import CARD, INK, SERIES, lesson_style, text_colour
from slmlab.widgets.roof import set_log_axis
from slmlab.widgets.units import digits

PREDICTED, MEASURED = SERIES[0], SERIES[1]
Measurement = float | Sequence[float]
_LOG_FROM_RATIO = 8


def prediction_vs_measured(
    rows: Mapping[str, tuple[float | None, Measurement]],
    *,
    unit: str,
    quantity: str = "value",
    ceiling: float | None = None,
    ceiling_label: str = "ceiling",
    title: str | None = None,
) -> CardFigure:
    """Each row: the prediction as a hollow circle, the measurement as a filled triangle.

    rows: label -> (prediction or None where nothing was predicted, measurement). A sequence of
    measurements is drawn as its median with a line from smallest to largest and its n. unit: of
    all of them. ceiling: a limit in the same unit. The axis is logarithmic where the numbers
    span a factor of 8 or more. Raises ValueError for no rows, no unit, or a number that is not
    positive and finite.
    """
    if not rows:
        raise ValueError("rows must hold at least one label with (prediction, measurement)")
    if not unit:
        raise ValueError("unit must name what the numbers count, such as 'tokens/s'")
    samples = {label: _samples(label, measured) for label, (_, measured) in rows.items()}
    guesses = {label: _checked(label, guess) for label, (guess, _) in rows.items()}
    limit = _checked("ceiling", ceiling)
    message = title or _message(guesses, samples)
    figure, axes = lesson_figure(
        7.2, 1.25 + 0.95 * len(rows), alt=_alt(message, guesses, samples, unit, limit)
    )
    with lesson_style():
        figure.set_message(message)
        numbers = [x for row in samples.values() for x in row]
        numbers += [g for g in guesses.values() if g is not None]
        numbers += [limit] if limit is not None else []
        _scale(axes, numbers)
        axes.set_xlabel(f"{quantity} ({unit})")
        axes.set_ylim(len(rows) - 0.35, -0.65)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        for row, label in enumerate(rows):
            _row(axes, row, guesses[label], samples[label])
        if limit is not None:
            _limit(axes, limit, f"{ceiling_label} {digits(limit)}")
    return figure


def _checked(label: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{label!r} must be a number or None, got {type(value).__name__}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{label!r} must be positive and finite, got {value}")
    return float(value)


def _samples(label: str, measured: Measurement) -> list[float]:
    several = list(measured) if isinstance(measured, Sequence) else [measured]
    if not several:
        raise ValueError(f"{label!r} has no measurement: pass a number or a list of them")
    checked = [_checked(label, value) for value in several]
    if any(value is None for value in checked):
        raise ValueError(f"{label!r} has no measurement: measure before you draw")
    return [value for value in checked if value is not None]


def _message(guesses: Mapping[str, float | None], samples: Mapping[str, list[float]]) -> str:
    ratios = {
        label: statistics.median(samples[label]) / guess
        for label, guess in guesses.items()
        if guess is not None
    }
    if not ratios:
        return "Not predicted yet: here is the measurement alone"
    if len(ratios) == 1:
        ((label, ratio),) = ratios.items()
        return f"{label}: the measurement is {digits(ratio, 2)} times the prediction"
    near = sum(0.5 <= ratio <= 2 for ratio in ratios.values())
    return f"{near} of {len(ratios)} predictions are within a factor of 2"


def _alt(
    message: str,
    guesses: Mapping[str, float | None],
    samples: Mapping[str, list[float]],
    unit: str,
    limit: float | None,
) -> str:
    rows = [
        f"{label}: predicted {'nothing' if guess is None else digits(guess)}, "
        f"measured {digits(statistics.median(samples[label]))} {unit}"
        for label, guess in guesses.items()
    ]
    if limit is not None:
        rows.append(f"ceiling {digits(limit)} {unit}")
    return f"{message}. " + "; ".join(rows) + "."


def _scale(axes: Axes, numbers: list[float]) -> None:
    low, high = min(numbers), max(numbers)
    if high / low >= _LOG_FROM_RATIO:
        set_log_axis(axes.xaxis, low / 1.8, high * 1.8)
    else:
        axes.set_xlim(0, high * 1.25)


def _row(axes: Axes, row: int, guess: float | None, samples: list[float]) -> None:
    middle = statistics.median(samples)
    if len(samples) > 1:
        axes.plot(
            [min(samples), max(samples)],
            [row, row],
            color=MEASURED.colour,
            linestyle="-",
            linewidth=4,
            solid_capstyle="butt",
            marker="",
            alpha=0.55,
        )
    spread_text = f", n = {len(samples)}" if len(samples) > 1 else ""
    # The ring is larger than the triangle: an exact prediction shows as a triangle in a ring.
    marks = [
        (middle, MEASURED, MEASURED.colour, 8, 0.34, f"measured {digits(middle)}{spread_text}")
    ]
    if guess is not None:
        marks.append((guess, PREDICTED, "none", 15, -0.36, f"predicted {digits(guess)}"))
    to_axes = axes.transScale + axes.transLimits
    for x, series, face, size, above, text in marks:
        # Half a label's width is kept free at both ends.
        place = min(max(float(to_axes.transform((x, row))[0]), 0.1), 0.9)
        axes.plot(
            [x],
            [row],
            marker=series.marker,
            markersize=size,
            linestyle="none",
            markerfacecolor=face,
            markeredgecolor=series.colour,
            markeredgewidth=2,
            zorder=4,
        )
        axes.annotate(
            text,
            (x, row),
            xytext=(place, row + above),
            textcoords=axes.get_yaxis_transform(),
            ha="center",
            va="center",
            color=text_colour(series.colour),
            bbox={"facecolor": CARD, "edgecolor": "none", "pad": 0.8},
            zorder=3,
        )


def _limit(axes: Axes, limit: float, label: str) -> None:
    axes.axvline(limit, color=INK, linestyle="--", linewidth=1.4, marker="", zorder=1)
    axes.annotate(
        label,
        (limit, 1.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
    )
