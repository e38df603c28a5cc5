"""The speculative race's aims, measured or missed, and its tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

# Domain -> wanted over our own plain decoding
OVER_PLAIN = {
    "tool calls": 1.8,
    "documentation": 1.6,
    "code": 1.3,
    "documentation, temperature 0.7": 1.4,
}
OVER_ASSISTED = 2.0
LARGEST_DEVIATION = 0.15


def aims_of(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """[{aim, wanted, measured, measured_cpu, low, high, met}]: met by the clock.

    Each is judged on the draft length that the formula takes. transformers' assisted generation is
    the faster of its two settings. Predictions: the largest deviation of a domain.
    """
    aims: list[dict[str, Any]] = []
    for name, result in measured["domains"].items():
        ways, length = result["ways"], result["chosen"]
        if name in OVER_PLAIN:
            over = ways[length]["over_plain"]
            aims.append(_least(f"{name}: {length} over plain decoding", OVER_PLAIN[name], over))
        assisted = result["over_assisted"]
        if assisted is not None:
            over, rival = assisted["over"], assisted["rival"]
            aims.append(_least(f"{name}: {length} over {rival}", OVER_ASSISTED, over))
        deviations = {
            way: row["prediction"]["deviation"]
            for way, row in ways.items()
            if way.startswith("draft") and row.get("prediction")
        }
        worst = max(deviations, key=lambda way: abs(deviations[way]))
        aims.append(
            {
                "aim": f"{name}: prediction against measured speed-up, worst is {worst}",
                "wanted": f"within {LARGEST_DEVIATION:.0%}",
                "measured": round(deviations[worst], 3),
                "met": abs(deviations[worst]) <= LARGEST_DEVIATION,
            }
        )
    return aims


def _least(aim: str, wanted: float, over: dict[str, Any]) -> dict[str, Any]:
    wall = over["wall"]
    return {
        "aim": aim,
        "wanted": f">= {wanted}",
        "measured": wall["ratio"],
        "low": wall["low"],
        "high": wall["high"],
        "measured_cpu": over["cpu"]["ratio"],
        "met": wall["ratio"] >= wanted,
    }


def show(measured: dict[str, Any], console: Console) -> None:
    """Of every domain: the speeds, then what the formula makes of the costs; the aims."""
    for name, result in measured["domains"].items():
        console.print(_speeds(name, result), _predictions(name, result))
        console.print(
            f"{name}: one plain step {result['step_ms']:.2f} ms of processor time; the formula "
            f"takes {result['chosen']}, the fastest was {result['fastest']}",
            soft_wrap=True,
        )
    for name, row in measured["agreement"].items():
        console.print(
            f"{name}: of {row['requests']} greedy answers {row['equal']} equal plain decoding's, "
            f"{row['near_ties']} leave it at a near tie, {row['differing']} elsewhere",
            soft_wrap=True,
        )
    if measured["llama_cpp_left_out"]:
        console.print(measured["llama_cpp_left_out"], markup=False, soft_wrap=True)
    for aim in measured["aims"]:
        more = ""
        if "low" in aim:
            more = f" ({aim['low']} to {aim['high']}; {aim['measured_cpu']} by processor time)"
        console.print(
            f"{'met' if aim['met'] else 'MISSED'}: {aim['aim']}: {aim['measured']}{more}, "
            f"wanted {aim['wanted']}",
            soft_wrap=True,
        )


def _speeds(name: str, result: dict[str, Any]) -> Table:
    table = Table(name, "tokens/s", "over plain", "95%", "by CPU", "95%", "alpha", "95%", "a round")
    for way, row in result["ways"].items():
        over = row["over_plain"]
        cells = [str(row["tokens_per_second"])]
        for by in ("wall", "cpu"):
            each = over[by]
            cells += [f"{each['ratio']:.2f}", f"{each['low']:.2f} to {each['high']:.2f}"]
        found = row.get("acceptance")
        if found and found["alpha"] is not None:
            cells += [
                f"{found['alpha']:.3f}",
                f"{found['alpha_low']:.3f} to {found['alpha_high']:.3f}",
                f"{found['tokens_per_round']:.2f}",
            ]
        table.add_row(way, *cells)
    return table


def _predictions(name: str, result: dict[str, Any]) -> Table:
    table = Table(name, "c", "verify", "overhead", "tokens a round", "expected")
    for column in ("the formula", "with costs", "full rounds", "whole calls", "deviation"):
        table.add_column(column)
    for way, row in result["ways"].items():
        found = row.get("prediction")
        if found:
            cost = row["costs"]
            table.add_row(
                way,
                *(f"{cost[key]:.3f}" for key in ("c", "verify", "overhead")),
                f"{row['acceptance']['tokens_per_round']:.2f}",
                f"{found['expected_tokens']:.2f}",
                *(
                    "-" if found[key] is None else f"{found[key]:.2f}"
                    for key in ("formula", "with_costs", "in_rounds", "measured")
                ),
                f"{found['deviation']:+.0%}",
            )
    return table
