"""LoRA, all weights or a distilled student for one domain, read from what `make prove` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slmlab.measure import load_result
from slmlab.widgets.distillation_study import whole

LORA = "lora_domain"
_WAYS = {
    "tiny": "tiny as it is",
    "lora": "LoRA",
    "full": "all weights",
    "student": "2-layer student",
}
_LORA_COLUMNS = {
    "domain_accuracy": ("greenhouse calls", "{:.0%}"),
    "outside_accuracy": ("tiny's own calls", "{:.0%}"),
    "domain_bits_per_byte": ("its bits/byte", "{:.3f}"),
    "outside_bits_per_byte": ("prose bits/byte", "{:.3f}"),
    "trained_parameters": ("trained", "{:,.0f}"),
    "cpu_seconds": ("CPU-s in all", "{:.0f}"),
    "decode_over_tiny": ("tokens/s / tiny", "{:.2f}"),
}


def lora_text(folder: str | Path | None = None) -> str | None:
    """Four ways to one domain, one line each: means over the seeds; None where it was not run.

    folder: as in `load_study`. Raises ValueError for a file that is damaged.
    """
    record = load_result(LORA, folder)
    return None if record is None else whole(LORA, lambda: _lora_text(record))


def _lora_text(record: dict[str, Any]) -> str:
    measured = record["measured"]
    ways = {way: found["summary"] for way, found in measured["ways"].items()}
    lines = [f"{'':16}" + "".join(f"{name:>18}" for name, _ in _LORA_COLUMNS.values())]
    for way, found in ways.items():
        cells = (form.format(_mean(way, found, key)) for key, (_, form) in _LORA_COLUMNS.items())
        lines.append(f"{_WAYS.get(way, way):16}" + "".join(f"{cell:>18}" for cell in cells))
    seeds = max(found["domain_accuracy"]["n"] for found in ways.values())
    tuned = {way: found for way, found in ways.items() if way != "tiny"}
    again = ways["tiny"]["decode_over_tiny"]["mean"]
    remembered = max(found["outside_accuracy"]["mean"] for found in tuned.values())
    lines += [
        f"Means of up to {seeds} seeds; domain: {measured['domain']}. CPU-s of the student hold its teacher's, "
        f"{ways['student']['teacher_cpu_seconds']['mean']:.0f}.",
        f"tokens/s over tiny's: 1 by definition for tiny; timed twice against itself it was {again:.2f}, "
        "which shows the noise.",
        f"Most {measured['domain']} right: {_lead(tuned, 'domain_accuracy')}.",
        f"Fewest parameters trained: {_lead(tuned, 'trained_parameters', most=False)}. "
        f"Fastest: {_lead(tuned, 'decode_over_tiny')}.",
        f"Most of tiny's own calls kept: {_lead(tuned, 'outside_accuracy')}."
        if remembered > 0
        else "None of them still answers one of tiny's own calls: tuned on one domain, each forgot the other.",
    ]
    return "\n".join(lines)


def _mean(way: str, found: dict[str, Any], key: str) -> float:
    """A cell's value: time with the teacher's, and tiny's own speed as the measure."""
    mean = float(found[key]["mean"])
    if key == "cpu_seconds":
        return mean + float(found["teacher_cpu_seconds"]["mean"])
    return 1.0 if (way, key) == ("tiny", "decode_over_tiny") else mean


def _lead(tuned: dict[str, Any], metric: str, most: bool = True) -> str:
    """The way with the best mean; where others are closer than a standard deviation, all of them."""
    found = {way: summary[metric] for way, summary in tuned.items()}
    first = max(found, key=lambda way: found[way]["mean"] if most else -found[way]["mean"])
    near = [
        way
        for way, one in found.items()
        if way == first
        or abs(one["mean"] - found[first]["mean"]) < max(one["sd"], found[first]["sd"])
    ]
    names = [_WAYS.get(way, way) for way in near]
    return names[0] if len(names) == 1 else f"{', '.join(names)} cannot be told apart"
