"""The serving race's aims, measured or missed, and its tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._serving_memory import PUBLISHED_RESERVED_WASTE

AT_ONCE = "8"


def aims_of(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """[{aim, wanted, measured, met}]: speeds by the clock, with processor time beside them."""
    aims: list[dict[str, Any]] = []
    for model, result in measured["models"].items():
        for rival, wanted in (("sequential", 3.0), ("transformers_generate_batch", 2.0)):
            found = result["engine_over"].get(rival, {}).get(AT_ONCE)
            if found is not None:
                aim = _least(f"{model}: {AT_ONCE} at once over {rival}", wanted, found["wall"])
                aims.append({**aim, "measured_cpu": found["cpu"]["ratio"]})
        for name, row in result.get("paper_like", {}).items():
            if row["block_size"] == measured["block_size"]:
                what = f"waste at {row['positions']} positions, {name}, block {row['block_size']}"
                aim = _most(what, 0.04, row["paged"])
                aims.append({**aim, "reserve_to_maximum": row["reserve_to_maximum"]})
        for row in result["shared_prompt"]:
            what = f"{model}: prefill cut, {row['shared']} shared and {row['own']} own"
            aims.append(_least(what, 0.9, {"ratio": row["prefill_cut"]}))
    return aims


def _least(aim: str, wanted: float, found: dict[str, Any]) -> dict[str, Any]:
    met = found["ratio"] >= wanted
    return {"aim": aim, "wanted": f">= {wanted}", "measured": found["ratio"], "met": met}


def _most(aim: str, wanted: float, found: float) -> dict[str, Any]:
    return {"aim": aim, "wanted": f"<= {wanted}", "measured": found, "met": found <= wanted}


def show(measured: dict[str, Any], console: Console) -> None:
    """Every way, every ratio, memory, shared prompts, the aims."""
    for model, result in measured["models"].items():
        console.print(_ways(model, result), _ratios(result))
        for name, row in result["agreement"].items():
            console.print(
                f"{name}: of {row['requests']} answers {row['equal']} equal the plain loop's, "
                f"{row['near_ties']} leave it at a near tie, {row['differing']} elsewhere"
            )
        if "arrivals" in result:
            row = result["arrivals"]
            console.print(
                f"engine, {row['at_once']} at once, a request every {row['mean_steps_between']} "
                f"steps (Poisson): first token {row['ttft_ms']['p50']} ms (p50), "
                f"{row['ttft_ms']['p99']} ms (p99); queued {row['queue_ms']['p50']} and "
                f"{row['queue_ms']['p99']} ms"
            )
        console.print(_waste(result), _shared(result))
    low, high = PUBLISHED_RESERVED_WASTE
    console.print(f"published: reserving systems waste {low:.1%} to {high:.1%}, paged under 4%")
    if measured["llama_cpp_left_out"]:
        console.print(measured["llama_cpp_left_out"], markup=False, soft_wrap=True)
    for aim in measured["aims"]:
        more = f" ({aim['measured_cpu']} by processor time)" if "measured_cpu" in aim else ""
        if "reserve_to_maximum" in aim:
            more = f" (reserve to maximum {aim['reserve_to_maximum']})"
        console.print(
            f"{'met' if aim['met'] else 'MISSED'}: {aim['aim']}: {aim['measured']}{more}, "
            f"wanted {aim['wanted']}",
            soft_wrap=True,
        )


def _ways(model: str, result: dict[str, Any]) -> Table:
    table = Table(model, "at once", "tokens/s", "tokens/CPU s", "TTFT p50 ms", "TTFT p99 ms")
    for name, rows in result["ways"].items():
        for at_once, row in rows.items():
            ttft = row["ttft_ms"] or {"p50": "-", "p99": "-"}
            table.add_row(
                name,
                at_once,
                str(row["tokens_per_second"]),
                str(row["tokens_per_cpu_second"]),
                str(ttft["p50"]),
                str(ttft["p99"]),
            )
    return table


def _ratios(result: dict[str, Any]) -> Table:
    table = Table("engine over", "at once", "ratio", "low", "high", "CPU ratio", "low", "high", "n")
    for rival, rows in result["engine_over"].items():
        for at_once, row in rows.items():
            numbers = [row[by][key] for by in ("wall", "cpu") for key in ("ratio", "low", "high")]
            table.add_row(rival, at_once, *map(str, numbers), str(row["wall"]["n"]))
    return table


def _waste(result: dict[str, Any]) -> Table:
    table = Table("KV slots without a token", "positions", "block", "paged (engine)")
    for name in ("left-padded", "reserve to maximum", "to power of two", "exact length"):
        table.add_column(name)
    race = result["waste"]
    row = [f"{race[key]:.1%}" for key in ("paged", "left_padded", "reserve_to_maximum")]
    table.add_row(f"the race, {race['at_once']} at once", str(race["positions"]), "16", *row)
    reserved = ("reserve_to_maximum", "reserve_power_of_two", "reserve_exact_length")
    for name, each in result.get("paper_like", {}).items():
        sizes = str(each["positions"]), str(each["block_size"]), f"{each['paged']:.1%}"
        table.add_row(name, *sizes, "-", *(f"{each[key]:.1%}" for key in reserved))
    return table


def _shared(result: dict[str, Any]) -> Table:
    table = Table("shared prompt", "own", "computed first", "later", "without", "cut", "TTFT ratio")
    for row in result["shared_prompt"]:
        ttft = row["ttft_ms"]
        table.add_row(
            str(row["shared"]),
            str(row["own"]),
            str(row["computed_first"]),
            str(row["computed_later"]),
            str(row["computed_later_without_sharing"]),
            f"{row['prefill_cut']:.1%}",
            f"{ttft['ratio_low']} to {ttft['ratio_high']}",
        )
    return table
