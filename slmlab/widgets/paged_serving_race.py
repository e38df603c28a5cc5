"""The serving race, read from what `make prove` measured, as a table of text for lesson 05."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slmlab.measure import load_result

BENCHMARK = "serving_race"
HOW_TO_MAKE_IT = (
    "There is no results/serving_race.json here. In a checkout of slmlab, run\n"
    "    make prove\n"
    "or only this race: python -m authoring.prove serving_race\n"
    "It times four engines in turns and takes some minutes."
)


def race_text(folder: str | Path | None = None) -> str | None:
    """Every engine at every number of requests at once, a line each; None where it was not run.

    folder: where results lie, by default results/ beside the package. Raises ValueError for a file
    that is damaged or of another benchmark.
    """
    record = load_result(BENCHMARK, folder)
    if record is None:
        return None
    try:
        lines = []
        for model, result in record["measured"]["models"].items():
            lines.append(f"{model:28} at once  tokens/CPU s  Engine is")
            for way, rows in result["ways"].items():
                for at_once, row in sorted(rows.items(), key=lambda item: int(item[0])):
                    ratio = result["engine_over"].get(way, {}).get(at_once)
                    times = f"{ratio['cpu']['ratio']:.2f} times as fast" if ratio else ""
                    rate = f"{row['tokens_per_cpu_second']:,.0f}"
                    lines.append(f"  {way:26} {at_once:>7}  {rate:>12}  {times}".rstrip())
        machine = record["machine"]["cpu"]
        commit = str(record["commit"])[:7]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"results/{BENCHMARK}.json lacks {error}: make it anew with `python -m "
            f"authoring.prove {BENCHMARK}`"
        ) from None
    return "\n".join(lines) + f"\none thread of {machine}; commit {commit}; float32"


def published() -> dict[str, Any]:
    """What PagedAttention's authors measured (Kwon et al. 2023, arXiv:2309.06180).

    reserve_to_maximum, reserve_exact: shares of KV memory that held a token in Orca's two ways of
    reserving (section 1, figure 2). batched: requests in a batch on ShareGPT at two a second (section 6.2,
    figure 13).
    """
    return {
        "reserve_to_maximum": 0.204,
        "reserve_exact": 0.382,
        "batched": {"Orca (Max)": 7.0, "Orca (Oracle)": 13.62, "vLLM": 30.42},
    }
