"""A class of 100 that hands in lesson 02, graded by `slmlab grade`, `nbgrader autograde`, `otter run`.

Half of the honest submissions have everything right, half have two wrong answers and a blank; some
submissions are hostile. All graders run on one core with the same time for a cell, and compare with
the same cases and expected values; a peer gets the functions without our decorator, so that it runs
no check of ours. A peer is timed on honest submissions alone, because a hostile one may stop it: in
a small and a larger class, from which the time for as many as ours is computed. Ours is timed on
that many honest ones, and on the whole class with the hostile ones. What each makes of the hostile
ones is shown apart. Prints tables; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._grading_class import Handed, draw_class
from benchmarks._grading_hostile import HOSTILE
from benchmarks._grading_rounds import Entry, judge_hostile, peak_mb, race, rate, ratio, seconds_for
from benchmarks._grading_ways import Nbgrader, Otter, Slmlab, Way, quantization_exercises

AIM = 10.0  # times nbgrader, issue 8
SEED = 8


@dataclass(frozen=True)
class Sizes:
    """How much is run. few, many: the two classes of a peer. memory_apart: memory is taken in a run
    of its own, which the timed ones are not disturbed by; else a peer's in that of the hostile ones.
    """

    students: int = 100
    hostile: int = len(HOSTILE)
    few: int = 2
    many: int = 10
    otter_few: int = 1
    otter_many: int = 4
    rounds: int = 3
    cell_seconds: float = 10.0
    hostile_seconds: float = 120.0
    memory_apart: bool = True


FULL = Sizes()
SHORT = Sizes(
    4,
    hostile=1,
    few=1,
    many=1,
    otter_few=1,
    otter_many=1,
    rounds=1,
    cell_seconds=20,
    memory_apart=False,
)


def one_core() -> int | None:
    """Keeps this process and all that it starts on one core; its number, None where that fails."""
    try:
        core = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})
    except (AttributeError, OSError):
        return None
    return core


def measure(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """All figures."""
    exercises = quantization_exercises()
    ways: list[Way] = [
        kind(exercises, SEED, sizes.cell_seconds) for kind in (Slmlab, Nbgrader, Otter)
    ]
    ours, *peers = ways
    handed = draw_class(sizes.students, sizes.hostile, SEED)
    honest = [one for one in handed if one.kind != "hostile"]
    hostile = [one for one in handed if one.kind == "hostile"]

    mixed = Entry(ours, folder / "mixed", handed).prepare()
    alone = Entry(ours, folder / "honest", honest).prepare()
    entries = [mixed, alone]
    pairs: dict[str, tuple[Entry, Entry]] = {}
    for peer in peers:
        if peer.version is None:
            continue
        few, many = (
            (sizes.few, sizes.many)
            if peer.name == "nbgrader"
            else (sizes.otter_few, sizes.otter_many)
        )
        large = Entry(peer, folder / f"{peer.name}_many", _half_right(honest, many)).prepare()
        small = large
        if few < many:
            small = Entry(peer, folder / f"{peer.name}_few", _half_right(honest, few)).prepare()
            entries.append(small)
        pairs[peer.name] = (small, large)
        entries.append(large)
    race(entries, sizes.rounds)

    figures: dict[str, Any] = {
        "slmlab": {
            "version": ours.version,
            "honest": rate(len(honest), alone.seconds),
            "mixed": rate(len(handed), mixed.seconds),
            "honest_seconds": _rounded(alone.seconds),
            "mixed_seconds": _rounded(mixed.seconds),
            "not_right": {"honest": alone.wrong(), "mixed": mixed.wrong()},
            "peak_mb": peak_mb(lambda: mixed.way.run(mixed.folder)),
            "hostile": _judged(mixed, hostile),
        }
    }
    for peer in peers:
        if peer.name not in pairs:
            figures[peer.name] = None
            continue
        small, large = pairs[peer.name]
        scaled = seconds_for(len(honest), small, large)
        whole = seconds_for(len(handed), small, large)
        attacked = Entry(peer, folder / f"{peer.name}_hostile", hostile).prepare()
        judged: dict[str, str] = {}
        peak = peak_mb(
            lambda attacked=attacked, judged=judged: judged.update(  # type: ignore[misc]
                judge_hostile(attacked, sizes.hostile_seconds)
            )
        )
        if sizes.memory_apart:
            peak = peak_mb(lambda large=large: large.way.run(large.folder))  # type: ignore[misc]
        figures[peer.name] = {
            "version": peer.version,
            "timed_on": [len(small.handed), len(large.handed)],
            "seconds": {"few": _rounded(small.seconds), "many": _rounded(large.seconds)},
            "honest": rate(len(honest), scaled),
            "ours_over_it": {
                "honest": ratio(alone.seconds, scaled),
                "ours_with_hostile": ratio(mixed.seconds, whole),
            },
            "not_right": {"honest": large.wrong()},
            "peak_mb": peak,
            "hostile": judged,
        }
    return {
        "seed": SEED,
        "students": {"all": len(handed), "honest": len(honest), "hostile": len(hostile)},
        "rounds": sizes.rounds,
        "cell_seconds": sizes.cell_seconds,
        "graders": figures,
        "left_out": {peer.name: peer.left_out for peer in peers if peer.version is None},
        "aim_over_nbgrader": AIM,
    }


def _half_right(honest: Sequence[Handed], count: int) -> list[Handed]:
    """`count` honest submissions, right and wrong in turns as in the whole class."""
    kinds = [[one for one in honest if one.kind == kind] for kind in ("right", "wrong")]
    return [kinds[number % 2][number // 2] for number in range(count)]


def _judged(entry: Entry, hostile: Sequence[Handed]) -> dict[str, str]:
    """Ours grades them among all others: they need no run of their own."""
    wrong = entry.wrong()
    return {
        one.name.partition("_")[2]: "wrong" if one.name in wrong else "right" for one in hostile
    }


def _rounded(seconds: Sequence[float]) -> list[float]:
    return [round(one, 2) for one in seconds]


def show(measured: dict[str, Any], console: Console) -> None:
    """The tables."""
    students, figures = measured["students"], measured["graders"]
    title = f"{students['honest']} honest submissions of lesson 02, one core, {measured['rounds']} rounds"
    table = Table(
        "grader", "timed on", "a minute", "low", "high", "peak MiB", "ours is", title=title
    )
    for name, row in figures.items():
        if row is None:
            table.add_row(name, measured["left_out"][name])
            continue
        on = " and ".join(map(str, row.get("timed_on", [students["honest"]])))
        over = row.get("ours_over_it", {}).get("honest")
        times = "" if over is None else f"{over['ratio']} times ({over['low']} to {over['high']})"
        shown = [str(row["honest"][key]) for key in ("median", "low", "high")]
        table.add_row(f"{name} {row['version']}", on, *shown, str(row["peak_mb"]), times)
    mixed = figures["slmlab"]["mixed"]
    table.add_row(
        f"slmlab, {students['hostile']} hostile ones too",
        str(students["all"]),
        *(str(mixed[key]) for key in ("median", "low", "high")),
    )
    console.print(table)
    names = [name for name, row in figures.items() if row is not None]
    table = Table("hostile submission", *names, title="is its score right?")
    for attack in figures["slmlab"]["hostile"]:
        table.add_row(attack, *(figures[name]["hostile"][attack] for name in names))
    counts = [list(figures[name]["hostile"].values()).count("right") for name in names]
    table.add_row("right", *(f"{count} of {students['hostile']}" for count in counts))
    console.print(table)
    for name in names:
        wrong = figures[name]["not_right"]
        console.print(f"{name}: honest submissions with a wrong score: {wrong['honest'] or 'none'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="a handful of submissions, one round")
    sizes = SHORT if parser.parse_args(arguments).short else FULL
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    core = one_core()
    try:
        with tempfile.TemporaryDirectory(prefix="grading-race-") as folder:
            measured = {"one_core": core is not None} | measure(sizes, Path(folder))
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
    show(measured, Console(width=130))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
