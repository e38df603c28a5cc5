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


_DRAFT, _ADAPTIVE = "draft ", "draft adaptive"


def race_text(folder: str | Path | None = None) -> str | None:
    """Four ways of writing each kind of text, the fastest first, and what to know of them; None
    where it was not run. The ways: plain decoding, the fastest fixed draft length, prompt lookup,
    and llama.cpp without a draft.

    folder: where results lie, by default results/ beside the package. Raises ValueError for a file
    that is damaged or of another benchmark.
    """
    record = load_result(BENCHMARK, folder)
    if record is None:
        return None
    try:
        lines = []
        for domain, result in record["measured"]["domains"].items():
            lines.append(f"{domain:30} tokens/CPU s  plain x  acceptance")
            for way, row in _rows(result["ways"]):
                alpha = (row.get("acceptance") or {}).get("alpha")
                rate = "" if alpha is None else f"{alpha:10.2f}"
                speed = f"{row['tokens_per_cpu_second']:,.0f}"
                lines.append(f"  {way:28} {speed:>12}  {_over_plain(row):7.2f}  {rate}".rstrip())
        lines.append(_sentences(record["measured"]))
        machine = record["machine"]["cpu"]
        commit = str(record["commit"])[:7]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"results/{BENCHMARK}.json lacks {error}: make it anew with `python -m "
            f"authoring.prove {BENCHMARK}`"
        ) from None
    return "\n".join(lines) + f"\nOne thread of {machine}; commit {commit}; float32."


def _over_plain(row: dict[str, Any]) -> float:
    return float(row["over_plain"]["cpu"]["ratio"])


def _fixed(ways: dict[str, Any]) -> str | None:
    """The fastest fixed draft length of ours."""
    fixed = [way for way in ways if way.removeprefix(_DRAFT).isdigit()]
    return max(fixed, key=lambda way: ways[way]["tokens_per_cpu_second"], default=None)


def _rows(ways: dict[str, Any]) -> list[tuple[str, Any]]:
    wanted = {"plain", "llama.cpp", _fixed(ways)}
    shown = [item for item in ways.items() if item[0] in wanted or item[0].startswith("lookup")]
    return sorted(shown, key=lambda item: -item[1]["tokens_per_cpu_second"])


def _sentences(found: dict[str, Any]) -> str:
    """What the rows are and what they say, from the figures themselves."""
    plan, domains = found["plan"], found["domains"]
    sampled = plan.get("sampled_lengths", ())
    tried = ", ".join(map(str, plan["lengths"]))
    if sampled:
        tried += f" (where a temperature is named: {', '.join(map(str, sampled))})"
    lines = [
        "",
        f"Up to {plan['prompts']} prompts a kind, each continued by up to {plan['new_tokens']} tokens.",
        f"`plain` is our plain decoding, `draft N` the fastest of the draft lengths {tried}.",
        "These are other pieces and longer answers than the cells above raced, so another share of the",
        "guesses holds. `lookup` counts only where it proposes.",
    ]
    ahead = [
        kind
        for kind, result in domains.items()
        if "llama.cpp" in result["ways"]
        and (draft := _fixed(result["ways"]))
        and _over_plain(result["ways"]["llama.cpp"]) > _over_plain(result["ways"][draft])
    ]
    if ahead:
        lines.append(
            f"llama.cpp without any draft is ahead of `draft N` on {', '.join(ahead)}: its plain step is cheaper."
        )
    ratios = {
        kind: _over_plain(ways[_ADAPTIVE]) / _over_plain(ways[draft])
        for kind, ways in ((kind, result["ways"]) for kind, result in domains.items())
        if _ADAPTIVE in ways and (draft := _fixed(ways))
    }
    if ratios:
        each = "; ".join(f"{kind}: {ratio:.2f}" for kind, ratio in ratios.items())
        lines.append(f"`{_ADAPTIVE}` over `draft N`: {each}.")
        if max(ratios.values()) <= 1.02:
            lines.append("It does not beat a well chosen length here; it spares you the choice.")
    return "\n".join(lines)


def published() -> list[dict[str, Any]]:
    """English to German with T5-XXL (11B) at temperature 0 and three drafts, 7 tokens a round
    (Leviathan et al. 2023, arXiv:2211.17192, table 2): parameters, acceptance rate, speed-up."""
    return [
        {"draft": "T5-small", "parameters": 77e6, "gamma": 7, "alpha": 0.75, "speedup": 3.4},
        {"draft": "T5-base", "parameters": 250e6, "gamma": 7, "alpha": 0.80, "speedup": 2.8},
        {"draft": "T5-large", "parameters": 800e6, "gamma": 7, "alpha": 0.82, "speedup": 1.7},
    ]
