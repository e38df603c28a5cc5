"""The `slmlab` command. Each command is a few lines; the work is done where it is imported from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from slmlab.cli import grading, packs
from slmlab.cli.failures import OneSentenceGroup

app = typer.Typer(
    cls=OneSentenceGroup,
    name="slmlab",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A hands-on workbook on small language models. Start with: slmlab lab",
)

INTERRUPTED = 130  # what a shell reports for a command that Ctrl-C ended

TeacherFolder = Annotated[
    Path | None,
    typer.Option(help="Of a draft: its teacher's folder (default: the embedded model)."),
]
ModelOption = Annotated[
    str, typer.Option(envvar="SLMLAB_MODEL", help="tiny, tiny-draft, a folder or a hub id.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
WorkFolder = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="Your copy: work in a checkout, slmlab-work elsewhere."),
]


@app.callback()
def options(debug: DebugOption = False) -> None:
    """A hands-on workbook on small language models. Start with: slmlab lab"""


def _work_folder(directory: Path | str | None) -> Path:
    from slmlab.cli.workbook import default_work_folder, find_workbook

    if directory is None:
        return default_work_folder(find_workbook(), Path.cwd())
    return Path(directory).expanduser().absolute()


@app.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    },
    options_metavar="[DIR] [-- LAB_ARGS...]",
)
def lab(context: typer.Context) -> None:
    """Copy lessons and exercises to a work folder and open JupyterLab there on lesson 00.

    DIR (default: work in a checkout, slmlab-work elsewhere) comes first, if at all. Every other
    word goes to JupyterLab unchanged, for example: slmlab lab --no-browser --port 8899
    """
    from slmlab.cli import jupyter
    from slmlab.cli.workbook import find_workbook
    from slmlab.cli.workspace import deliver

    directory, lab_arguments = jupyter.split_lab_arguments(context.args)
    jupyter.require_jupyterlab()
    work = _work_folder(directory)
    delivery = deliver(find_workbook(), work, replace=False)
    _tell(delivery.manifest_was_unreadable, work)
    typer.echo(f"Lessons and exercises are in {work} ({delivery.count('added')} added).")
    if waiting := delivery.count("waiting"):
        typer.echo(f"{waiting} file(s) have a new version: `slmlab update` brings them.")
    root_user = hasattr(os, "geteuid") and os.geteuid() == 0
    command, notes = jupyter.jupyter_command(work, lab_arguments, root_user=root_user)
    environment, more = jupyter.lab_environment(dict(os.environ))
    for note in [*notes, *more]:
        typer.echo(note)
    raise typer.Exit(jupyter.start(command, work, environment))


def _tell(unreadable: bool, work: Path) -> None:
    if unreadable:
        typer.echo(
            f"The record of what was delivered to {work} could not be read. It is set aside, and "
            "every file there is treated as edited.",
            err=True,
        )


@app.command()
def update(
    directory: WorkFolder = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring back files that you deleted.")
    ] = False,
) -> None:
    """Bring new versions of lessons and exercises; a file that you edited is never overwritten."""
    from slmlab.cli.tables import print_delivery
    from slmlab.cli.workbook import MANIFEST_NAME, check_work_folder, find_workbook
    from slmlab.cli.workspace import deliver

    work, workbook = _work_folder(directory), find_workbook()
    if not work.exists():
        raise ValueError(f"DIR {work} does not exist: `slmlab lab` makes it.")
    check_work_folder(workbook, work)
    if not (work / MANIFEST_NAME).exists():
        raise ValueError(
            f"DIR {work} holds no copy of the lessons (no {MANIFEST_NAME}): "
            f'`slmlab lab "{work}"` puts one there.'
        )
    delivery = deliver(workbook, work, restore=restore)
    _tell(delivery.manifest_was_unreadable, work)
    print_delivery(delivery)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check Python, packages, memory, threads, the model, widgets and JupyterLab."""
    from slmlab.cli.doctor import doctor as examine
    from slmlab.cli.findings import print_report

    report = examine()
    if as_json:
        typer.echo(report.to_json())
    else:
        print_report(report)
        typer.echo(report.summary())
    raise typer.Exit(0 if report.healthy else 1)


@app.command("list")
def list_() -> None:
    """List lessons and exercises, with what you have done of them."""
    from slmlab.checking.progress_file import ProgressFile
    from slmlab.cli.catalogue import exercise_rows, lessons
    from slmlab.cli.tables import print_exercises, print_lessons
    from slmlab.cli.workbook import find_workbook

    print_lessons(lessons(find_workbook()))
    rows, troubles = exercise_rows(ProgressFile().read())
    typer.echo()
    print_exercises(rows)
    for trouble in troubles:
        typer.echo(trouble, err=True)
    raise typer.Exit(1 if troubles else 0)


