"""What a model was made from, written beside its weights as training.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slmlab.training.recipe import Recipe

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def write_provenance(out: Path, recipe: Recipe, work: Path, rows: dict[str, int]) -> Path:
    """Recipe, tokens, processor seconds, versions and hashes of a finished run.

    Args:
        out: the model directory, which receives training.json.
        work: the run's folder, whose log.tsv holds (step, loss, processor seconds) lines.
        rows: how many rows each source had.
    """
    steps = recipe.steps
    facts: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "recipe_digest": recipe.digest(),
        "tokens_seen": steps * recipe.tokens_per_step,
        "tokens_by_source": {
            source: steps * count * recipe.sequence_length for source, count in recipe.rows.items()
        },
        "tokens_available": {s: n * recipe.sequence_length for s, n in sorted(rows.items())},
        "processor_minutes": round(processor_seconds(work / "log.tsv") / 60, 1),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "sha256": {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(out.glob("*.safetensors")) + sorted(out.glob("tokenizer.json"))
        },
    }
    target = out / "training.json"
    partial = target.with_suffix(".part")
    partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, target)
    return target


def processor_seconds(log: Path) -> float:
    """Processor seconds of all steps in a log. The clock starts again with every process."""
    total = previous = 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        now = float(line.split("\t")[2])
        total += now - previous if now >= previous else now
        previous = now
    return total
