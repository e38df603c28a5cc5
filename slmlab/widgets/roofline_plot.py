"""The roofline of a device with labelled points: predicted ones hollow, measured ones filled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slmlab.measure import Prediction
from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import CARD, SERIES, lesson_style, spread, text_colour
from slmlab.widgets.roof import Roof, ceilings
from slmlab.widgets.units import digits

PREDICTED, MEASURED = SERIES[0], SERIES[1]


@dataclass(frozen=True)
class RooflinePoint:
    """One workload: intensity in FLOP a byte read, rate in GFLOP/s, predicted or measured."""

    label: str
    intensity: float
    gflop_s: float
    measured: bool = False

    def __post_init__(self) -> None:
        for name in ("intensity", "gflop_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} of point {self.label!r} must be positive, got {value}")

    @classmethod
    def predicted_from(cls, label: str, prediction: Prediction) -> RooflinePoint:
        """The most that the device allows: on the roof."""
        rate = prediction.flops / prediction.step_seconds / 1e9
        return cls(label, prediction.intensity_flop_per_byte, rate)

    @classmethod
    def measured_from(
        cls, label: str, prediction: Prediction, tokens_per_second: float
    ) -> RooflinePoint:
        """What was reached: the FLOP of ``prediction`` at a measured rate, tokens/s of the batch.

        Prefill of T tokens reads the weights once for all of them: predict it with batch=T.
        """
        rate = prediction.flops / prediction.batch * tokens_per_second / 1e9
        return cls(label, prediction.intensity_flop_per_byte, rate, measured=True)


def roofline_plot(
    device: Any,
    points: Sequence[RooflinePoint] = (),
    *,
    dtype: str = "float16",
    title: str | None = None,
) -> CardFigure:
    """Attainable GFLOP/s against FLOP a byte, log axes, ridge and points labelled directly.

    device: a Roofline, a Device, its name, or a pair (bandwidth in GB/s, peak in GFLOP/s or
    None). dtype: precision of the products where the device has several peaks. title: one
    message; by default it says which resource limits each point. Raises as `predict_decode`.
    Source: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
    """
    for point in points:
        if not isinstance(point, RooflinePoint):
            raise TypeError(f"points must hold RooflinePoint, got {type(point).__name__}")
    name, bandwidth, peak = ceilings(device, dtype)
    message = title or _message(name, bandwidth, peak, points)
    figure, axes = lesson_figure(7.2, 4.5, alt=_alt(message, points), layout=None)
    # Fixed margins: the slope's label is turned by the angle that the axes have now.
    lines = 1 + figure.set_message(message).get_text().count("\n")
    figure.subplots_adjust(0.14, 0.12, 0.975, 0.965 - 0.045 * lines)
    with lesson_style():
        Roof(axes, *_limits(bandwidth, peak, points)).move(bandwidth, peak)
        _draw_points(axes, points, bandwidth, peak)
    return figure


def bound_by(point: RooflinePoint, bandwidth: float, peak: float | None) -> str:
    """ "memory bandwidth" left of the ridge, "compute" right of it."""
    if peak is None or point.intensity <= peak / bandwidth:
        return "memory bandwidth"
    return "compute"


def _message(
    name: str, bandwidth: float, peak: float | None, points: Sequence[RooflinePoint]
) -> str:
    groups: dict[str, list[str]] = {"memory bandwidth": [], "compute": []}
    for point in points:
        workload = point.label.split(":")[0].strip()
        found = groups[bound_by(point, bandwidth, peak)]
        if workload not in found:
            found.append(workload)
    parts = [f"{limit} limits {', '.join(them)}" for limit, them in groups.items() if them]
    if parts:
        message = "; ".join(parts)
        where = "" if name == "custom" else f" ({name})"
        return f"{message[0].upper()}{message[1:]}{where}"
    who = "This device" if name == "custom" else f"{name[0].upper()}{name[1:]}"
    if peak is None:
        return f"{who}: every byte read allows a fixed rate; the peak is unknown"
    return f"{who} needs {digits(peak / bandwidth)} FLOP a byte to keep its arithmetic busy"


def _alt(message: str, points: Sequence[RooflinePoint]) -> str:
    said = [
        f"{p.label} {'measured' if p.measured else 'predicted'} at {digits(p.intensity)} "
        f"FLOP/byte, {digits(p.gflop_s)} GFLOP/s"
        for p in points
    ]
    return "Roofline plot. " + "; ".join([message, *said]) + "."


def _limits(
    bandwidth: float, peak: float | None, points: Sequence[RooflinePoint]
) -> tuple[tuple[float, float], tuple[float, float]]:
    ridge = 50.0 if peak is None else peak / bandwidth
    x = [p.intensity for p in points] + [ridge, min(1.0, ridge / 4)]
    left, right = min(x) / 2.5, max(x) * 6
    y = [p.gflop_s for p in points] + [left * bandwidth * 2.5]
    top = right * bandwidth if peak is None else peak
    return (left, right), (min(y) / 4, max([top, *y]) * 2.5)


def _draw_points(
    axes: Any, points: Sequence[RooflinePoint], bandwidth: float, peak: float | None
) -> None:
    figure = axes.figure
    box = axes.get_window_extent()
    pixel = figure.dpi / 72
    spots = [axes.transData.transform((p.intensity, p.gflop_s)) for p in points]
    # A label beside a predicted point would lie on the flat roof: those go below it.
    below = [
        0 if p.measured or bound_by(p, bandwidth, peak) != "compute" else 15 * pixel for p in points
    ]
    wanted = [float(y) - down for (_, y), down in zip(spots, below, strict=True)]
    heights = spread(wanted, 15 * pixel, box.y0 + 26 * pixel, box.y1)
    for point, (across, up), height in zip(points, spots, heights, strict=True):
        series = MEASURED if point.measured else PREDICTED
        axes.plot(
            [point.intensity],
            [point.gflop_s],
            marker=series.marker,
            markersize=9,
            linestyle="none",
            color=series.colour,
            markerfacecolor=series.colour if point.measured else CARD,
            markeredgecolor=series.colour,
            markeredgewidth=2,
            zorder=4,
        )
        moved = abs(height - up) > 3 * pixel
        to_left = across > box.x0 + 0.62 * box.width
        gap = 22 if moved else 9
        axes.annotate(
            f"{point.label} ({'measured' if point.measured else 'predicted'})",
            (point.intensity, point.gflop_s),
            xytext=(-gap if to_left else gap, (height - up) / pixel - 1),
            textcoords="offset points",
            ha="right" if to_left else "left",
            va="center",
            color=text_colour(series.colour),
            bbox={"facecolor": CARD, "edgecolor": "none", "pad": 1.0, "alpha": 0.9},
            arrowprops={"arrowstyle": "-", "color": series.colour, "linewidth": 0.8}
            if moved
            else None,
            zorder=5,
        )
