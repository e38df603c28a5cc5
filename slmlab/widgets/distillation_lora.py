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
    "domain_accuracy": ("its calls", "{:.0%}"),
    "outside_accuracy": ("tiny's calls", "{:.0%}"),
    "domain_bits_per_byte": ("its bits/byte", "{:.3f}"),
    "outside_bits_per_byte": ("prose bits/byte", "{:.3f}"),
    "trained_parameters": ("trained", "{:,.0f}"),
    "cpu_seconds": ("CPU-s", "{:.0f}"),
    "decode_over_tiny": ("decode/tiny", "{:.2f}"),
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
    lines = [f"{'':16}" + "".join(f"{name:>16}" for name, _ in _LORA_COLUMNS.values())]
    for way, found in ways.items():
        cells = (form.format(found[key]["mean"]) for key, (_, form) in _LORA_COLUMNS.items())
        lines.append(f"{_WAYS.get(way, way):16}" + "".join(f"{cell:>16}" for cell in cells))
    seeds = max(found["domain_accuracy"]["n"] for found in ways.values())
    tuned = {way: found for way, found in ways.items() if way != "tiny"}

    def first(metric: str, most: bool = True) -> str:
        means = {way: found[metric]["mean"] for way, found in tuned.items()}
        way = max(means, key=lambda w: means[w] if most else -means[w])
        return _WAYS.get(way, way)

    remembered = max(found["outside_accuracy"]["mean"] for found in tuned.values())
    lines += [
        f"Means of up to {seeds} seeds; domain: {measured['domain']}. Of the three trained ways, the most of its",
        f"commands are answered by: {first('domain_accuracy')}; the fewest parameters trained by: "
        f"{first('trained_parameters', most=False)}; the fastest: {first('decode_over_tiny')}.",
        f"The most of tiny's own calls are kept by: {first('outside_accuracy')}."
        if remembered > 0
        else "None of them still answers one of tiny's own calls: tuned on one domain, each forgot the other.",
    ]
    return "\n".join(lines)
