"""The speculative race, read from what `make prove` measured, and published figures beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slmlab.measure import load_result

BENCHMARK = "speculative_race"
HOW_TO_MAKE_IT = (
    "There is no results/speculative_race.json here. In a checkout of slmlab, run\n"
    "    make prove\n"
    "or only this race: python -m authoring.prove speculative_race\n"
    "It times slmlab, transformers and llama.cpp in turns and takes some minutes."
)


def race_text(folder: str | Path | None = None) -> str | None:
    """The ways of writing each kind of text, the fastest first; None where it was not run. Of our
    own fixed draft lengths only the fastest has a line.

    folder: where results lie, by default results/ beside the package. Raises ValueError for a file
    that is damaged or of another benchmark.
    """
    record = load_result(BENCHMARK, folder)
    if record is None:
        return None
    try:
        lines = []
        for domain, result in record["measured"]["domains"].items():
            lines.append(f"{domain:38} tokens/CPU s  plain x  acceptance")
            for way, row in _rows(result["ways"]):
                over = row["over_plain"]["cpu"]["ratio"]
                alpha = (row.get("acceptance") or {}).get("alpha")
                rate = "" if alpha is None else f"{alpha:10.2f}"
                speed = f"{row['tokens_per_cpu_second']:,.0f}"
                lines.append(f"  {way:36} {speed:>12}  {over:7.2f}  {rate}".rstrip())
        machine = record["machine"]["cpu"]
        commit = str(record["commit"])[:7]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"results/{BENCHMARK}.json lacks {error}: make it anew with `python -m "
            f"authoring.prove {BENCHMARK}`"
        ) from None
    return "\n".join(lines) + f"\none thread of {machine}; commit {commit}; float32"


def _rows(ways: dict[str, Any]) -> list[tuple[str, Any]]:
    ordered = sorted(ways.items(), key=lambda item: -item[1]["tokens_per_cpu_second"])
    fixed = [way for way, _ in ordered if way.removeprefix("draft ").isdigit()]
    return [(way, row) for way, row in ordered if way not in fixed[1:]]


def published() -> list[dict[str, Any]]:
    """English to German with T5-XXL (11B) at temperature 0 and three drafts, 7 tokens a round
    (Leviathan et al. 2023, arXiv:2211.17192, table 2): parameters, acceptance rate, speed-up."""
    return [
        {"draft": "T5-small", "parameters": 77e6, "gamma": 7, "alpha": 0.75, "speedup": 3.4},
        {"draft": "T5-base", "parameters": 250e6, "gamma": 7, "alpha": 0.80, "speedup": 2.8},
        {"draft": "T5-large", "parameters": 800e6, "gamma": 7, "alpha": 0.82, "speedup": 1.7},
    ]
