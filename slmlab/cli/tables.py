"""How commands print their tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slmlab.checking.render import LOOKS
from slmlab.cli.catalogue import ExerciseRow, Lesson
from slmlab.cli.workspace import Delivery

NOT_STARTED = LOOKS["unattempted"].word


def _print(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    # Text, not str: a title with [brackets] is no markup. The first column is copied by readers,
    # so it stays in one piece however narrow the terminal is.
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        table.add_column(head, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_delivery(delivery: Delivery) -> None:
    """What an update did, file by file; files without news are only counted."""
    news = [outcome for outcome in delivery.outcomes if outcome.action != "current" or outcome.note]
    if news:
        _print(("file", "", "note"), [(each.name, each.action, each.note) for each in news])
    print(
        f"{delivery.count('added', 'restored', 'replaced')} file(s) written, "
        f"{delivery.count('kept')} kept with the new version beside them, "
        f"{delivery.count('current')} up to date."
    )


def print_lessons(lessons: Sequence[Lesson]) -> None:
    """One line a lesson."""
    _print(("lesson", "title"), [(lesson.name, lesson.title) for lesson in lessons])


def print_exercises(rows: Sequence[ExerciseRow]) -> None:
    """One row an exercise, difficulty as one to three stars, "-" where it was not started.

    Points are left to `slmlab progress`: 80 columns hold an id and a title on two lines without.
    """
    heads = ("exercise", "title", "min", "lvl", "state", "hints")
    _print(
        heads,
        [
            (
                row.id,
                row.title,
                str(row.minutes),
                "*" * row.difficulty,
                "-" if row.state == NOT_STARTED else row.state,
                f"{row.hints}/3",
            )
            for row in rows
        ],
    )
