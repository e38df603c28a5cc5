"""The plots of lesson 07: soft targets, entropies, pulls and two modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure, lesson_figure
from slmlab.widgets.plot_style import INK, SERIES, label_axes, lesson_style, text_colour
from slmlab.widgets.speculative_view import visible
from slmlab.widgets.units import digits


def soft_targets(
    logits: Tensor,
    decode: Callable[[list[int]], str],
    prompt: str,
    temperatures: Sequence[float] = (1.0, 2.0, 4.0),
    tokens: int = 8,
) -> CardFigure:
    """A teacher's distribution for one position at some temperatures. logits: (V,)."""
    favourites = logits.topk(tokens).indices
    masses = [float((logits / t).softmax(-1)[favourites].sum()) for t in temperatures]
    title = (
        f"After {prompt!r}, {tokens} tokens hold {masses[0]:.0%}; "
        f"at T = {digits(temperatures[-1])}, {masses[-1]:.0%}"
    )
    figure = _card(3.4, title)
    with lesson_style():
        all_axes = figure.subplots(1, len(temperatures), sharey=True)
        labels = [visible(decode([int(token)]), 12) for token in favourites]
        for axes, series, temperature in zip(all_axes, SERIES, temperatures, strict=False):
            p = (logits / temperature).softmax(-1)
            values = [100 * float(p[token]) for token in favourites]
            axes.barh(
                range(tokens),
                values,
                color=series.colour,
                hatch=series.hatch,
                edgecolor="white",
                linewidth=0,
            )
            for y, value in enumerate(values):
                axes.text(value, y, f" {digits(value, 2)}", va="center", fontsize=8.5)
            entropy = float(-(p * p.log()).sum())
            axes.set_title(f"T = {digits(temperature)}, entropy {entropy:.2f} nats", fontsize=10)
            axes.set(xlim=(0, max(values) * 1.25), xlabel="probability (%)")
        all_axes[0].set_yticks(range(tokens), labels, parse_math=False)
        all_axes[0].set_ylim(tokens - 0.4, -0.6)
    return figure


def entropies(logits: Tensor, temperatures: Sequence[float]) -> CardFigure:
    """Entropy of the teacher's answers over the temperature: the mean, and the middle 80% of
    positions. logits: (N, V)."""
    rows = []
    for temperature in temperatures:
        log_p = (logits / temperature).log_softmax(-1)
        rows.append(-(log_p.exp() * log_p).sum(-1))
    means = [float(row.mean()) for row in rows]
    limit = float(torch.tensor(float(logits.shape[-1])).log())
    spare = [limit - mean for mean in means]
    at_four = min(range(len(means)), key=lambda i: abs(temperatures[i] - 4))
    title = (
        f"At T = {digits(temperatures[at_four])} the teacher's entropy is {digits(spare[at_four], 2)} "
        f"nats below the maximum; at T = 1, {digits(spare[_nearest(temperatures, 1)], 2)}"
    )
    figure, axes = lesson_figure(7.2, 3.2, alt=title)
    with lesson_style():
        figure.set_message(title)
        low = [float(row.quantile(0.1)) for row in rows]
        high = [float(row.quantile(0.9)) for row in rows]
        axes.fill_between(temperatures, low, high, color=SERIES[0].colour, alpha=0.18, linewidth=0)
        axes.plot(temperatures, means, color=SERIES[0].colour, linestyle="-")
        axes.axhline(limit, color=INK, linewidth=1, linestyle=":")
        axes.text(
            temperatures[0],
            limit,
            f"ln V = {limit:.2f}: every token alike",
            va="bottom",
            fontsize=9,
        )
        axes.set_xscale("log")
        axes.set_xticks(temperatures, [digits(t) for t in temperatures])
        axes.minorticks_off()
        axes.set_ylim(0, limit * 1.12)
        axes.text(
            temperatures[-1],
            0.35,
            "line: mean; band: the middle 80% of positions",
            ha="right",
            fontsize=9,
        )
        label_axes(axes, "temperature T", "logits are divided by it", "entropy", "nats")
    return figure


def _nearest(values: Sequence[float], wanted: float) -> int:
    return min(range(len(values)), key=lambda i: abs(values[i] - wanted))


