"""Lesson 04's pictures of what a smaller cache costs: recall, loud channels, bytes against KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import SERIES, lesson_style

Point = tuple[str, float, float]  # label, bytes (% of the full cache), KL (nats a token)


def recall_by_window(
    windows: Sequence[int | None],
    shares: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    foreseen: Sequence[float],
    samples: int,
    message: str,
) -> CardFigure:
    """Share recalled at each window with its 95% interval, and, dotted, what distance foresees.

    windows: tokens, None for all. shares, foreseen, intervals: 0 .. 1.
    """
    figure, axes = lesson_figure(7.2, 3.3)
    figure.set_message(message)
    places = range(len(windows))
    low = [share - least for share, (least, _) in zip(shares, intervals, strict=True)]
    high = [most - share for share, (_, most) in zip(shares, intervals, strict=True)]
    blue, red = SERIES[:2]
    with lesson_style():
        axes.errorbar(
            places,
            shares,
            yerr=(low, high),
            color=blue.colour,
            marker=blue.marker,
            linestyle="none",
            capsize=4,
            label=f"recalled (n = {samples}; bars: 95% interval, Wilson)",
        )
        axes.plot(
            places,
            foreseen,
            color=red.colour,
            linestyle=":",
            marker="_",
            markersize=16,
            label="the pair still lies in the window",
        )
        axes.set_xticks(places, ["all" if w is None else str(w) for w in windows])
        axes.set(ylim=(-0.05, 1.08), xlabel="window (tokens)", ylabel="samples (share)")
        axes.legend(loc="lower right")
    named = ("all" if w is None else str(w) for w in windows)
    said = "; ".join(f"{w} {share:.0%}" for w, share in zip(named, shares, strict=True))
    figure.alt = f"{message}. Recalled at each window: {said}."
    return figure


def keys_beside_values(
    sizes: Tensor, loudest: Sequence[float], message: str, tokens: int = 96
) -> CardFigure:
    """Magnitudes of one head. sizes: (keys or values, tokens, channels); the first are shown.

    loudest: of keys and of values, the loudest channel over the mean channel.
    """
    figure = CardFigure(figsize=(7.2, 3.5), layout="constrained")
    figure.set_message(message)
    with lesson_style():
        both = figure.subplots(1, 2, sharey=True)
        for axes, picture, name, most in zip(both, sizes, ("keys", "values"), loudest, strict=True):
            image = axes.imshow(
                picture[:tokens].numpy(), aspect="auto", cmap="Greys", interpolation="nearest"
            )
            axes.set_title(f"{name}: loudest channel {most:.1f} x the mean", fontsize=10)
            axes.set_xlabel("channel (index)")
            figure.colorbar(image, ax=axes, label="magnitude", shrink=0.8)
        both[0].set_ylabel("position (tokens)")
    figure.alt = (
        f"{message}. Loudest channel over the mean: keys {loudest[0]:.1f}, values {loudest[1]:.1f}."
    )
    return figure


def bytes_and_damage(lines: Mapping[str, Sequence[Point]], message: str) -> CardFigure:
    """KL against bytes, log KL, one line a way to save bytes; each point with its label."""
    figure, axes = lesson_figure(7.2, 3.8)
    figure.set_message(message)
    with lesson_style():
        for series, (name, points) in zip(SERIES, lines.items(), strict=False):
            labels, bytes_, kls = zip(*points, strict=True)
            axes.plot(
                bytes_,
                kls,
                color=series.colour,
                marker=series.marker,
                linestyle=series.line,
                label=name,
            )
            for label, across, kl in zip(labels, bytes_, kls, strict=True):
                axes.annotate(
                    label,
                    (across, kl),
                    xytext=(5, 4),
                    textcoords="offset points",
                    fontsize=8.5,
                )
        axes.set(yscale="log", xlabel="bytes (% of the float32 cache)")
        axes.set_ylabel("KL (nats a token)")
        axes.legend(loc="center right")
        axes.margins(x=0.15, y=0.12)
    said = "; ".join(
        f"{name}, {label}: {across:.1f}% of the bytes, KL {kl:.2g}"
        for name, points in lines.items()
        for label, across, kl in points
    )
    figure.alt = f"{message}. {said}."
    return figure
