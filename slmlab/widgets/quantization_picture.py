"""The explorer's picture: weights between the codes of one matrix, and the frontier of all schemes."""

from __future__ import annotations

from typing import Any

import numpy as np

from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.plot_style import CARD, GRID, INK, SERIES, lesson_style, text_colour
from slmlab.widgets.quantization_bench import Bench, Damage
from slmlab.widgets.quantization_view import BITS, GROUPS, ROW, State, View, scheme_of
from slmlab.widgets.roof import set_log_axis
from slmlab.widgets.units import digits

BY_BITS = dict(zip(BITS, SERIES, strict=False))
_LABELLED = (ROW, 32)


def frontier_lines(bench: Bench, bits: tuple[int, ...] = BITS) -> dict[int, list[Damage]]:
    """Of each width: the damage at every group size, one scale a row first, symmetric."""
    return {
        b: [bench.damage(scheme_of(State(b, g), bench.longest_row)) for g in GROUPS] for b in bits
    }


def draw_frontier(axes: Any, lines: dict[int, list[Damage]], *, labels: bool = True) -> None:
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
        if labels:
            for group, a, b in zip(GROUPS, x, y, strict=True):
                if group not in _LABELLED:
                    continue
                axes.annotate(
                    str(group), (a, b), xytext=(5, 5), textcoords="offset points", fontsize=8.5
                )
    axes.margins(x=0.13)  # room for the names left of the lines
    numbers = [p.kl_nats for points in lines.values() for p in points]
    set_log_axis(axes.yaxis, min(numbers) / 2, max(numbers) * 2.5)
    axes.grid(True, axis="y")
    axes.set_xlabel("size, metadata included (bits a weight)")
    axes.set_ylabel("KL (nats a token)")


class QuantizationPicture:
    """Two axes, made anew at each `update`; `png` draws them. pictures: how many were drawn."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.lines = frontier_lines(bench)
        self.figure = CardFigure(figsize=(7.2, 4.4), dpi=100 * PIXELS_PER_POINT_SIZE)
        self.title = self.figure.set_message("")
        self.pictures = 0
        with lesson_style():
            self.weights = self.figure.add_axes((0.02, 0.155, 0.42, 0.68))
            self.frontier = self.figure.add_axes((0.555, 0.155, 0.43, 0.68))
            draw_frontier(self.frontier, self.lines)
            (self.point,) = self.frontier.plot(
                [],
                [],
                marker="o",
                markersize=14,
                linestyle="none",
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=2.2,
                zorder=5,
            )

    def update(self, view: View) -> None:
        """Show ``view``; nothing is drawn yet."""
        self.point.set_data([view.damage.bits_per_weight], [view.damage.kl_nats])
        verdict = ""
        if view.trade is not None:
            verdict = ": metadata pays" if view.trade.pays else ": metadata no longer pays"
        self.title = self.figure.set_message(
            f"{view.scheme} takes {digits(view.damage.bits_per_weight, 4)} bits a weight and costs "
            f"{digits(view.damage.kl_nats)} nats a token{verdict}"
        )
        self.figure.alt = view.text
        with lesson_style():
            self._draw_weights(view)

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
        axes.set(xlim=(low - 1, high + 1), ylim=(-0.06, 1.08), yticks=[], facecolor=CARD)
        axes.spines["left"].set_visible(False)
        axes.set_xticks(range(-first_tick, high + 1, max(1, (high + 1) // 4)))
        axes.set_xlabel("where weights lie between the codes (steps)")
        axes.set_title(
            f"{digits(view.steps.entropy_bits)} of {bits} bits in use", fontsize=10, color=INK
        )
        axes.axhline(0, color=GRID, linewidth=0.8)

    def png(self) -> bytes:
        """The picture as PNG."""
        self.pictures += 1
        return self.figure.png()
