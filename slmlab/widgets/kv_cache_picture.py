"""The explorer's picture: memory over context for one model, in every kind of cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.kv_cache_view import (
    KINDS,
    MEMORY_GB,
    View,
    cache_bytes,
    tokens_text,
    window_tokens,
)
from slmlab.widgets.plot_style import CARD, GRID, INK, SERIES, lesson_style, spread, text_colour
from slmlab.widgets.units import digits

BY_KIND = dict(zip(KINDS, SERIES, strict=True))
_DRAWN = tuple(2**k for k in range(7, 19))
_LOW, _HIGH = 0.05, 64.0  # GB
_TICKS_GB = (0.1, 0.5, 1, 2, 4, 8, 16, 32, 64)
_TICKS_TOKENS = (128, 1024, 8192, 65536)


class KVCachePicture:
    """One axes, moved at each `update`; `png` draws it. pictures: how many were drawn."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        self.models = models
        self.figure = CardFigure(figsize=(7.2, 4.2), dpi=100 * PIXELS_PER_POINT_SIZE)
        self.figure.set_message("")
        self.pictures = 0
        with lesson_style():
            self.axes = self.figure.add_axes((0.09, 0.13, 0.78, 0.76))

    def update(self, view: View) -> None:
        """Show ``view``; nothing is drawn yet."""
        self.figure.set_message(_message(view))
        self.figure.alt = view.text
        with lesson_style():
            self._draw(view)

    def _draw(self, view: View) -> None:
        axes, state = self.axes, view.state
        axes.clear()
        axes.set(xscale="log", yscale="log", xlim=(_DRAWN[0], _DRAWN[-1]), ylim=(_LOW, _HIGH))
        self._memories(view)
        ends = {kind: self._line(view, kind) for kind in KINDS}
        height = axes.get_position().height * self.figure.get_figheight() * 72
        gap = 11 / height
        lifted = spread([_share(end) for end in ends.values()], gap, 0.0, 1.0)
        for kind, share in zip(ends, lifted, strict=True):
            chosen = kind == state.kind
            axes.text(
                1.015,
                share,
                kind,
                transform=axes.transAxes,
                va="center",
                color=text_colour(BY_KIND[kind].colour),
                weight="bold" if chosen else "normal",
            )
        here = (view.weight_bytes + view.cache_bytes) / 1e9
        series = BY_KIND[state.kind]
        axes.plot(
            [state.context],
            [here],
            marker="o",
            markersize=13,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=2.2,
            linestyle="none",
            zorder=6,
        )
        inside = [(n, gb) for gb, n in view.fits.items() if n and _DRAWN[0] <= n <= _DRAWN[-1]]
        axes.plot(
            [n for n, _ in inside],
            [gb for _, gb in inside],
            marker=series.marker,
            linestyle="none",
            color=series.colour,
            zorder=5,
        )
        for axis, ticks in ((axes.xaxis, _TICKS_TOKENS), (axes.yaxis, _TICKS_GB)):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: digits(value, 6)))
        axes.set_xlabel("context of each conversation (tokens)")
        axes.set_ylabel("weights and cache (GB)")

    def _memories(self, view: View) -> None:
        for memory in MEMORY_GB:
            self.axes.axhline(memory, color=GRID, linewidth=1.2, zorder=0)
            held = tokens_text(view.fits[memory])
            self._note(_DRAWN[0] * 1.12, memory * 1.05, f"{memory} GB: {held}", "left")
        weights = view.weight_bytes / 1e9
        self.axes.axhline(weights, color=INK, linewidth=1.0, linestyle=":", zorder=1)
        if weights > _LOW:
            self._note(_DRAWN[-1] / 1.12, weights / 1.06, "weights alone", "right", "top")

    def _note(self, x: float, y: float, text: str, side: str, edge: str = "bottom") -> None:
        """Small text that stays readable where a line runs behind it."""
        behind = {"facecolor": CARD, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
        self.axes.text(x, y, text, ha=side, va=edge, fontsize=9, bbox=behind, zorder=7)

    def _line(self, view: View, kind: str) -> float:
        state, series = view.state, BY_KIND[kind]
        config, window = self.models[state.model], window_tokens(state.window)
        heights = [
            (view.weight_bytes + cache_bytes(config, n, state.batch, kind, window)) / 1e9
            for n in _DRAWN
        ]
        chosen = kind == state.kind
        self.axes.plot(
            _DRAWN,
            heights,
            color=series.colour,
            linestyle=series.line if not chosen else "-",
            linewidth=2.6 if chosen else 1.1,
            marker="",
            zorder=4 if chosen else 2,
        )
        return heights[-1]

    def png(self) -> bytes:
        """The picture as PNG."""
        self.pictures += 1
        return self.figure.png()


def _share(gigabytes: float) -> float:
    """Height on the axes, 0 .. 1."""
    return min(max(math.log(gigabytes / _LOW) / math.log(_HIGH / _LOW), 0.0), 1.0)


def _message(view: View) -> str:
    state = view.state
    weights = f"{state.model} in {state.weights}"
    for memory, held in view.fits.items():
        if held != 0:
            each = "" if state.batch == 1 else f" in each of {state.batch} conversations"
            length = "text of any length" if held is None else tokens_text(held)
            return f"{memory} GB hold {weights} and {length} in a {state.kind} cache{each}"
    return f"{weights} does not fit in {MEMORY_GB[-1]} GB beside a cache of {state.kind}"
