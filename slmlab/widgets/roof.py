"""The roof of a roofline plot as artists that can move: slope, flat part, ridge and their labels."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from slmlab.measure import Prediction, predict_decode
from slmlab.widgets.plot_style import GRID, INK, label_axes, lesson_style
from slmlab.widgets.published import published_configs
from slmlab.widgets.units import digits

_CLEAR_POINTS = 8.0


def ceilings(target: Any, dtype: str = "float16") -> tuple[str, float, float | None]:
    """(name, bandwidth in GB/s, peak in GFLOP/s or None) of a device.

    target: what `predict_decode` takes as a device, with the same errors. dtype: precision of
    the products, "float32" or "float16".
    """
    # predict_decode is the one place that reads devices; any model's prediction carries them.
    config = next(iter(published_configs().values()))
    answer: Prediction = predict_decode(config, dtype, target)
    return answer.device, answer.bandwidth_gb_s, answer.peak_gflop_s


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in low .. high; where there are fewer than three, powers of two as well."""
    tens = [10.0**k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    if len(tens) >= 3:
        return tens
    return [2.0**k for k in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]


def tick_text(value: float, _: int | None = None) -> str:
    """1,000 rather than 10^3."""
    return digits(value, 6)


def set_log_axis(axis: Any, low: float, high: float) -> None:
    """Log scale over low .. high, with a few plain ticks: minor ticks cost most of a draw."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(tick_text))
    axis.set_minor_locator(NullLocator())


class Roof:
    """Attainable GFLOP/s over FLOP/byte, drawn once and moved from then on.

    Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
    """

    def __init__(self, axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.axes = axes
        with lesson_style():
            self.frame(x, y)
            label_axes(
                axes,
                "arithmetic intensity",
                "FLOP a byte read",
                "attainable rate",
                "GFLOP/s",
            )
            axes.grid(True, color=GRID)
            (self.line,) = axes.plot([], [], color=INK, linestyle="-", marker="")
            (self.ridge,) = axes.plot([], [], color=INK, linestyle=":", linewidth=1.2, marker="")
            self.slope_text = axes.annotate(
                "",
                (1, 1),
                xytext=(0, 0),
                textcoords="offset points",
                rotation_mode="anchor",
                ha="center",
                va="bottom",
                fontsize=9,
            )
            self.flat_text = axes.text(0, 0, "", ha="right", va="bottom", fontsize=9)
            self.ridge_text = axes.text(0, 0, "", ha="left", va="bottom", fontsize=9)

    def frame(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Show intensities x and rates y, (from, to) each; `move` afterwards."""
        self.x, self.y = x, y
        set_log_axis(self.axes.xaxis, *x)
        set_log_axis(self.axes.yaxis, *y)

    def move(self, bandwidth: float, peak: float | None) -> None:
        """Put the roof where a device has it. bandwidth: GB/s; peak: GFLOP/s, None if unknown."""
        left, right = self.x
        bottom, top = self.y
        ridge = right if peak is None else min(max(peak / bandwidth, left), right)
        self.line.set_data(
            [left, ridge, right],
            [left * bandwidth, ridge * bandwidth, _flat(right, bandwidth, peak)],
        )
        # Only the part of the slope that is inside the frame can carry a label.
        start, end = max(left, bottom / bandwidth), min(ridge, top / bandwidth)
        middle = math.sqrt(start * end)
        angle = self._angle()
        self.slope_text.xy = (middle, middle * bandwidth)
        # So far above the slope that the marker of a point on it stays clear.
        self.slope_text.set_position(
            (-_CLEAR_POINTS * math.sin(angle), _CLEAR_POINTS * math.cos(angle))
        )
        self.slope_text.set_rotation(math.degrees(angle))
        # A short slope has room for the short name only.
        long = math.log(end / start) > 0.36 * math.log(right / left)
        self.slope_text.set_text(f"{'memory ' * long}bandwidth {digits(bandwidth)} GB/s")
        known = peak is not None and left < peak / bandwidth < right
        self.ridge.set_visible(known)
        self.ridge_text.set_visible(known)
        if peak is None:
            self.flat_text.set_position((right, bottom * 1.3))
            self.flat_text.set_text("no peak rate is published: the flat part is unknown ")
            return
        self.flat_text.set_position((right, peak * 1.12))
        self.flat_text.set_text(f"compute {digits(peak)} GFLOP/s")
        if known:
            self.ridge.set_data([ridge, ridge], [bottom, peak])
            near_right = math.log(right / ridge) < 0.22 * math.log(right / left)
            self.ridge_text.set_position(
                (ridge / 1.06 if near_right else ridge * 1.06, bottom * 1.15)
            )
            self.ridge_text.set_horizontalalignment("right" if near_right else "left")
            self.ridge_text.set_text(f"ridge {digits(ridge)} FLOP/byte")

    def _angle(self) -> float:
        """Radians on the page of a line on which the rate grows as the intensity."""
        box = self.axes.get_window_extent()
        width = box.width / math.log(self.x[1] / self.x[0])
        height = box.height / math.log(self.y[1] / self.y[0])
        return math.atan2(height, width)


def _flat(right: float, bandwidth: float, peak: float | None) -> float:
    return right * bandwidth if peak is None else min(peak, right * bandwidth)
