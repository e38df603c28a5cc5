"""The frontier of all schemes, and the explorer's picture: weights between the codes of one matrix,
and what metadata buys beside wider codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.plot_style import CARD, GRID, INK, SERIES, lesson_style, text_colour
from slmlab.widgets.quantization_bench import Bench, Damage
from slmlab.widgets.quantization_view import (
    BITS,
    GROUPS,
    ROW,
    State,
    View,
    code_line,
    scheme_of,
    trade,
)
from slmlab.widgets.roof import set_log_axis
from slmlab.widgets.units import digits

BY_BITS = dict(zip(BITS, SERIES, strict=False))
_LABELLED = (ROW, 32)
_SPIKE, _VISIBLE = 1.5, 0.05  # of its neighbour, of the highest: such a last bar asks for a word


def frontier_lines(bench: Bench, bits: tuple[int, ...] = BITS) -> dict[int, list[Damage]]:
    """Of each width: the damage at every group size, one scale a row first, symmetric."""
    return {
        b: [bench.damage(scheme_of(State(b, g), bench.longest_row)) for g in GROUPS] for b in bits
    }


def draw_frontier(axes: Any, lines: dict[int, list[Damage]]) -> None:
    """KL against bits a weight; each width has its colour, marker and name."""
    for bits, points in lines.items():
        series = BY_BITS[bits]
        x, y = [p.bits_per_weight for p in points], [p.kl_nats for p in points]
        axes.plot(x, y, color=series.colour, marker=series.marker, linestyle=series.line)
        axes.annotate(
            f"int{bits}",
            (x[0], y[0]),
            xytext=(-6, 6),
            textcoords="offset points",
            ha="right",
            color=text_colour(series.colour),
            weight="bold",
        )
        for group, a, b in zip(GROUPS, x, y, strict=True):
            if group in _LABELLED:
                axes.annotate(
                    str(group), (a, b), xytext=(5, 5), textcoords="offset points", fontsize=8.5
                )
    axes.margins(x=0.13)  # room for the names left of the lines
    numbers = [p.kl_nats for points in lines.values() for p in points]
    _set_short_log_axis(axes, min(numbers) / 2, max(numbers) * 2.5)
    axes.grid(True, axis="y")
    axes.set_xlabel("size, metadata included (bits a weight)")
    axes.set_ylabel("KL (nats a token)")


def _set_short_log_axis(axes: Any, low: float, high: float) -> None:
    """A log axis of heights with ticks at 1, 2 and 5: too short for powers of ten."""
    set_log_axis(axes.yaxis, low, high)
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [step * 10.0**ten for ten in tens for step in (1, 2, 5)]
    axes.set_yticks([step for step in steps if low <= step <= high])


class QuantizationPicture:
    """Two axes, drawn anew at each `update`; `png` makes the file. pictures: how many were made.

    point: the ring around the chosen scheme.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.figure = CardFigure(figsize=(7.2, 4.4), dpi=100 * PIXELS_PER_POINT_SIZE)
        self.title = self.figure.set_message("")
        self.pictures = 0
        with lesson_style():
            self.weights = self.figure.add_axes((0.02, 0.155, 0.42, 0.68))
            self.trade = self.figure.add_axes((0.57, 0.155, 0.415, 0.68))

    def update(self, view: View) -> None:
        """Show ``view``; no file is made yet."""
        lead = ""
        if view.trade is not None and view.state.group != ROW:
            lead = f", lead {view.trade.lead:.2f} times"
        self.title = self.figure.set_message(
            f"{view.scheme}: {digits(view.damage.bits_per_weight, 4)} bits a weight, "
            f"KL {digits(view.damage.kl_nats)} nats a token{lead}"
        )
        self.figure.alt = view.text
        with lesson_style():
            self._draw_weights(view)
            self._draw_trade(view)

    def _draw_trade(self, view: View) -> None:
        """Groups of one width, and the line on which the same bits go into wider codes."""
        axes, state, series = self.trade, view.state, BY_BITS[view.state.bits]
        axes.clear()
        axes.set_facecolor(CARD)
        schemes = [
            scheme_of(State(state.bits, group, state.symmetric), self.bench.longest_row)
            for group in GROUPS
        ]
        points = [self.bench.damage(scheme) for scheme in schemes]
        x, y = [p.bits_per_weight for p in points], [p.kl_nats for p in points]
        # Solid whatever the width: dashes are the wider codes.
        axes.plot(x, y, color=series.colour, marker=series.marker, linestyle="-")
        for group, a, b in zip(GROUPS, x, y, strict=True):
            exchange = trade(self.bench, State(state.bits, group, state.symmetric))
            # Away from the dashed line.
            below = exchange is not None and exchange.lead >= 1
            axes.annotate(
                str(group),
                (a, b),
                xytext=(-9, -3) if group == ROW else (-7, -11) if below else (6, 7),
                textcoords="offset points",
                ha="right" if group == ROW or below else "left",
                fontsize=8.5,
                zorder=6,
            )
        heights = [*y]
        if view.trade is not None:
            heights += self._draw_codes(view, max(x))
        (self.point,) = axes.plot(
            [view.damage.bits_per_weight],
            [view.damage.kl_nats],
            marker="o",
            markersize=14,
            linestyle="none",
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=2.2,
            zorder=5,
        )
        axes.set_xlim(min(x) - 0.25, max(x) + 0.2)
        _set_short_log_axis(axes, min(heights) / 1.4, max(heights) * 1.4)
        axes.grid(True, axis="y")
        axes.set_xlabel("size, metadata included (bits a weight)")
        axes.set_ylabel("KL (nats a token)")

    def _draw_codes(self, view: View, right: float) -> list[float]:
        """The dashed line from one scale a row to ``right``, and the lead; KL at both ends."""
        ends = code_line(self.bench, view.state)
        assert ends is not None and view.trade is not None
        row, wider = ends
        bits = wider.bits_per_weight - row.bits_per_weight
        factor = (max(wider.kl_nats, 1e-12) / max(row.kl_nats, 1e-12)) ** (1 / bits)
        last = row.kl_nats * factor ** (right - row.bits_per_weight)
        axes = self.trade
        axes.plot(
            [row.bits_per_weight, right],
            [row.kl_nats, last],
            color=INK,
            linestyle="--",
            linewidth=1.4,
            marker="",
            zorder=1,
        )
        axes.annotate(
            "same bits as wider codes",
            (right, last),
            xytext=(0, -5),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8.5,
        )
        place = [view.damage.bits_per_weight] * 2
        axes.plot(
            place,
            [view.damage.kl_nats, view.trade.code_kl_nats],
            color=INK,
            linewidth=2.2,
            marker="",
        )
        return [row.kl_nats, last / 1.25]  # below the line stands its name

    def _draw_weights(self, view: View) -> None:
        axes, bits = self.weights, view.state.bits
        axes.clear()
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        series = BY_BITS[bits]
        bins = 4 * (high - low + 2) if bits < 8 else 128
        counts, edges = np.histogram(
            view.steps.positions.numpy(), bins=bins, range=(low - 1, high + 1)
        )
        axes.stairs(counts / counts.max(), edges, fill=True, color=series.colour, alpha=0.75)
        first_tick = (high + 1) // 4 * 4 if bits > 2 else 1
        first = -high if "asym" not in view.scheme else low
        if bits < 8:
            axes.vlines(range(first, high + 1), -0.06, 1.05, color=INK, linewidth=0.8, zorder=0)
        axes.set(xlim=(low - 1, high + 1), ylim=(-0.06, 1.28), yticks=[], facecolor=CARD)
        axes.spines["left"].set_visible(False)
        axes.set_xticks(range(-first_tick, high + 1, max(1, (high + 1) // 4)))
        axes.set_xlabel("where weights lie between the codes (steps)")
        axes.set_title(
            f"{digits(view.steps.entropy_bits)} of {bits} bits in use", fontsize=10, color=INK
        )
        axes.axhline(0, color=GRID, linewidth=0.8)
        self._name_the_spike(counts / counts.max(), edges, high, first == -high)

    def _name_the_spike(self, heights: Any, edges: Any, high: int, symmetric: bool) -> None:
        """A group's largest weight gets the last code exactly, in groups small enough to show."""
        bar = int(np.searchsorted(edges, high, side="right")) - 1
        if heights[bar] < max(_SPIKE * heights[bar - 1], _VISIBLE):
            return
        self.weights.annotate(
            f"each group's {'largest' if symmetric else 'ends'}",
            (high, heights[bar] + 0.02),
            xytext=(high + 1, 1.25),
            ha="right",
            va="top",
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.8, "shrinkB": 0},
        )

    def png(self) -> bytes:
        """The picture as PNG."""
        self.pictures += 1
        return self.figure.png()
