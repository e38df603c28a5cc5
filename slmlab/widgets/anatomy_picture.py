"""The explorer's picture: a roofline with one point, and weights against cache in bytes a step."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from slmlab.widgets.anatomy_view import View
from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.plot_style import CARD, INK, SERIES, STYLE, lesson_style, text_colour
from slmlab.widgets.roof import Roof
from slmlab.widgets.units import bytes_text, digits

POINT, WEIGHTS, CACHE = SERIES[0], SERIES[0], SERIES[1]
# The same frame for every device of the table, so that the roof moves and not the axes.
INTENSITY = (0.25, 1024.0)
RATE = (2.0, 2e6)


class AnatomyPicture:
    """Artists are made once and moved by `update`; `png` draws only what can move.

    pictures: how many were drawn. ``figure.draws``: how often everything was, axes and ticks too.
    """

    def __init__(self) -> None:
        self.figure = CardFigure(figsize=(7.2, 4.7), dpi=100 * PIXELS_PER_POINT_SIZE)
        self.pictures = 0
        self._still: Any = None
        self.title = self.figure.set_message("")
        with lesson_style():
            self.axes = self.figure.add_axes((0.14, 0.325, 0.835, 0.56))
            self.roof = Roof(self.axes, INTENSITY, RATE)
            (self.point,) = self.axes.plot(
                [],
                [],
                marker=POINT.marker,
                markersize=11,
                linestyle="none",
                color=POINT.colour,
                markerfacecolor=CARD,
                markeredgewidth=2.5,
                zorder=4,
            )
            self.point_text = self.axes.text(
                0,
                0,
                "",
                color=text_colour(POINT.colour),
                va="top",
                weight="bold",
                bbox={"facecolor": CARD, "edgecolor": "none", "pad": 0.8, "alpha": 0.9},
                zorder=5,
            )
            self.bars = self.figure.add_axes((0.14, 0.03, 0.835, 0.165))
            self.bars.set(xlim=(0, 1.28), ylim=(1.55, -0.95), xticks=[], yticks=[])
            self.bars.set_yticks([0, 1], ["weights", "KV cache"])
            self.bars.tick_params(axis="y", length=0)
            self.bars.spines[["bottom", "left"]].set_visible(False)
            self.bars.text(0, -0.95, "bytes read in a step", va="center", fontsize=10)
            self.rectangles = self.bars.barh(
                [0, 1],
                [0, 0],
                height=0.66,
                color=[WEIGHTS.colour, CACHE.colour],
                hatch=[WEIGHTS.hatch, CACHE.hatch],
                edgecolor=CARD,
            )
            self.bar_texts = [self.bars.text(0, row, "", va="center", color=INK) for row in (0, 1)]

    def update(self, view: View) -> None:
        """Move everything to where ``view`` has it; nothing is drawn yet."""
        p = view.prediction
        x, y = p.intensity_flop_per_byte, view.gflop_s
        self._include(x, y)
        self.roof.move(p.bandwidth_gb_s, p.peak_gflop_s)
        self.point.set_data([x], [y])
        left, right = self.roof.x
        # Below the roof is room: to the right of the point, or to its left near the right edge.
        to_left = x > left * (right / left) ** 0.7
        self.point_text.set_position((x / 1.25 if to_left else x * 1.25, y / 1.9))
        self.point_text.set_horizontalalignment("right" if to_left else "left")
        self.point_text.set_text(f"{digits(p.tokens_per_second)} tokens/s")
        amounts = (p.weight_bytes, p.kv_bytes)
        for rectangle, text, amount in zip(self.rectangles, self.bar_texts, amounts, strict=True):
            share = amount / max(amounts)
            rectangle.set_width(share)
            text.set_x(share + 0.012)
            text.set_text(bytes_text(amount))
        self.title = self.figure.set_message(
            f"{view.state.model}, {view.state.scheme}, {view.state.context:,} tokens, batch "
            f"{view.state.batch} on {view.state.device}: {p.limiting} is the limit"
        )
        self.figure.alt = view.text

    def _include(self, x: float, y: float) -> None:
        # A loaded model or a measured machine may lie outside the table's frame.
        (left, right), (bottom, top) = self.roof.x, self.roof.y
        wanted = (
            (min(left, x / 2), max(right, x * 2)),
            (min(bottom, y / 4), max(top, y * 2)),
        )
        if wanted != (self.roof.x, self.roof.y):
            self.roof.frame(*wanted)
            self._still = None

    def png(self) -> bytes:
        """The picture as PNG, the same as ``figure.png()`` in half the time."""
        self.pictures += 1
        canvas = self.figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)  # CardFigure gives itself this one
        moving = self._moving()
        if self._still is None:
            for artist in moving:
                artist.set_animated(True)
            canvas.draw()
            self._still = canvas.copy_from_bbox(self.figure.bbox)
            for artist in moving:
                artist.set_animated(False)
        canvas.restore_region(self._still)
        with matplotlib.rc_context(STYLE):
            for artist in moving:
                artist.draw(canvas.get_renderer())
        buffer = io.BytesIO()
        picture = Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])
        picture.save(buffer, format="png", compress_level=3)
        return buffer.getvalue()

    def _moving(self) -> list[Any]:
        """What `update` changes, in the order in which it is drawn."""
        return [
            self.title,
            self.roof.line,
            self.roof.ridge,
            *self.rectangles,
            *self.bar_texts,
            self.roof.slope_text,
            self.roof.flat_text,
            self.roof.ridge_text,
            self.point,
            self.point_text,
        ]
