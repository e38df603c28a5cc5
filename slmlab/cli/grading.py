"""`slmlab grade` and `slmlab regrade`: the command line of slmlab.grading, and its progress bar."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from slmlab.grading.plan import Plan
    from slmlab.grading.records import Grade
    from slmlab.grading.reports import Results
    from slmlab.grading.store import Store

INTERRUPTED = 130

Submissions = Annotated[Path, typer.Argument(metavar="SUBMISSIONS", help="A folder or a zip.")]
Out = Annotated[Path, typer.Option(help="Folder for the grades, the feedback and the class page.")]
Exercises = Annotated[
    list[str] | None,
    typer.Option(help="Ids or topics, with commas or again (default: those in the submissions)."),
]
Seed = Annotated[int | None, typer.Option(help="Of the inputs (default: a secret one, kept).")]
Jobs = Annotated[
    int | None, typer.Option(help="Submissions at a time (default: as memory allows).")
]
Unsafe = Annotated[
    bool, typer.Option("--unsafe-no-sandbox", help="Run strangers' code as yourself.")
]
Dask = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Grade on a Dask cluster.")]
Seconds = Annotated[float | None, typer.Option(help="Seconds.")]
Count = Annotated[int | None, typer.Option()]


def grade(
    submissions: Submissions,
    out: Out,
    exercises: Exercises = None,
    assignment: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The assignment.json of `slmlab release`.")
    ] = None,
    seed: Seed = None,
    jobs: Jobs = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run in --out.")] = False,
    unsafe: Unsafe = False,
    dask: Dask = None,
    time_multiplier: Annotated[
        str | None, typer.Option(metavar="X|FILE", help="A factor, or a CSV student,multiplier.")
    ] = None,
    cell_seconds: Seconds = None,
    submission_seconds: Seconds = None,
    cpu_seconds: Seconds = None,
    memory_mb: Count = None,
    processes: Count = None,
    open_files: Count = None,
    tmp_mb: Count = None,
    output_mb: Count = None,
) -> None:
    """Grade the notebooks in SUBMISSIONS; strangers' code runs in a sandbox.

    Writes grades.csv, class.html, grades.json and a page of feedback for each student.
    """
    from slmlab.grading.collect import collect
    from slmlab.grading.driver import check_fresh
    from slmlab.grading.driver import grade as run
    from slmlab.grading.store import Store

    store = Store(out.expanduser())
    check_fresh(store, resume)
    if exercises and assignment:
        raise typer.BadParameter("give --exercises or --assignment, not both")
    _one_place(jobs, dask)
    given = {
        "cell_seconds": cell_seconds,
        "submission_seconds": submission_seconds,
        "cpu_seconds": cpu_seconds,
        "memory_mb": memory_mb,
        "processes": processes,
        "open_files": open_files,
        "tmp_mb": tmp_mb,
        "output_mb": output_mb,
    }
    before = _earlier(store) if resume else None
    source = submissions.expanduser()
    _apart(out.expanduser(), source)
    ids = _exercises(source, before, exercises, assignment)
    collected = collect(source, ids)
    plan = _plan(ids, before, seed, time_multiplier, given)
    plan = replace(plan, unsafe=unsafe)
    if before is not None:
        plan.check_goes_on(before)
        if before.limits != plan.limits:
            typer.echo("Other limits than before: what they touch is graded again.", err=True)
    strangers = sorted(set(plan.multipliers) - {item.student for item in collected})
    if strangers:
        typer.echo(f"--time-multiplier: no submission yet of {', '.join(strangers)}.", err=True)
    with _progress() as (started, finished):
        try:
            outcome = run(
                collected,
                store,
                plan,
                _pool(jobs, dask, plan),
                source=source,
                resume=resume,
                started=started,
                finished=finished,
            )
        except KeyboardInterrupt:
            done = sum(store.grade(item.student) is not None for item in collected)
            typer.echo(
                f"Stopped: {done} of {len(collected)} submissions are graded. The same command "
                "with --resume grades the others.",
                err=True,
            )
            raise typer.Exit(INTERRUPTED) from None
    _tell(store, outcome.results, outcome.resumed)


def regrade(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of `slmlab grade`.")],
    student: Annotated[str | None, typer.Option(help="Only this one, as in grades.csv.")] = None,
    exercise: Annotated[str | None, typer.Option(metavar="ID", help="Only this one.")] = None,
    submissions: Annotated[
        Path | None, typer.Option(help="Where they are now (default: where they were).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Other inputs (default: the same).")] = None,
    jobs: Jobs = None,
    unsafe: Unsafe = False,
    dask: Dask = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Run nothing: apply overrides.csv to the reports.")
    ] = False,
) -> None:
    """Grade again: all of DIR, one student or one exercise. Points in overrides.csv stay."""
    from slmlab.grading import regrading
    from slmlab.grading.collect import collect
    from slmlab.grading.plan import Plan
    from slmlab.grading.store import Store
    from slmlab.grading.tables_in import bare

    _one_place(jobs, dask)
    store = Store(directory.expanduser())
    run = store.read_run()
    if tables:
        _tell(store, regrading.rebuild(store), 0)
        return
    plan = Plan.from_json(run["plan"])
    source = submissions.expanduser() if submissions else Path(run["submissions"])
    if student is not None and student not in run["students"]:
        student = bare(student)
    with _progress() as (started, finished):
        try:
            results = regrading.regrade(
                collect(source, plan.exercises),
                store,
                _pool(jobs, dask, plan),
                student=student,
                exercise=exercise,
                seed=seed,
                unsafe=unsafe,
                started=started,
                finished=finished,
            )
        except KeyboardInterrupt:
            typer.echo("Stopped: the grades so far are kept, the others are as before.", err=True)
            raise typer.Exit(INTERRUPTED) from None
    _tell(store, results, 0)


def _one_place(jobs: int | None, dask: str | None) -> None:
    if jobs is not None and dask is not None:
        raise typer.BadParameter("give --jobs or --dask, not both: a cluster has its own workers")
    if jobs is not None and jobs < 1:
        raise typer.BadParameter(f"--jobs {jobs}: give at least 1")


def _apart(out: Path, submissions: Path) -> None:
    """What is written among the submissions would be a student in the next run."""
    if out.resolve().is_relative_to(submissions.resolve()):
        raise typer.BadParameter(
            f"--out {out} lies in SUBMISSIONS {submissions}: give a folder elsewhere"
        )


def _earlier(store: Store) -> Plan | None:
    from slmlab.grading.plan import Plan

    return Plan.from_json(store.read_run()["plan"]) if store.has_run() else None


def _exercises(
    source: Path, before: Plan | None, exercises: list[str] | None, assignment: Path | None
) -> tuple[str, ...]:
    """The ids to grade: those given, else those of the run that goes on, else the submissions'."""
    from slmlab.grading import choose
    from slmlab.grading.collect import collect

    if exercises:
        return choose.named_exercises(exercises)
    if assignment is not None:
        return choose.assigned_exercises(assignment)
    if before is not None:
        return before.exercises
    ids, left_out = choose.common_exercises(collect(source))
    typer.echo(f"Exercises: {', '.join(ids)}.")
    if left_out:
        few = ", ".join(f"{name} ({count})" for name, count in left_out.items())
        typer.echo(f"Left out, because few submissions name them: {few}; see --exercises.")
    return ids


