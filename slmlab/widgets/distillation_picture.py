"""The picture of lesson 07's explorer: both distributions, and the pull on every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.collections import PolyCollection
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.distillation_view import View
from slmlab.widgets.plot_style import CARD, INK, SERIES, lesson_style, text_colour

TEACHER, STUDENT, UP, DOWN = SERIES[0], SERIES[1], SERIES[2], SERIES[3]
_ABOVE = 1.055  # of an axes' height: the line of names


class PullPicture:
    """Two axes. An `update` moves bars and words; pictures: how many were drawn."""

    def __init__(self) -> None:
        self.figure = CardFigure(figsize=(7.2, 4.9), dpi=100 * PIXELS_PER_POINT_SIZE)
        self.pictures = 0
        with lesson_style():
            self.probabilities: Any = self.figure.add_axes((0.155, 0.11, 0.37, 0.71))
            self.pull: Any = self.figure.add_axes((0.57, 0.11, 0.405, 0.71))
            # One artist a colour: drawing many small ones is what takes time.
            self._bars: dict[str, Any] = {
                kind: axes.add_collection(
                    PolyCollection(
                        [],
                        facecolors=series.colour,
                        hatch=series.hatch,
                        edgecolors=CARD,
                        linewidths=0,
                    )
                )
                for kind, axes, series in (
                    ("teacher", self.probabilities, TEACHER),
                    ("student", self.probabilities, STUDENT),
                    ("up", self.pull, UP),
                    ("down", self.pull, DOWN),
                )
            }
            self._prepare()

    def _prepare(self) -> None:
        axes, pull = self.probabilities, self.pull
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("probability at this temperature (%)")
        pull.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(100 * value):.0f}"))
        pull.xaxis.set_major_locator(FixedLocator((-1, -0.5, 0, 0.5, 1)))
        pull.yaxis.set_major_locator(NullLocator())
        pull.set_xlim(-1.02, 1.02)
        pull.set_xlabel("share of the pull on the logits (%)")
        pull.axvline(0, color=INK, linewidth=1)
        self._line = pull.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        self._below = pull.text(0.98, 0, "below: the student's", ha="right", va="top", fontsize=8)
        self._others = axes.text(0.99, 0, "", ha="right", va="center", fontsize=8.5)
        self._others.set_transform(axes.get_yaxis_transform())
        for where, x, series, name in (
            (axes, 0.0, TEACHER, "\u25a0 teacher"),
            (axes, 0.4, STUDENT, "\u25a8 student"),
            (pull, 0.02, DOWN, "\u25c4 pulled down"),
            (pull, 0.98, UP, "pulled up \u25ba"),
        ):
            where.text(
                x,
                _ABOVE,
                name,
                transform=where.transAxes,
                ha="right" if series is UP else "left",
                va="center",
                fontsize=9,
                color=text_colour(series.colour),
            )

    def update(self, view: View) -> None:
        """Show ``view``; nothing is drawn yet."""
        self.figure.alt = view.text
        self.figure.set_message(view.headline)
        rows, single = view.rows, view.rows[:-1]
        bars = self._bars
        bars["teacher"].set_verts(_bars([row.teacher for row in single], -0.39, 0.0))
        bars["student"].set_verts(_bars([row.student for row in single], 0.0, 0.39))
        bars["up"].set_verts(_bars([row.up for row in rows], -0.36, 0.36))
        bars["down"].set_verts(_bars([-row.down for row in rows], -0.36, 0.36))
        last, ten = rows[-1], sum(row.kind == "favourite" for row in rows)
        with lesson_style():
            axes = self.probabilities
            axes.set_xlim(0, 1.1 * max(max(row.teacher, row.student) for row in single))
            axes.set_yticks(range(len(rows)), [row.token for row in rows], parse_math=False)
            for part in (axes, self.pull):
                part.set_ylim(len(rows) - 0.4, -0.6)
            self._others.set_text(f"teacher {last.teacher:.0%}, student {last.student:.0%}")
            self._others.set_y(len(rows) - 1)
            self._line.set_ydata([ten - 0.5, ten - 0.5])
            self._below.set_y(ten - 0.4)
            self._below.set_visible(ten < len(single))

    def png(self) -> bytes:
        """The picture as PNG."""
        self.pictures += 1
        return self.figure.png()


def _bars(values: Sequence[float], low: float, high: float) -> list[list[tuple[float, float]]]:
    """Corners of horizontal bars from 0, one a row; too short ones to see are left out."""
    return [
        [(0, y + low), (value, y + low), (value, y + high), (0, y + high)]
        for y, value in enumerate(values)
        if abs(value) > 1e-5
    ]