def pull_lengths(
    temperatures: Sequence[float],
    bare: Sequence[float],
    factored: Sequence[float],
    limit: float,
    predicted: float | None = None,
) -> CardFigure:
    """Length of the gradient over the temperature, with and without T squared, in parts of T = 1.

    limit: of the factored one, T to infinity. predicted: of the bare one at T = 4.
    """
    place = _nearest(temperatures, 4)
    title = (
        f"At T = {digits(temperatures[place])} the bare gradient is {digits(bare[place], 2)} of that at "
        f"T = 1; T² makes it {digits(factored[place], 2)}"
    )
    figure, axes = lesson_figure(7.2, 3.4, alt=title)
    with lesson_style():
        figure.set_message(title)
        for series, values, name in (
            (SERIES[1], bare, "without T²"),
            (SERIES[0], factored, "with T²"),
        ):
            axes.plot(
                temperatures,
                values,
                color=series.colour,
                marker=series.marker,
                linestyle=series.line,
            )
            axes.annotate(
                name,
                (temperatures[-1], values[-1]),
                (6, 0),
                textcoords="offset points",
                va="center",
                color=text_colour(series.colour),
            )
        axes.axhline(limit, color=INK, linewidth=1, linestyle=":", xmax=0.75)
        axes.annotate(
            "limit: logits' difference / V",
            (temperatures[len(temperatures) // 2], limit),
            (0, -4),
            textcoords="offset points",
            va="top",
            fontsize=9,
        )
        axes.plot(
            temperatures,
            [1 / t**2 for t in temperatures],
            color=INK,
            linewidth=1,
            linestyle="--",
            marker="",
        )
        axes.annotate(
            "1 / T²",
            (temperatures[-1], 1 / temperatures[-1] ** 2),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
        if predicted is not None:
            axes.plot([4], [predicted], color=INK, marker="x", markersize=9, linestyle="none")
            axes.annotate("you", (4, predicted), (8, 0), textcoords="offset points", va="center")
        axes.set(xscale="log", yscale="log", xlim=(temperatures[0] * 0.9, temperatures[-1] * 4))
        axes.set_xticks(temperatures, [digits(t) for t in temperatures])
        axes.minorticks_off()
        label_axes(
            axes, "temperature T", "logits are divided by it", "gradient", "of that at T = 1"
        )
    return figure


def two_modes(
    places: Tensor, target: Tensor, students: Mapping[str, Tensor], outside: Mapping[str, float]
) -> CardFigure:
    """A target with two modes and the single bumps that come nearest. places, target, students:
    (n,). outside: name -> share of the student's mass where the target has almost none."""
    shares = ", ".join(f"{share:.0%} with {name}" for name, share in outside.items())
    title = f"Mass where the teacher has almost none: {shares}"
    figure, axes = lesson_figure(7.2, 3.2, alt=title)
    with lesson_style():
        figure.set_message(title)
        axes.fill_between(places, 100 * target, color="#BBBBBB", step="mid", linewidth=0)
        # On the lower mode: a narrow student stands on the higher one.
        right = target.clone()
        right[: int(target.argmax()) + int(len(places) / 4)] = 0
        axes.annotate(
            "teacher",
            (float(places[int(right.argmax())]), 100 * float(right.max())),
            (0, 3),
            textcoords="offset points",
            ha="center",
        )
        for series, (name, student) in zip(SERIES, students.items(), strict=False):
            axes.plot(places, 100 * student, color=series.colour, marker="", linestyle=series.line)
            peak = int(student.argmax())
            axes.annotate(
                name,
                (float(places[peak]), 100 * float(student[peak])),
                (8, 6),
                textcoords="offset points",
                color=text_colour(series.colour),
            )
        axes.set_ylim(0, 116 * float(max(target.max(), *(s.max() for s in students.values()))))
        label_axes(axes, "token", "number", "probability", "%")
    return figure


def _card(height: float, title: str) -> CardFigure:
    figure = CardFigure(
        figsize=(7.2, height), dpi=100 * PIXELS_PER_POINT_SIZE, layout="constrained", alt=title
    )
    figure.set_message(title)
    return figure
