"""Build notebooks/, exercises/ and solutions/ from authoring/.

    python -m authoring.build              sources, ids and metadata; stored outputs stay
    python -m authoring.build --execute    and run what is older than its source
    python -m authoring.build --execute --force 01_anatomy_and_roofline     (or: all)
    python -m authoring.build --check      one sentence for each stale notebook, exit status 1

A notebook's metadata says which source it came from, that source's hash, and the hash of the source
that its outputs came from. A second build of an unchanged tree writes nothing.
"""

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from authoring.assignments import blank, solved
from authoring.committed import read_committed, stamp
from authoring.execution import execute
from authoring.failure import BuildError
from authoring.files import write_if_changed
from authoring.outputs import clean_outputs, keep_outputs
from authoring.sources import Source, exercise_cells, find_sources, link_exercises, read_source

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("notebooks", "exercises", "solutions")


@dataclass(frozen=True)
class Target:
    """One notebook to build: `name` is its path relative to the repository, posix style."""

    name: str
    path: Path
    source: Source
    runs: bool

    def committed(self) -> NotebookNode | None:
        """The notebook on disk; None where there is none or it is not a notebook."""
        return read_committed(self.path, self.name)


def find_targets(root: Path = ROOT) -> list[Target]:
    """Every notebook that authoring/ describes: a lesson gives one, an exercises.py gives two."""
    targets = []
    for source in find_sources(root):
        folders = ("notebooks",) if source.is_lesson else ("exercises", "solutions")
        for folder in folders:
            name = f"{folder}/{source.topic}.ipynb"
            targets.append(Target(name, root / name, source, folder != "exercises"))
    return targets


def build(root: Path = ROOT, run: bool = False, force: Collection[str] = ()) -> list[str]:
    """Write every notebook whose bytes change; return one sentence for each that was written.

    With `run`, notebooks whose outputs are older than their source are executed first, and those of
    the topics in `force` ("all": every topic). Raises BuildError after the last notebook, with all
    that went wrong; a notebook that failed is left as it was.
    """
    targets = find_targets(root)
    unknown = set(force) - {target.source.topic for target in targets} - {"all"}
    if unknown:
        raise BuildError(f"--force: no topic {', '.join(sorted(unknown))} in authoring/.")
    places = _exercise_places(targets)
    written, failures = [], []
    for target in targets:
        try:
            committed = target.committed()
            notebook = _rebuild(target, places, committed)
            forced = bool({"all", target.source.topic} & set(force))
            if run and target.runs and (forced or _outputs_are_old(target, committed)):
                _refresh_outputs(notebook, target, root)
            text = _serialise(notebook)
        except BuildError as error:
            failures.append(_name_the_file(target, error))
            continue
        if write_if_changed(target.path, text):
            written.append(f"{target.name} built from {target.source.name}")
    if failures:
        raise BuildError("\n".join(failures))
    return written


def check(root: Path = ROOT) -> list[str]:
    """One sentence for each notebook that is stale, missing, edited by hand or without a source."""
    targets = find_targets(root)
    try:
        places = _exercise_places(targets)
    except BuildError as error:
        return [str(error)]
    sentences = [sentence for target in targets if (sentence := _state(target, places))]
    known = {target.path for target in targets}
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.ipynb")):
            if path not in known:
                sentences.append(f"{folder}/{path.name} has no source in authoring/: delete it.")
    return sentences


def _state(target: Target, places: dict[str, str]) -> str | None:
    try:
        return _stale(target, places)
    except BuildError as error:
        return _name_the_file(target, error)


def _stale(target: Target, places: dict[str, str]) -> str | None:
    if not target.path.exists():
        return f"{target.name} is not built yet: run `make notebooks EXECUTE=1`."
    committed = target.committed()
    if committed is None:
        return f"{target.name} is not a notebook: run `make notebooks EXECUTE=1`."
    sha256 = target.source.sha256
    if stamp(committed).get("source_sha256") != sha256:
        return f"{target.name} is older than {target.source.name}: run `make notebooks EXECUTE=1`."
    if target.runs and _outputs_are_old(target, committed):
        return (
            f"{target.name} shows outputs of an older {target.source.name}: "
            "run `make notebooks EXECUTE=1`."
        )
    rebuilt = _serialise(_rebuild(target, places, committed))
    if rebuilt != target.path.read_text(encoding="utf-8"):
        return (
            f"{target.name} is not what {target.source.name} builds (edited by hand, or built by an "
            "older pipeline): run `make notebooks`."
        )
    return None


def _outputs_are_old(target: Target, committed: NotebookNode | None) -> bool:
    if committed is None:
        return True
    return stamp(committed).get("executed_sha256") != target.source.sha256


def _exercise_places(targets: Sequence[Target]) -> dict[str, str]:
    """Exercise id -> link to its cell, as seen from notebooks/ and exercises/ alike."""
    places: dict[str, str] = {}
    for source in dict.fromkeys(target.source for target in targets):
        if source.is_lesson:
            continue
        for identifier, cell_id in exercise_cells(read_source(source)).items():
            if identifier in places:
                raise BuildError(f"{source.name}: another exercises.py has '{identifier}' too.")
            places[identifier] = f"../exercises/{source.topic}.ipynb#cell-id={cell_id}"
    return places


def _rebuild(
    target: Target, places: dict[str, str], committed: NotebookNode | None
) -> NotebookNode:
    notebook = read_source(target.source)
    link_exercises(notebook, places, target.source)
    if not target.source.is_lesson:
        notebook = solved(notebook) if target.runs else blank(notebook)
    about = {"source": target.source.name, "source_sha256": target.source.sha256}
    if target.runs and committed is not None:
        keep_outputs(notebook, committed)
        executed = stamp(committed).get("executed_sha256")
        if isinstance(executed, str):
            about["executed_sha256"] = executed
    notebook.metadata["slmlab"] = NotebookNode(about)
    return notebook


def _refresh_outputs(notebook: NotebookNode, target: Target, root: Path) -> None:
    print(f"running {target.name}", flush=True)
    target.path.parent.mkdir(exist_ok=True)
    execute(notebook, target.path.parent)
    clean_outputs(notebook, root)
    # Of the text that was built, not of the file by now: it may have been edited meanwhile.
    notebook.metadata.slmlab.executed_sha256 = notebook.metadata.slmlab.source_sha256


def _name_the_file(target: Target, error: BuildError) -> str:
    message = str(error)
    named = target.source.name in message or target.name in message
    return message if named else f"{target.source.name}, {message}"


def _serialise(notebook: NotebookNode) -> str:
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise BuildError(f"not a valid notebook: {error.message}") from None
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m authoring.build", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--execute", action="store_true", help="run what is older than its source")
    parser.add_argument("--force", nargs="+", default=[], metavar="TOPIC", help="run these anyway")
    parser.add_argument("--check", action="store_true", help="change nothing, report what is stale")
    options = parser.parse_args(arguments)
    if options.check and (options.execute or options.force):
        parser.error("--check changes nothing: leave --execute and --force out")
    if options.force and not options.execute:
        parser.error("--force needs --execute")
    try:
        if options.check:
            sentences = check()
            print("\n".join(sentences) or "every notebook is what its source builds")
            return 1 if sentences else 0
        written = build(run=options.execute, force=options.force)
        print("\n".join(written) or "nothing to build: every notebook is what its source builds")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
