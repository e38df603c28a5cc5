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
_FACTS: dict[str, type | tuple[type, ...]] = {
    "recipe_digest": str,
    "tokens_seen": int,
    "tokens_by_source": dict,
    "processor_minutes": (int, float),
    "python": str,
    "packages": dict,
    "sha256": dict,
}


def write_provenance(out: Path, recipe: Recipe, work: Path, rows: dict[str, int]) -> Path:
    """Recipe, tokens, processor seconds, versions and hashes of a finished run.

    Args:
        out: the model directory, which receives training.json.
        work: the run's folder, whose log.tsv holds (step, loss, processor seconds) lines.
        rows: how many rows each source had.
    """
    seen = {
        source: recipe.rows_before(recipe.steps, source) * recipe.sequence_length
        for source in recipe.sources
    }
    facts: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "recipe_digest": recipe.digest(),
        "tokens_seen": sum(seen.values()),
        "tokens_by_source": seen,
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


def read_provenance(directory: Path) -> dict[str, Any]:
    """The facts that :func:`write_provenance` left in a model directory.

    Raises:
        ValueError: training.json cannot be read, or lacks what a model card is written from.
    """
    path = directory / "training.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Recipe(**facts["recipe"])
        for name, kind in _FACTS.items():
            if not isinstance(facts[name], kind):
                raise TypeError(f"{name} is {facts[name]!r}")
        if not all(isinstance(n, int) for n in facts["tokens_by_source"].values()):
            raise TypeError("tokens_by_source holds no counts")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): train the model again, or "
            "delete the file to evaluate without its training record"
        ) from None
    return facts


def processor_seconds(log: Path) -> float:
    """Processor seconds of all steps in a log. The clock starts again with every process."""
    total = previous = 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        now = float(line.split("\t")[2])
        total += now - previous if now >= previous else now
        previous = now
    return total
