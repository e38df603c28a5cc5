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
WAYS = {
    "engine": "this lesson's Engine",
    "sequential": "slmlab's plain loop, one after another, whatever the Engine runs at once",
    "transformers_static": "transformers' generate on padded batches, each to its longest answer",
    "transformers_generate_batch": "transformers' continuous batching",
    "llama_cpp": "llama.cpp's server with as many clients",
}


def race_text(folder: str | Path | None = None) -> str | None:
    """Every engine at every number of requests at once, a line each; None where it was not run.

    A ratio stands with the lowest and the highest of its rounds; below them, what the names mean.
    folder: where results lie, by default results/ beside the package. Raises ValueError for a file
    that is damaged or of another benchmark.
    """
    record = load_result(BENCHMARK, folder)
    if record is None:
        return None
    try:
        lines, seen, rounds = [], set(), set()
        for model, result in record["measured"]["models"].items():
            lines.append(f"{model:28} at once  tokens/CPU s  Engine over it")
            for way, rows in result["ways"].items():
                seen.add(way)
                over = result["engine_over"].get(way, {})
                for at_once in sorted({*rows, *over}, key=int):
                    ratio = over[at_once]["cpu"] if at_once in over else None
                    rounds |= {ratio["n"]} if ratio else set()
                    rate = (
                        f"{rows[at_once]['tokens_per_cpu_second']:,.0f}" if at_once in rows else ""
                    )
                    lines.append(f"  {way:27} {at_once:>6}  {rate:>12}  {_times(ratio)}".rstrip())
        machine = record["machine"]["cpu"]
        commit = str(record["commit"])[:7]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"results/{BENCHMARK}.json lacks {error}: make it anew with `python -m "
            f"authoring.prove {BENCHMARK}`"
        ) from None
    n = " or ".join(map(str, sorted(rounds)))
    lines += [
        "tokens/CPU s: of the fastest round. Ratios are of paired rounds, so they do not follow from",
        f"that column: median (lowest-highest), n={n}. Below 1 the Engine is slower.",
        *(f"{way}: {WAYS[way]}" for way in WAYS if way in seen),
        f"one thread of {machine}; commit {commit}; float32",
    ]
    return "\n".join(lines)


def _times(ratio: dict[str, Any] | None) -> str:
    return f"{ratio['ratio']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else ""


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
