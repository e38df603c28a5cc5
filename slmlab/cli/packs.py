"""`slmlab release` and `slmlab check-pack`: the command line of slmlab.grading.pack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from slmlab.grading.pack.checks import Checked, Findings


def release(
    wanted: Annotated[
        list[str], typer.Argument(metavar="IDS_OR_TOPICS...", help="kv.bytes, or all of kv")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the notebooks and assignment.json.")],
    due: Annotated[str, typer.Option(metavar="DATE", help="2026-05-01, or 2026-05-01T18:00+02:00")],
    title: Annotated[str | None, typer.Option(help="Heading of the handout.")] = None,
    hand_in: Annotated[
        str | None, typer.Option(metavar="TEXT", help="How it is handed in, for the first cell.")
    ] = None,
    pack: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="A pack that is not installed.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier release in --out.")
    ] = False,
) -> None:
    """Make a handout of chosen exercises: blank notebooks with a due date.

    The assignment.json beside them is what `slmlab grade --assignment` takes.
    """
    from contextlib import ExitStack

    from slmlab.grading.pack import open_pack, read_due
    from slmlab.grading.pack import release as make
    from slmlab.grading.pack.release import HAND_IN

    date = read_due(due)
    with ExitStack() as stack:
        packs = [stack.enter_context(open_pack(name)) for name in pack or []]
        made = make(
            [word for text in wanted for word in text.split(",") if word],
            out,
            date,
            workbook=_workbook(),
            packs=packs,
            title=title,
            hand_in=HAND_IN if hand_in is None else hand_in,
            overwrite=overwrite,
        )
    for file in made.files:
        typer.echo(f"{file}")
    count, points = len(made.exercises), made.points
    typer.echo(f"{count} exercise{'s' * (count > 1)}, {points} point{'s' * (points > 1)}.")


def check_pack(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME_OR_DIR]", help="An installed pack, a topic, or a folder."),
    ] = None,
    new: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a new pack, to begin with.")
    ] = None,
) -> None:
    """Check a pack of your own: specs, blanks, solutions, mistakes and the handout.

    Imports the pack and runs its code. The exit status is 1 where something does not hold.
    """
    from slmlab.grading.pack import check_pack as check
    from slmlab.grading.pack import new_pack, open_pack

    if (name is None) == (new is None):
        raise typer.BadParameter("give a pack to check, or --new DIR")
    if new is not None:
        for file in new_pack(new):
            typer.echo(f"{file}")
        typer.echo(f'Check it with: slmlab check-pack "{new}"')
        return
    assert name is not None
    with open_pack(name) as pack:
        if pack.name == "slmlab":
            pack = replace(pack, handouts=tuple(_workbook()))
        findings = check(pack)
        typer.echo(f"{pack.name} {pack.version}: {len(findings.rows)} exercises")
    _print(findings)
    raise typer.Exit(0 if findings.holds else 1)


def _workbook() -> list[Path]:
    """The workbook's exercise notebooks."""
    from slmlab.cli.workbook import find_workbook

    return [
        path
        for name, path in find_workbook().files().items()
        if name.startswith("exercises/") and path.suffix == ".ipynb"
    ]


def _print(findings: Findings) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from slmlab.grading.pack.checks import COLUMNS

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(("exercise", "points", *COLUMNS)):
        table.add_column(head, no_wrap=number == 0)
    for row in findings.rows:
        cells = [row.exercise.id, str(row.exercise.points)]
        cells += [_state(row, column) for column in COLUMNS]
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)
    for row in findings.rows:
        for column, problems in row.problems.items():
            for problem in problems:
                typer.echo(f"{row.exercise.id}, {column}: {problem}")
    for problem in findings.problems:
        typer.echo(problem)
    typer.echo("The pack holds." if findings.holds else "The pack does not hold yet.")


def _state(row: Checked, column: str) -> str:
    if count := len(row.problems[column]):
        return f"{count} wrong"
    if column == "mistakes":
        return f"{len(row.exercise.mistakes)} ok"
    return "ok"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(release)
    app.command("check-pack")(check_pack)
