"""One stage of a recipe: how long, from which texts, and how deep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmlab.training.field_types import check_type

SOURCES = ("docs", "stdlib-docs", "code", "grammar", "sampled", "copies")


@dataclass(frozen=True)
class Stage:
    """``steps`` batches with ``rows`` sequences from each source.

    rows: source -> sequences a batch; the sources are SOURCES ("sampled" is text that the teacher
    of a draft wrote, "copies" are passages of the other text repeated). layers: train only so many of the first layers (slmlab.training.growth);
    all of them if absent. pieces: into how many sequences a row is cut; short ones cost less and
    teach about as much. Raises TypeError for a field of the wrong type, ValueError for a value
    that cannot be trained with.
    """

    steps: int
    rows: dict[str, int]
    layers: int | None = None
    pieces: int = 1

    def __post_init__(self) -> None:
        check_type("stages.steps", self.steps, "int")
        check_type("stages.rows", self.rows, "dict[str, int]")
        check_type("stages.layers", self.layers, "int | None")
        for source, count in self.rows.items():
            check_type(f"stages.rows.{source}", count, "int")
        check_type("stages.pieces", self.pieces, "int")
        if self.pieces < 1:
            raise ValueError(f"stages.pieces must be at least 1, got {self.pieces}")
        if self.steps < 1:
            raise ValueError(f"stages.steps must be at least 1, got {self.steps}")
        if not self.rows or set(self.rows) - set(SOURCES) or min(self.rows.values()) < 1:
            raise ValueError(
                f"stages.rows must give a positive count for some of {', '.join(SOURCES)}, got "
                f"{self.rows}"
            )


def read_stages(value: Any) -> tuple[Stage, ...]:
    """Stages from what a TOML or JSON file holds; raises as Stage, and for an unknown field."""
    if not isinstance(value, list | tuple) or not value:
        raise TypeError(f"stages must be a list of at least one table, got {value!r}")
    stages = []
    for table in value:
        if isinstance(table, Stage):
            stages.append(table)
            continue
        if not isinstance(table, Mapping):
            raise TypeError(f"stages must hold tables, got {table!r}")
        known = Stage.__dataclass_fields__
        if unknown := set(table) - set(known):
            raise ValueError(f"stages: unknown field {sorted(unknown)[0]!r}")
        if missing := {"steps", "rows"} - set(table):
            raise ValueError(f"stages: field {sorted(missing)[0]!r} is missing")
        stages.append(Stage(**table))
    return tuple(stages)