def _plan(
    ids: tuple[str, ...],
    before: Plan | None,
    seed: int | None,
    time_multiplier: str | None,
    limits: dict[str, Any],
) -> Plan:
    """The plan; what is not given is as in the run that goes on, else the default."""
    from slmlab.grading.multipliers import read_multipliers
    from slmlab.grading.plan import SEED_BITS, Plan
    from slmlab.grading.records import Limits

    if seed is None:
        seed = before.seed if before is not None else secrets.randbits(SEED_BITS)
    base = before.limits if before is not None else Limits()
    chosen = {name: value for name, value in limits.items() if value is not None}
    if time_multiplier is None and before is not None:
        everybody, by_student = before.multiplier, before.multipliers
    else:
        everybody, by_student = read_multipliers(time_multiplier)
    return Plan(ids, seed, replace(base, **chosen), by_student, everybody)


def _pool(jobs: int | None, dask: str | None, plan: Plan) -> Callable[..., Iterator[Grade]]:
    from slmlab.grading.dask_pool import dask_grades
    from slmlab.grading.pool import default_jobs, local_grades

    if dask is not None:
        return lambda used, waiting: dask_grades(used, waiting, dask)
    count = jobs if jobs is not None else default_jobs(plan.limits)
    return lambda used, waiting: local_grades(used, waiting, count)


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[int, int], None], Callable[[Grade], None]]]:
    """A bar with the time left, on a terminal or in a notebook; a kill by SIGTERM ends as Ctrl-C."""
    from tqdm import tqdm

    from slmlab.checking.render import in_notebook
    from slmlab.training.interrupt import termination_interrupts

    kind: Any = tqdm
    if in_notebook():
        from tqdm import notebook

        kind = notebook.tqdm
    bars: list[Any] = []

    def started(resumed: int, total: int) -> None:
        hidden = not (in_notebook() or sys.stderr.isatty())
        bars.append(kind(total=total, initial=resumed, unit="submission", disable=hidden))

    def finished(one: Grade) -> None:
        bars[-1].update(1)
        if one.status in ("error", "unreadable"):
            message = f"{one.student}: {one.reason}"
            kind.write(message, file=sys.stderr) if sys.stderr.isatty() else None

    try:
        with termination_interrupts():
            yield started, finished
    finally:
        for bar in bars:
            bar.close()


def _tell(store: Store, results: Results, resumed: int) -> None:
    from collections import Counter

    from slmlab.grading.publish import CLASS, CSV
    from slmlab.grading.reports.results import UNSAFE

    count = Counter(item.status for item in results.grades)
    words = ", ".join(f"{number} {status}" for status, number in sorted(count.items()))
    taken = f", {resumed} of them in an earlier run" if resumed else ""
    typer.echo(f"{len(results.grades)} submissions: {words}{taken}.")
    typer.echo(f"{store.folder / CSV} is the table, {store.folder / CLASS} the page of the class.")
    if results.unsafe:
        typer.echo(UNSAFE, err=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(grade)
    app.command()(regrade)
