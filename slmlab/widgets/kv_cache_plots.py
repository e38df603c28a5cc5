"""Lesson 04's pictures of bytes and time: shared heads, a token's cost, a growing cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slmlab.kv import kv_bytes
from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import (
    INK,
    SERIES,
    label_at_end,
    lesson_style,
    text_colour,
)
from slmlab.widgets.units import digits

Lines = Mapping[str, Sequence[float]]


def shared_heads(shapes: Mapping[str, Any]) -> CardFigure:
    """A bar a model: its cache of one token in float16, and, hatched, what it would be if every
    query head had keys and values of its own. shapes: name -> config."""
    stored = {name: kv_bytes(shape, 1) / 1024 for name, shape in shapes.items()}
    factors = {
        name: c.num_attention_heads / (c.num_key_value_heads or c.num_attention_heads)
        for name, c in shapes.items()
    }
    best = max(factors, key=lambda name: factors[name])
    message = f"Sharing heads makes the cache of {best} {factors[best]:.0f} times smaller"
    widest = max(stored[name] * factors[name] for name in shapes)
    figure, axes = lesson_figure(7.2, 3.4)
    figure.set_message(message)
    said = []
    with lesson_style():
        for place, (name, factor) in enumerate(factors.items()):
            unshared = stored[name] * factor
            axes.barh(place, unshared, color="none", edgecolor=INK, hatch="///")
            axes.barh(place, stored[name], color=SERIES[0].colour)
            if factor == 1:
                note = f"{digits(stored[name])} KiB, 1 query head a KV head"
            else:
                note = f"{digits(stored[name])} of {digits(unshared)} KiB, {factor:.0f} query heads a KV head"
            axes.text(unshared, place, f"  {note}", va="center", fontsize=9)
            said.append(f"{name} {note}")
        axes.set_yticks(range(len(shapes)), list(shapes))
        axes.invert_yaxis()
        axes.set_xlim(0, widest * 1.75)
        axes.set_xlabel(
            "cache of one token, float16 (KiB); hatched: if every query head had its own"
        )
    figure.alt = f"{message}. {'; '.join(said)}."
    return figure


def token_cost(
    positions: Sequence[int], measured: Lines, bounds: Lines, message: str
) -> CardFigure:
    """Milliseconds of a token against its position, log axes; dotted: the least possible.

    measured, bounds: name -> ms at each position; the same names in the same order.
    """
    figure, axes = lesson_figure(7.2, 3.6)
    figure.set_message(message)
    with lesson_style():
        axes.set(xscale="log", yscale="log", xlim=(positions[0] / 1.2, positions[-1] * 3.2))
        for series, (name, line) in zip(SERIES, measured.items(), strict=False):
            axes.plot(positions, bounds[name], color=series.colour, linestyle=":", marker="")
            (drawn,) = axes.plot(
                positions, line, color=series.colour, marker=series.marker, linestyle="-"
            )
            label_at_end(drawn, name)
        _token_ticks(axes, positions)
        axes.set_xlabel("position (tokens); dotted: the least this machine can take")
        axes.set_ylabel("time of the token (ms)")
    ends = "; ".join(f"{name} {line[-1]:.3g} ms" for name, line in measured.items())
    figure.alt = f"{message}. At position {positions[-1]}: {ends}."
    return figure


def growing_caches(
    counted: Sequence[int],
    written: Lines,
    formulas: Lines,
    lengths: Sequence[int],
    pauses: Lines,
    message: str,
) -> CardFigure:
    """Two ways to grow: bytes written so far (left, dotted: formulas), ms of one append (right).

    counted: tokens at which ``written`` and ``formulas`` hold bytes; lengths: tokens in the cache
    at which ``pauses`` holds milliseconds.
    """
    figure = CardFigure(figsize=(7.2, 3.4), layout="constrained")
    figure.set_message(message)
    with lesson_style():
        left, right = figure.subplots(1, 2)
        for series, name in zip(SERIES, written, strict=False):
            look = {"color": series.colour, "marker": series.marker}
            left.plot(counted, formulas[name], color=series.colour, linestyle=":", marker="")
            left.plot(counted, written[name], linestyle="none", **look)
            left.annotate(
                name,
                (counted[-1], written[name][-1]),
                (-10, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                color=text_colour(series.colour),
            )
            right.plot(lengths, pauses[name], linestyle=series.line, **look)
        left.set(xscale="log", yscale="log", ylabel="written so far (bytes)")
        _token_ticks(left, counted)
        left.set_xlabel("so far (tokens)")
        left.set_title("dotted: n (n + 1) / 2 and n tokens", fontsize=10)
        right.set(xscale="log", yscale="log", ylabel="one token more (ms)")
        right.set_xlabel("in the cache (tokens)")
        right.set_title("the same two caches in time", fontsize=10)
        _token_ticks(right, lengths)
    ends = "; ".join(f"{name} {line[-1]:.3g} ms" for name, line in pauses.items())
    figure.alt = f"{message}. One token more at {lengths[-1]:,} tokens: {ends}."
    return figure


def _token_ticks(axes: Any, tokens: Sequence[int]) -> None:
    axes.set_xticks(tokens, [f"{n:,}" for n in tokens])
    axes.minorticks_off()