@app.command()
def hint(
    exercise_id: Annotated[str, typer.Argument(metavar="ID", help="for example anatomy.rms_norm")],
    rung: Annotated[int | None, typer.Option(help="Show rung 1, 2 or 3 instead.")] = None,
) -> None:
    """Show the next hint of an exercise."""
    from slmlab.checking import hint as show

    show(exercise_id, rung)


@app.command()
def progress(
    export_to: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write everything to FILE.")
    ] = None,
    import_from: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Merge an exported FILE.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Let --export replace FILE.")
    ] = False,
) -> None:
    """Show what you have passed; move it to another machine with --export and --import."""
    from slmlab.checking.dashboard import dashboard
    from slmlab.checking.progress_file import ProgressFile

    if export_to and import_from:
        raise typer.BadParameter("give --export or --import, not both")
    store = ProgressFile()
    if export_to:
        typer.echo(f"Progress written to {store.export_to(export_to, overwrite)}.")
        return
    logbook = store.import_from(import_from) if import_from else store.read()
    dashboard(logbook).show()


@app.command()
def reset(
    exercise_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Forget all progress.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget the progress of one exercise or prediction, or all of it. Notebooks are untouched."""
    from slmlab.checking.progress_file import ProgressFile

    if everything == (exercise_id is not None):
        raise typer.BadParameter("give the ID of one exercise, or --all")
    what = "ALL progress and predictions" if everything else f"the progress of {exercise_id}"
    store = ProgressFile()
    if exercise_id is not None:
        store.require(exercise_id)
    if not yes:
        typer.confirm(f"Forget {what} in {store.path}?", abort=True)
    store.reset(exercise_id)
    typer.echo(f"Forgot {what}.")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue.")],
    model: ModelOption = "tiny",
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the top p mass.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
) -> None:
    """Continue PROMPT with a model; the text appears as it is written."""
    from slmlab.generation import load

    load(model or "tiny").generate(
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stream=lambda piece: typer.echo(piece, nl=False),
    )
    typer.echo()


@app.command()
def serve(
    model: ModelOption = "tiny",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    num_blocks: Annotated[int, typer.Option(min=1, help="Blocks of the KV pool.")] = 256,
    block_size: Annotated[int, typer.Option(min=1, help="Tokens a block.")] = 16,
    max_batch: Annotated[int, typer.Option(min=1, help="Requests that run at a time.")] = 8,
    token_budget: Annotated[int, typer.Option(min=1, help="Tokens a step at most.")] = 256,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 256,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Serve a model over OpenAI's HTTP API; Ctrl-C ends it."""
    from slmlab.cli.serve import run_server

    run_server(
        model or "tiny",
        host,
        port,
        dtype,
        num_blocks=num_blocks,
        block_size=block_size,
        max_batch=max_batch,
        token_budget=token_budget,
        max_waiting=max_waiting,
    )


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="tiny, tiny-draft, or a .toml file (default: both, and their cards)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write (default: runs/NAME; for both, runs)."),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Token rows and checkpoint (default: OUT-work).")
    ] = None,
    teacher: TeacherFolder = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Train from text that is on this machine: a recipe, or the embedded pair and its cards.

    Goes on with an interrupted run.
    """
    from slmlab.cli.training import run_pair, run_training
    from slmlab.training.interrupt import termination_interrupts

    try:
        with termination_interrupts():
            if recipe is not None:
                typer.echo(run_training(recipe, out, work, threads, teacher))
            elif work is not None or teacher is not None:
                raise ValueError("--work and --teacher belong to one recipe: name it")
            else:
                typer.echo(run_pair(out, threads))
    except KeyboardInterrupt:
        typer.echo(
            "Interrupted. Every finished step is kept: the same command goes on from there.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="tiny, tiny-draft, or a folder.")] = "tiny",
    card: Annotated[bool, typer.Option("--card", help="Write the model's README.md.")] = False,
    teacher: TeacherFolder = None,
) -> None:
    """Measure a model on held-out tasks and texts: the table of its model card."""
    from slmlab.cli.training import run_evaluation

    run_evaluation(model, card, teacher)


@app.command()
def version() -> None:
    """Print the version of slmlab."""
    from slmlab import __version__

    typer.echo(f"slmlab {__version__}")


grading.register(app)
packs.register(app)
