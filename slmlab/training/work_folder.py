"""The folders of a run, and the record of what its token rows were made from."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from slmlab.training.recipe import Recipe
from slmlab.training.stage import SOURCES

RECORD = "prepared.json"
_CACHED = ("tokenizer.json", *(f"{source}.npy" for source in SOURCES))


def check_folder(name: str, path: Path) -> None:
    """Refuse a place where no folder can be: better before the first step than after the last.

    Raises:
        ValueError: ``path`` or a parent of it is a file, or may not be written to.
    """
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists() or p.is_symlink())
    if not nearest.is_dir():
        raise ValueError(f"{name} {path} cannot be a folder: {nearest} is a file; name another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{name} {path} cannot be written: {nearest} is read-only; name another")


def claim_work_folder(recipe: Recipe, work: Path, teacher: Path | None = None) -> None:
    """Record what the token rows in ``work`` are made from, before the first of them is written.

    Raises:
        ValueError: ``work`` holds a tokenizer or rows that another recipe made, or that nobody
            recorded.
    """
    wanted = _ingredients(recipe, teacher)
    record = work / RECORD
    mend = f"delete the folder {work}, or pass --work"
    if record.exists():
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{record} is damaged: {mend}")
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed:
            raise ValueError(f"{work} holds rows of another recipe ({changed[0]} differs): {mend}")
        return
    if any((work / name).exists() for name in _CACHED):
        raise ValueError(f"{work} holds rows of an unknown recipe (no {RECORD}): {mend}")
    partial = record.with_suffix(".part")
    partial.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, record)


def _ingredients(recipe: Recipe, teacher: Path | None) -> dict[str, Any]:
    """Every choice that decides the rows. A teacher of the same name may be another model."""
    values: dict[str, Any] = {
        "seed": recipe.seed,
        "sequence_length": recipe.sequence_length,
        "vocab_size": recipe.vocab_size,
        "grammar_tokens": recipe.grammar_tokens,
        "teacher": recipe.teacher,
        "sampled_tokens": recipe.sampled_tokens,
    }
    if "sampled" in recipe.sources:
        values["sampled_from"] = [source for source in recipe.sources if source != "sampled"]
    if teacher is not None:
        files = [*sorted(teacher.glob("*.safetensors")), teacher / "tokenizer.json"]
        values["teacher_sha256"] = {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.is_file()
        }
    return values
