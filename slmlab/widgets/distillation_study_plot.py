"""The plot of the distillation study: KL by method, at equal tokens and at equal CPU-time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.distillation_study import BENCHMARK, BUDGETS, NAMES, best, whole
from slmlab.widgets.plot_style import INK, SERIES, lesson_style


def study_plot(study: Mapping[str, Any]) -> CardFigure:
    """KL by method under both budgets: every seed, mean and standard deviation.

    Raises ValueError for a study that lacks a figure.
    """
    return whole(BENCHMARK, lambda: _study_plot(study))


def _study_plot(study: Mapping[str, Any]) -> CardFigure:
    winners = {
        budget: " or ".join(NAMES.get(m, m) for m in best(study["summary"][budget], "kl"))
        for budget in BUDGETS
    }
    if len(set(winners.values())) == 1:
        title = f"Nearest to the teacher, at equal tokens and at equal CPU-time: {winners['cpu']}"
    else:
        parts = (f"{winners[budget]} at {name}" for budget, name in BUDGETS.items())
        title = f"Nearest to the teacher: {'; '.join(parts)}"
    figure = CardFigure(
        figsize=(7.2, 3.4), dpi=100 * PIXELS_PER_POINT_SIZE, layout="constrained", alt=title
    )
    with lesson_style():
        figure.set_message(title)
        both = figure.subplots(1, 2, sharey=True, sharex=True)
        for axes, (budget, name) in zip(both, BUDGETS.items(), strict=True):
            methods = list(study["summary"][budget])
            for place, method in enumerate(methods):
                series, found = SERIES[place], study["summary"][budget][method]["kl"]
                seeds = [
                    run["metrics"]["kl"]
                    for run in study["runs"]
                    if (run["budget"], run["method"]) == (budget, method)
                ]
                axes.plot(
                    seeds,
                    [place + 0.27] * len(seeds),
                    color=series.colour,
                    marker="|",
                    markersize=7,
                    linestyle="none",
                )
                axes.errorbar(
                    [found["mean"]],
                    [place],
                    xerr=[[found["sd"] or 0.0]] * 2,
                    color=series.colour,
                    marker=series.marker,
                    markersize=6,
                    capsize=4,
                )
            axes.axvline(study["start"]["kl"], color=INK, linewidth=1, linestyle=":")
            axes.set_title(name, fontsize=10)
            axes.set_xlabel("KL(teacher || student) (nats)")
            axes.set_yticks(range(len(methods)), [NAMES.get(m, m) for m in methods])
            axes.set_ylim(len(methods) - 0.4, -0.6)
        both[0].annotate(
            "before training",
            (study["start"]["kl"], 0.99),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
        )
    return figure
