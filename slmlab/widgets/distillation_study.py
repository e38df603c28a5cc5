"""The distillation study, read from what `make prove` measured, and the sentences it supports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slmlab.measure import load_result
from slmlab.widgets.card import PIXELS_PER_POINT_SIZE, CardFigure
from slmlab.widgets.plot_style import INK, SERIES, lesson_style

BENCHMARK = "distillation_study"
HOW_TO_MAKE_IT = (
    "There is no results/distillation_study.json here. In a checkout of slmlab, run\n"
    "    make prove\n"
    "or only this study: python -m authoring.prove distillation_study\n"
    "It trains dozens of students and takes most of an hour."
)
BUDGETS = {"tokens": "equal tokens", "cpu": "equal CPU-time"}
NAMES = {
    "hard": "hard labels",
    "logits": "logits",
    "topk": "top-k logits",
    "sequence": "teacher's text",
    "on_policy": "on-policy",
}
# Metric -> its name, how it is written, and whether less of it is better.
METRICS: dict[str, tuple[str, str, bool]] = {
    "kl": ("KL", ".4f", True),
    "perplexity": ("perplexity", ".2f", True),
    "tool_calls": ("tool calls", ".1%", False),
    "acceptance": ("acceptance", ".1%", False),
}


def load_study(folder: str | Path | None = None) -> dict[str, Any] | None:
    """What the study measured, with "machine" and "commit"; None where it was not run.

    folder: where results lie, by default results/ beside the package. Raises ValueError for a file
    that is damaged or of another benchmark.
    """
    record = load_result(BENCHMARK, folder)
    if record is None:
        return None
    return whole(BENCHMARK, lambda: _read(record))


def _read(record: dict[str, Any]) -> dict[str, Any]:
    measured = record["measured"]
    found = {key: measured[key] for key in ("teacher", "start", "runs", "draft")}
    summary = {
        budget: {method: measured["summary"][budget][method] for method in NAMES}
        for budget in BUDGETS
    }
    return {
        **found,
        "summary": summary,
        "rates": {m: r["learning_rate"] for m, r in measured["recipes"].items()},
        "machine": record["machine"]["cpu"],
        "commit": str(record["commit"]),
    }


def best(summary: Mapping[str, Any], metric: str) -> list[str]:
    """The method with the best mean first, then those that the seeds cannot tell from it: closer
    than two standard errors of the difference."""
    less = METRICS[metric][2]
    means = {method: found[metric]["mean"] for method, found in summary.items()}
    first = min(means, key=lambda method: means[method] if less else -means[method])
    errors = {method: _squared_error(found[metric]) for method, found in summary.items()}
    near = [
        method
        for method in means
        if method != first
        and abs(means[method] - means[first]) <= 2 * math.sqrt(errors[method] + errors[first])
    ]
    return [first, *near]


def _squared_error(found: Mapping[str, Any]) -> float:
    return (found["sd"] or 0.0) ** 2 / found["n"]


def study_text(study: Mapping[str, Any]) -> str:
    """Both budgets as tables, mean and standard deviation over the seeds, and what they say.

    Raises ValueError for a study that lacks a figure.
    """
    return whole(BENCHMARK, lambda: _study_text(study))


def _study_text(study: Mapping[str, Any]) -> str:
    lines = [f"{'':16} " + "  ".join(f"{name:>16}" for name, _, _ in METRICS.values())]
    for name in ("teacher", "start"):
        cells = [
            _cell(study[name][metric], None, metric) if metric in study[name] else ""
            for metric in METRICS
        ]
        lines.append(f"{name:16} " + "  ".join(f"{cell:>16}" for cell in cells))
    for budget, title in BUDGETS.items():
        lines += ["", f"{title:84}  tokens    CPU-s"]
        for method, found in study["summary"][budget].items():
            cells = [_cell(found[m]["mean"], found[m]["sd"], m) for m in METRICS]
            costs = f"{found['tokens']['mean']:8,.0f} {found['cpu_seconds']['mean']:8.0f}"
            lines.append(
                f"{NAMES.get(method, method):16} "
                + "  ".join(f"{cell:>16}" for cell in cells)
                + f" {costs}"
            )
    rates = ", ".join(f"{NAMES[method]} {study['rates'][method]:g}" for method in NAMES)
    lines += ["", f"Peak learning rate, chosen for each on other runs: {rates}."]
    ending = f"One thread of {study['machine']}; commit {study['commit'][:7]}."
    return "\n".join([*lines, *_sentences(study), ending])


def _cell(mean: float, sd: float | None, metric: str) -> str:
    form = METRICS[metric][1]
    text = format(mean, form)
    return text if sd is None else f"{text} \u00b1{format(sd, form)}"


def _sentences(study: Mapping[str, Any]) -> list[str]:
    """What the table says, from its figures."""
    start, lines = study["start"], []
    for budget, title in BUDGETS.items():
        summary = study["summary"][budget]
        for metric in ("kl", "perplexity"):
            lines.append(f"At {title}, {METRICS[metric][0]}: {_verdict(summary, metric)}.")
        worse = [
            NAMES.get(method, method)
            for method, found in summary.items()
            if found["kl"]["mean"] > start["kl"]
        ]
        if worse:
            lines.append(f"    Farther from the teacher than before training: {', '.join(worse)}.")
    pairs = _pairs(study["runs"], "tokens")
    won = sum(pair["logits"] < pair["hard"] for pair in pairs)
    lines.append(
        f"Logits end nearer to the teacher than hard labels in {won} of {len(pairs)} seeds."
    )
    return [*lines, *_orders(study["summary"]), *_draft_lines(study["draft"])]


def _orders(summary: Mapping[str, Any]) -> list[str]:
    """The methods from the nearest to the teacher to the farthest, and whether time changes it."""
    orders = {}
    for budget in BUDGETS:
        means = {method: found["kl"]["mean"] for method, found in summary[budget].items()}
        orders[budget] = sorted(means, key=means.__getitem__)
    lines = [
        f"By mean KL at {BUDGETS[budget]}: {', '.join(NAMES.get(m, m) for m in order)}."
        for budget, order in orders.items()
    ]
    same = orders["tokens"] == orders["cpu"]
    return [*lines, f"Paying for time {'keeps' if same else 'changes'} the order."]


def _verdict(summary: Mapping[str, Any], metric: str) -> str:
    first, *near = (NAMES.get(method, method) for method in best(summary, metric))
    if not near:
        return f"{first} is best"
    return f"{first} has the best mean, {' and '.join(near)} cannot be told from it"


def _pairs(runs: list[dict[str, Any]], budget: str) -> list[dict[str, float]]:
    """Seed by seed: method -> KL."""
    seeds: dict[int, dict[str, float]] = {}
    for run in runs:
        if run["budget"] == budget:
            seeds.setdefault(run["seed"], {})[run["method"]] = run["metrics"]["kl"]
    return list(seeds.values())


def _draft_lines(draft: Mapping[str, Any]) -> list[str]:
    lines = ["tiny-draft, trained on, as a draft for tiny; guesses accepted:"]
    for method, found in draft["summary"].items():
        changes = ", ".join(
            f"{domain.replace('_', ' ')} {draft['before'][domain]['rate']:.1%} to "
            f"{found[domain]['mean']:.1%}"
            for domain in found
            if domain != "kl"
        )
        lines.append(f"    {NAMES.get(method, method)}: {changes}.")
    return lines


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


def whole(name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns; ValueError that names the mend where the file lacks something."""
    try:
        return make()
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"results/{name}.json lacks {error}: make it anew with `python -m authoring.prove {name}`"
        ) from None
