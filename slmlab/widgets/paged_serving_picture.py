"""The scrubber's picture: the pool's blocks with their owners, and the whole run below."""

from __future__ import annotations

import itertools
from typing import Any

from matplotlib.patches import Rectangle

from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.paged_serving_bench import Recording
from slmlab.widgets.paged_serving_view import Runs, View, letter
from slmlab.widgets.plot_style import CARD, GRID, INK, SERIES, lesson_style, text_colour

COLUMNS = 8
USED, TWICE = SERIES[0], SERIES[1]


class PagedPicture:
    """Two axes, drawn anew at each `update`; pictures: how many were drawn."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.figure = CardFigure(figsize=(7.2, 4.6), dpi=100 * PIXELS_PER_POINT_SIZE)
        self.pictures = 0
        self._run: int | None = None
        with lesson_style():
            self.blocks = self.figure.add_axes((0.01, 0.43, 0.98, 0.43))
            self.time = self.figure.add_axes((0.09, 0.115, 0.80, 0.24))
            self.more = self.time.twinx()

    def update(self, view: View) -> None:
        """Show ``view``; nothing is drawn yet."""
        self.figure.alt = view.text
        events = f" {view.events[0]}" if view.events else ""
        self.figure.set_message(view.headline + events)
        with lesson_style():
            self._draw_blocks(view)
            if self._run != view.state.blocks:
                self._draw_run(self.runs.recordings[view.state.blocks], view.state.blocks)
                self._run = view.state.blocks
            self.cursor.set_xdata([view.state.at] * 2)

    def _draw_blocks(self, view: View) -> None:
        axes, frame = self.blocks, view.frame
        axes.clear()
        rows = -(-max(self.runs.pools) // COLUMNS)
        axes.set(xlim=(-0.05, COLUMNS + 0.05), ylim=(rows + 0.03, -0.05), xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        size = frame.block_size
        for block, (owners, filled) in enumerate(zip(frame.owners(), frame.filled(), strict=True)):
            x, y = block % COLUMNS, block // COLUMNS
            axes.add_patch(_box(x, y, 0.94, facecolor=CARD, edgecolor=GRID, linewidth=1.0))
            if not owners:
                text = "kept" if block in frame.cached else "free"
                _write(axes, x, y, text, color=INK, fontsize=8, alpha=0.75)
                continue
            look = SERIES[owners[0] % len(SERIES)]
            axes.add_patch(
                _box(x, y, 0.94 * filled / size, facecolor=look.colour, alpha=0.30, linewidth=0)
            )
            shared = len(owners) > 1
            axes.add_patch(
                _box(
                    x,
                    y,
                    0.94,
                    facecolor="none",
                    edgecolor=INK if shared else look.colour,
                    linewidth=2.2 if shared else 1.4,
                    hatch="///" if shared else None,
                    alpha=0.9,
                )
            )
            name = "".join(letter(i) for i in owners)
            _write(
                axes,
                x,
                y - 0.1 * (filled < size),
                name,
                color=text_colour(look.colour) if not shared else INK,
                weight="bold",
                fontsize=11 if len(name) < 5 else 8.5,
                bbox={"facecolor": CARD, "edgecolor": "none", "pad": 1.0} if shared else None,
            )
            if filled < size:
                _write(axes, x, y + 0.24, f"{size - filled} empty", fontsize=7.5)

    def _draw_run(self, run: Recording, blocks: int) -> None:
        axes, more = self.time, self.more
        axes.clear()
        more.clear()
        x = range(1, run.passes + 1)
        axes.stairs(run.used, range(run.passes + 1), fill=True, color=USED.colour, alpha=0.35)
        axes.axhline(blocks, color=INK, linewidth=1.0, linestyle=":")
        preempted = [
            i + 2
            for i, (a, b) in enumerate(itertools.pairwise(run.frames))
            if b.preemptions > a.preemptions
        ]
        axes.plot(
            preempted,
            [blocks * 1.1] * len(preempted),
            linestyle="none",
            marker="v",
            color=TWICE.colour,
            markersize=6,
            clip_on=False,
        )
        most = max(max(self.runs.twice(b)[-1] for b in self.runs.pools), 1)
        more.plot(x, self.runs.twice(blocks), color=TWICE.colour, marker="", linestyle="-")
        more.set_ylim(0, most * 1.15)
        more.yaxis.set_label_position("right")
        more.yaxis.tick_right()
        more.set_ylabel("computed twice\n(tokens)", color=text_colour(TWICE.colour))
        more.spines["right"].set_visible(True)
        axes.set(xlim=(0, run.passes), ylim=(0, blocks * 1.2), facecolor=CARD)
        axes.set_ylabel("used (blocks)", color=text_colour(USED.colour))
        axes.set_xlabel("time (forward passes)   triangles: a request gave its blocks back")
        self.cursor = axes.axvline(1, color=INK, linewidth=1.6)

    def png(self) -> bytes:
        """The picture as PNG."""
        self.pictures += 1
        return self.figure.png()


def _box(x: float, y: float, width: float, **look: Any) -> Rectangle:
    return Rectangle((x + 0.03, y + 0.05), width, 0.86, **look)


def _write(axes: Any, x: float, y: float, text: str, **look: Any) -> None:
    axes.text(x + 0.5, y + 0.45, text, ha="center", va="center", **look)
