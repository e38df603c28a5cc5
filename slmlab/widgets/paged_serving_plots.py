"""The two plots of lesson 05 that draw what a cell has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import SERIES, lesson_style, text_colour
from slmlab.widgets.roof import set_log_axis

EXPECTED, MEASURED = SERIES[1], SERIES[0]


def waste_plot(
    sizes: Sequence[int], expected: Sequence[float], measured: Sequence[float], message: str
) -> CardFigure:
    """Empty share of what was taken over the block size: what a rule expects, and what was measured.

    sizes: rising, in tokens. expected, measured: shares in 0 .. 1, one a size. message: the title.
    Raises ValueError for sequences of different lengths or fewer than two sizes.
    """
    if not 2 <= len(sizes) == len(expected) == len(measured):
        raise ValueError(
            f"sizes, expected and measured have {len(sizes)}, {len(expected)} and {len(measured)} "
            "entries; give two or more, and as many of each"
        )
    figure, axes = lesson_figure(7.2, 3.2, alt=message)
    figure.set_message(message)
    with lesson_style():
        for shares, look, line, marker in (
            (expected, EXPECTED, "--", ""),
            (measured, MEASURED, "none", "o"),
        ):
            percent = [100 * share for share in shares]
            axes.plot(sizes, percent, color=look.colour, linestyle=line, marker=marker)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.grid(True, axis="y")
        axes.set(xlabel="block (tokens)", ylabel="empty of what was taken (%)", ylim=(-3, 100))
        # Each label where its points leave room: the dots lie above the line only at the right end.
        for text, at, shares, look, offset in (
            ("half a block a request", len(sizes) // 3, expected, EXPECTED, (-10, 22)),
            ("measured", -2, measured, MEASURED, (0, 8)),
        ):
            axes.annotate(
                text,
                (sizes[at], 100 * shares[at]),
                xytext=offset,
                textcoords="offset points",
                ha="center",
                color=text_colour(look.colour),
            )
    return figure


def gaps_plot(gaps: Mapping[str, Sequence[float]], message: str) -> CardFigure:
    """The wait before each token of a stream, in ms, a line for each way; log scale.

    gaps: label -> positive milliseconds before token 2, 3, ..., one to five ways. message: the title. Raises ValueError
    for no ways, more than there are colours, or a gap that is not positive.
    """
    if not 1 <= len(gaps) <= len(SERIES):
        raise ValueError(f"gaps has {len(gaps)} ways; give 1 to {len(SERIES)}")
    if not all(series and min(series) > 0 for series in gaps.values()):
        raise ValueError("gaps must hold at least one wait for each way, all above 0 ms")
    figure, axes = lesson_figure(7.2, 2.8, alt=message)
    figure.set_message(message)
    with lesson_style():
        for (label, series), look in zip(gaps.items(), SERIES, strict=False):
            tokens = range(2, len(series) + 2)
            axes.plot(
                tokens,
                series,
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markersize=4,
            )
            longest = max(series)
            axes.annotate(
                label,
                (tokens[list(series).index(longest)], longest),
                xytext=(10, 5),
                textcoords="offset points",
                color=text_colour(look.colour),
            )
        every = [gap for series in gaps.values() for gap in series]
        set_log_axis(axes.yaxis, min(every) / 1.5, 2 * max(every))
        axes.set(xlabel="token of the stream (count)", ylabel="gap before it (ms)")
    return figure
