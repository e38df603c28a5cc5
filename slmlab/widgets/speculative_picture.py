"""The replay's picture: rounds as rows of tokens, and below them the speed by draft length."""

from __future__ import annotations

from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator

from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.plot_style import CARD, INK, SERIES, lesson_style, spread, text_colour
from slmlab.widgets.speculative_bench import Bench
from slmlab.widgets.speculative_view import Box, View, best_measured

ROWS = 6
ACCEPTED, REJECTED, OWN = SERIES[0], SERIES[1], SERIES[2]
OTHERS = "#777777"  # the other kinds' lines
# A second cue beside the colour: the mark before the token.
MARKS = {"accepted": "\u25cf", "rejected": "\u2715", "unchecked": "\u2013", "own": "\u25a0"}
NAMES = {
    "accepted": "accepted",
    "rejected": "rejected",
    "unchecked": "thrown away",
    "own": "the target's own",
}
COLOURS = {
    "accepted": ACCEPTED.colour,
    "rejected": REJECTED.colour,
    "unchecked": OTHERS,
    "own": OWN.colour,
}


class ReplayPicture:
    """Two axes, drawn anew at each `update`; pictures: how many were drawn."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.figure = CardFigure(figsize=(7.2, 4.8), dpi=100 * PIXELS_PER_POINT_SIZE)
        self.pictures = 0
        with lesson_style():
            self.replay = self.figure.add_axes((0.01, 0.42, 0.98, 0.45))
            self.speed = self.figure.add_axes((0.09, 0.105, 0.72, 0.245))

    def update(self, view: View) -> None:
        """Show ``view``; nothing is drawn yet."""
        self.figure.alt = view.text
        self.figure.set_message(view.headline)
        with lesson_style():
            self._draw_replay(view)
            self._draw_speed(view)

    def _draw_replay(self, view: View) -> None:
        axes, columns = self.replay, max(self.bench.lengths) + 1
        axes.clear()
        axes.set(xlim=(-0.75, columns + 0.02), ylim=(ROWS + 0.75, -0.05), xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        first = max(0, len(view.rows) - ROWS)
        for row, boxes in enumerate(view.rows[first:]):
            number = first + row + 1
            now = number == view.state.at
            axes.text(
                -0.06,
                row + 0.5,
                f"round {number}",
                ha="right",
                va="center",
                fontsize=8,
                weight="bold" if now else "normal",
            )
            for column, box in enumerate(boxes):
                self._box(column, row, box, now)
        for place, kind in enumerate(MARKS):
            axes.text(
                (0.0, 1.9, 3.8, 6.1)[place] * columns / 9,
                ROWS + 0.45,
                f"{MARKS[kind]} {NAMES[kind]}",
                va="center",
                fontsize=9,
                color=text_colour(COLOURS[kind]),
            )

    def _box(self, column: int, row: int, box: Box, now: bool) -> None:
        colour, thrown = COLOURS[box.kind], box.kind in ("rejected", "unchecked")
        self.replay.add_patch(
            Rectangle(
                (column + 0.03, row + 0.1),
                0.94,
                0.8,
                facecolor=CARD if thrown else colour,
                alpha=0.25 if not thrown else 1.0,
                linewidth=0,
            )
        )
        self.replay.add_patch(
            Rectangle(
                (column + 0.03, row + 0.1),
                0.94,
                0.8,
                facecolor="none",
                edgecolor=colour,
                linewidth=2.0 if box.kind == "own" else 1.1,
                linestyle=":" if thrown else "-",
            )
        )
        self.replay.text(
            column + 0.5,
            row + 0.5,
            f"{MARKS[box.kind]} {box.text}",
            ha="center",
            va="center",
            fontsize=7.4,
            color=text_colour(colour) if thrown else INK,
            weight="bold" if now else "normal",
            parse_math=False,
            clip_on=True,
        )

    def _draw_speed(self, view: View) -> None:
        axes, bench, domain = self.speed, self.bench, view.state.domain
        axes.clear()
        lengths, races = bench.lengths, bench.races[domain]
        measured = [races[n].speedup for n in lengths]
        foreseen = [bench.costs.speedup(bench.alpha(domain), n) for n in lengths]
        ends = {
            "measured": (measured[-1], ACCEPTED.colour),
            "formula": (foreseen[-1], REJECTED.colour),
        }
        for name in bench.domains:
            if name != domain:
                others = [bench.races[name][n].speedup for n in lengths]
                axes.plot(lengths, others, color=OTHERS, marker="", linestyle="-", linewidth=1.2)
                ends[name] = (others[-1], OTHERS)
        axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=":")
        axes.plot(lengths, foreseen, color=REJECTED.colour, marker="", linestyle="--")
        axes.plot(lengths, measured, color=ACCEPTED.colour, marker="o", linestyle="-", markersize=6)
        axes.axvline(view.state.length, color=INK, linewidth=1.4)
        best = best_measured(races)
        axes.plot(
            [best],
            [races[best].speedup],
            marker="o",
            markersize=12,
            markerfacecolor="none",
            markeredgecolor=INK,
            linestyle="none",
        )
        everything = [
            value
            for name in bench.domains
            for n in lengths
            for value in (
                bench.races[name][n].speedup,
                bench.costs.speedup(bench.alpha(name), n),
            )
        ]
        low, high = min(*everything, 0.9), max(*everything, 1.1)
        axes.set(xlim=(lengths[0] - 0.3, lengths[-1] + 0.2), ylim=(low - 0.1, high + 0.15))
        axes.xaxis.set_major_locator(FixedLocator(lengths))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("draft length (tokens)   ring: the best measured")
        axes.set_ylabel("speed-up (times)")
        self._labels(ends)

    def _labels(self, ends: dict[str, tuple[float, str]]) -> None:
        """The lines' names at their ends, kept apart. ends: name -> (speed-up, colour)."""
        low, high = self.speed.get_ylim()
        heights = [y for y, _ in ends.values()]
        places = spread(heights, (high - low) * 0.15, low, high)
        for (name, (_, colour)), y in zip(ends.items(), places, strict=True):
            self.speed.annotate(
                name,
                (1.0, y),
                xycoords=("axes fraction", "data"),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=text_colour(colour),
                annotation_clip=False,
            )

    def png(self) -> bytes:
        """The picture as PNG."""
        self.pictures += 1
        return self.figure.png()
