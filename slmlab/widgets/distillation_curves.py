"""Students of lesson 07 while they learn, and before: held-out KL over tokens, and by cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import INK, SERIES, label_axes, lesson_style, spread, text_colour
from slmlab.widgets.units import digits

Curve = Sequence[tuple[float, float]]


def learning_curves(
    curves: Mapping[str, Curve],
    title: str,
    levels: Mapping[str, float] | None = None,
    predicted: float | None = None,
    low: float = 0.0,
) -> CardFigure:
    """Held-out KL over predictions learned from: name -> (tokens, nats).

    levels: name -> a height that is drawn as a dotted line. predicted: the reader's, drawn dashed.
    low: where the axis begins.
    """
    figure, axes = lesson_figure(7.2, 3.6, alt=title)
    names: list[tuple[str, float, str]] = []
    with lesson_style():
        figure.set_message(title)
        last = max(x for curve in curves.values() for x, _ in curve)
        for series, (name, curve) in zip(SERIES, curves.items(), strict=False):
            x, y = zip(*curve, strict=True)
            axes.plot(x, y, color=series.colour, marker=series.marker, linestyle=series.line)
            names.append((f"{name}: {digits(y[-1])}", y[-1], text_colour(series.colour)))
        marks = {name: (height, ":") for name, height in (levels or {}).items()}
        if predicted is not None:
            marks["you predicted"] = (predicted, "--")
        for name, (height, line) in marks.items():
            axes.axhline(height, color=INK, linewidth=1, linestyle=line, xmax=0.71)
            names.append((f"{name}: {digits(height)}", height, INK))
        axes.set_xlim(-0.02 * last, 1.42 * last)
        top = max(
            *(y for curve in curves.values() for _, y in curve),
            *(h for h, _ in marks.values()),
            low,
        )
        axes.set_ylim(low, low + 1.06 * (top - low))
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= last])
        heights = spread([y for _, y, _ in names], 0.075 * (top - low), low, top)
        for (name, _, colour), height in zip(names, heights, strict=True):
            axes.text(1.03 * last, height, name, color=colour, va="center", fontsize=9)
        label_axes(axes, "predictions learned from", "tokens", "KL to the teacher", "nats a token")
    return figure


def cut_bars(rules: Mapping[str, tuple[Sequence[int], float]], trained: float) -> CardFigure:
    """KL of untrained students by the rule that chose their layers: rule -> (layers, nats).

    trained: KL that training reached from the evenly spaced layers.
    """
    ordered = sorted(rules, key=lambda rule: rules[rule][1])
    low, high = ordered[0], ordered[-1]
    title = (
        f"Same size, untrained: {digits(rules[low][1])} nats from layers {_list(rules[low][0])}, "
        f"{digits(rules[high][1])} from {_list(rules[high][0])}"
    )
    figure, axes = lesson_figure(7.2, 2.9, alt=title)
    with lesson_style():
        figure.set_message(title)
        for place, (layers, kl) in enumerate(rules.values()):
            series = SERIES[place % len(SERIES)]
            axes.barh(
                place, kl, color=series.colour, hatch=series.hatch, edgecolor="white", linewidth=0
            )
            axes.text(
                kl, place, f"  {digits(kl)} (layers {_list(layers)})", va="center", fontsize=9
            )
        axes.axvline(trained, color=INK, linewidth=1, linestyle=":")
        axes.text(trained, -0.75, "after training above", ha="center", va="bottom", fontsize=8.5)
        axes.set_xscale("log")
        values = [kl for _, kl in rules.values()]
        axes.set_xlim(min(*values, trained) / 2, max(*values, trained) * 9)
        axes.set_yticks(range(len(rules)), list(rules))
        axes.set_ylim(len(rules) - 0.4, -0.75)
        label_axes(axes, "KL to the teacher before training", "nats a token")
    return figure


def _list(layers: Sequence[int]) -> str:
    shown = ", ".join(map(str, layers))
    return shown if len(layers) <= 6 else f"{layers[0]} ... {layers[-1]}"


def steps_of(history: Any, tokens_a_step: int) -> list[tuple[float, float]]:
    """(tokens, value) of a `Distiller` history's evaluations."""
    return [(step * tokens_a_step, values["value"]) for step, values in history.evaluations]
