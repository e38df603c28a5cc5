"""The distillation study, read from what `make prove` measured, and the sentences it supports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slmlab.measure import load_result

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
    same = _saturated(study)
    shown = [metric for metric in METRICS if metric != same]
    lines = [f"{'':16} " + "  ".join(f"{METRICS[metric][0]:>16}" for metric in shown)]
    start = study["start"]
    layers = f"The start: tiny's layers {', '.join(map(str, start.get('layers', ())))}, untrained."
    for name in ("teacher", "start"):
        cells = [
            _cell(study[name][metric], None, metric) if metric in study[name] else ""
            for metric in shown
        ]
        lines.append(f"{name:16} " + "  ".join(f"{cell:>16}" for cell in cells))
    width = 16 + 18 * len(shown)
    for budget, title in BUDGETS.items():
        lines += ["", f"{title:{width}}  tokens    CPU-s"]
        for method, found in study["summary"][budget].items():
            cells = [_cell(found[m]["mean"], found[m]["sd"], m) for m in shown]
            costs = f"{found['tokens']['mean']:8,.0f} {found['cpu_seconds']['mean']:8.0f}"
            lines.append(
                f"{NAMES.get(method, method):16} "
                + "  ".join(f"{cell:>16}" for cell in cells)
                + f" {costs}"
            )
    rates = ", ".join(f"{NAMES[method]} {study['rates'][method]:g}" for method in NAMES)
    lines += ["", f"Peak learning rate, chosen for each on other runs: {rates}."]
    if "layers" in start:
        lines.append(layers)
    if same is not None:
        value = format(start[same], METRICS[same][1])
        lines.append(f"{METRICS[same][0].capitalize()}: {value} in every row, so not shown.")
    ending = f"One thread of {study['machine']}; commit {study['commit'][:7]}."
    return "\n".join([*lines, *_sentences(study), "", *conclusion(study), "", ending])


def _saturated(study: Mapping[str, Any]) -> str | None:
    """ "tool_calls" where every mean is what it was before training: a column that says nothing."""
    means = [
        found["tool_calls"]["mean"]
        for summary in study["summary"].values()
        for found in summary.values()
    ]
    return "tool_calls" if all(mean == study["start"]["tool_calls"] for mean in means) else None


def conclusion(study: Mapping[str, Any]) -> list[str]:
    """Who leads, what hard labels gain by more tokens, and what the teacher's text costs."""
    tokens, cpu = (study["summary"][budget] for budget in BUDGETS)
    leaders = (" or ".join(NAMES[m] for m in best(summary, "kl")) for summary in (tokens, cpu))
    first, second = leaders
    more = cpu["hard"]["tokens"]["mean"] / tokens["hard"]["tokens"]["mean"]
    costs = [tokens[m]["cpu_seconds"]["mean"] for m in ("sequence", "hard")]
    kls = [tokens[m]["kl"]["mean"] for m in ("sequence", "hard")]
    return [
        f"In short, by KL: at equal tokens {first} lead, at equal time {second}.",
        f"Equal time gives hard labels {more:.1f} times the tokens: KL {tokens['hard']['kl']['mean']:.4f} "
        f"becomes {cpu['hard']['kl']['mean']:.4f}.",
        f"Teacher's text takes {costs[0] / costs[1]:.1f} times the CPU-time of hard labels at equal "
        f"tokens, for KL {kls[0]:.4f} against {kls[1]:.4f}.",
    ]


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
    before, after = draft["before"], draft["summary"]
    lines = ["tiny-draft, trained on, as a draft for tiny; guesses accepted, and its KL to tiny:"]
    for method, found in after.items():
        changes = ", ".join(
            f"{domain.replace('_', ' ')} {before[domain]['rate']:.1%} to "
            f"{found[domain]['mean']:.1%}"
            for domain in found
            if domain != "kl"
        )
        lines.append(
            f"    {NAMES.get(method, method)}: {changes}; "
            f"KL {before['kl']:.3f} to {found['kl']['mean']:.3f}."
        )
    return [*lines, *_draft_moral(after)]


def _draft_moral(after: Mapping[str, Any]) -> list[str]:
    """Whether the draft that ends nearer in KL is the one whose guesses hold more often."""
    if set(after) != {"hard", "logits"}:
        return []
    near, far = sorted(after, key=lambda method: after[method]["kl"]["mean"])
    domains = [d for d in after[near] if d != "kl"]
    won = [d for d in domains if after[far][d]["mean"] > after[near][d]["mean"]]
    if not won:
        return [f"{NAMES[near]} end nearer and are accepted at least as often in every domain."]
    return [
        f"{NAMES[near]} end nearer to tiny in KL, and more guesses of {NAMES[far]} hold in "
        f"{len(won)} of {len(domains)} domains: nearer in KL is",
        "not the same as accepted more often. Greedy acceptance looks at the likeliest token only.",
    ]


def whole(name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns; ValueError that names the mend where the file lacks something."""
    try:
        return make()
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"results/{name}.json lacks {error}: make it anew with `python -m authoring.prove {name}`"
        ) from None
