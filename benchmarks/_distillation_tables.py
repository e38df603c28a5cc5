"""What the distillation study says of its runs: means over the seeds, wins, and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

BUDGETS = ("tokens", "cpu")
METHODS = ("hard", "logits", "topk", "sequence", "on_policy")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (null for one value), and how many."""
    count = len(values)
    mean = sum(values) / count
    square = sum((value - mean) ** 2 for value in values)
    return {"mean": mean, "sd": math.sqrt(square / (count - 1)) if count > 1 else None, "n": count}


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Name -> `spread` over the rows, one a seed."""
    return {name: spread([row[name] for row in rows]) for name in rows[0]}


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Budget -> method -> metric, tokens, cpu_seconds and steps -> `spread`."""
    found: dict[str, Any] = {budget: {} for budget in BUDGETS}
    for budget in BUDGETS:
        for method in METHODS:
            mine = [r for r in runs if (r["budget"], r["method"]) == (budget, method)]
            costs = ("steps", "tokens", "cpu_seconds")
            rows = [{**r["metrics"], **{cost: r[cost] for cost in costs}} for r in mine]
            found[budget][method] = summary(rows)
    return found


def wins(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Budget -> metric -> seeds in which logits ended better than hard labels."""
    lower = ("kl", "perplexity")
    found: dict[str, dict[str, int]] = {}
    for budget in BUDGETS:
        of = {(r["method"], r["seed"]): r["metrics"] for r in runs if r["budget"] == budget}
        seeds = sorted({seed for _, seed in of})
        found[budget] = {
            metric: sum(
                (of["logits", seed][metric] < of["hard", seed][metric])
                if metric in lower
                else (of["logits", seed][metric] > of["hard", seed][metric])
                for seed in seeds
            )
            for metric in of["logits", seeds[0]]
        }
    return found


def rises(before: dict[str, Any], runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Method -> domain -> seeds in which the draft's acceptance ended above where it began."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        mine = found.setdefault(run["method"], {})
        for domain, rate in run["acceptance"].items():
            mine[domain] = mine.get(domain, 0) + (rate > before[domain]["rate"])
    return found


def show(measured: dict[str, Any], console: Console) -> None:
    """Both budgets' tables, then the draft's."""
    for budget in BUDGETS:
        console.print(_budget(budget, measured))
        console.print(f"logits better than hard labels: {measured['logits_beat_hard'][budget]}")
    console.print(_draft(measured["draft"]))
    console.print(f"seeds with a higher acceptance than before: {measured['draft']['raised']}")


def _budget(budget: str, measured: dict[str, Any]) -> Table:
    table = Table(title=f"Equal {'tokens' if budget == 'tokens' else 'processor seconds'}")
    names = ("kl", "perplexity", "tool_calls", "acceptance", "tokens", "cpu_seconds")
    for column in ("method", *names):
        table.add_column(column)
    for name in ("teacher", "start"):
        row = measured[name]
        table.add_row(name, *(_number(row[key]) if key in row else "" for key in names))
    for method, found in measured["summary"][budget].items():
        table.add_row(method, *(_cell(found[key]) for key in names))
    return table


def _draft(draft: dict[str, Any]) -> Table:
    table = Table(title="tiny-draft: greedy acceptance, and KL")
    names = list(draft["before"])
    for column in ("method", *names):
        table.add_column(column)
    cells = (
        f"{row['rate']:.4f} (se {row['standard_error']:.4f})"
        if isinstance(row, dict)
        else _number(row)
        for row in draft["before"].values()
    )
    table.add_row("before", *cells)
    for method, found in draft["summary"].items():
        table.add_row(method, *(_cell(found[name]) for name in names))
    return table


def _cell(found: dict[str, Any]) -> str:
    sd = found["sd"]
    return _number(found["mean"]) + ("" if sd is None else f" (sd {_number(sd)})")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
