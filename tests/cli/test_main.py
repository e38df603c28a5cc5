"""The commands through typer's runner, and as processes where start-up matters."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slmlab.checking import Case, Exact, Exercise, Mistake, registered
from slmlab.checking.progress_file import ProgressFile
from slmlab.cli import doctor, jupyter, workbook
from slmlab.cli.catalogue import Lesson, lessons
from slmlab.cli.findings import Finding, Report
from slmlab.cli.main import app
from tests.cli.trees import edit, make_workbook, notebook

LESSON = "notebooks/00_start_here.ipynb"
runner = CliRunner()


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny clone as the current directory, and a progress file of its own."""
    root = tmp_path / "clone"
    made = make_workbook(root, {LESSON: notebook("v1"), "exercises/x.ipynb": notebook("e1")})
    monkeypatch.setattr(workbook, "find_workbook", lambda: made)
    monkeypatch.setenv("SLMLAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(root)
    return root


def call(*words: str, code: int = 0, stdin: str | None = None) -> str:
    result = runner.invoke(app, list(words), input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result.output


def test_help_and_version_need_no_torch() -> None:
    script = (
        "import sys; from slmlab.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers', 'IPython'} & set(sys.modules)"
    )
    for words in (["--help"], ["version"], ["lab", "--help"], ["reset", "--help"]):
        subprocess.run([sys.executable, "-c", script, *words], check=True, capture_output=True)


def test_usage_errors_have_exit_code_2() -> None:
    call("nonsense", code=2)
    call("hint", code=2)
    call("reset", code=2)
    call("reset", "anatomy.x", "--all", code=2)
    call("progress", "--export", "a", "--import", "b", code=2)
    call("generate", "x", "--seed", "not a number", code=2)


def test_lab_copies_and_starts(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(*what):
        started.append(what)
        return 7

    monkeypatch.setattr(jupyter, "start", start)
    call("lab", "--no-browser", "--port", "8899", code=7)
    call("lab", "my folder", "--", "--no-browser", "x.ipynb", code=7)
    (command, work, environment), (other, elsewhere, _) = started
    assert command[-3:] == ["--no-browser", "--port", "8899"]
    assert other[-2:] == ["--no-browser", "x.ipynb"]
    assert work == clone / "work" and elsewhere == clone / "my folder"
    assert environment["OMP_NUM_THREADS"]
    assert (work / LESSON).exists() and (elsewhere / LESSON).exists()


def test_lab_into_the_sources_is_one_sentence(clone: Path) -> None:
    output = call("lab", "notebooks/work", code=1)
    assert output.count("\n") == 1 and "lies inside" in output


def test_lab_where_a_file_is(clone: Path) -> None:
    (clone / "taken").write_text("")
    output = call("lab", "taken", code=1)
    assert output.count("\n") == 1 and "is a file, not a folder" in output


def test_update_reports_what_it_kept(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`slmlab lab` makes it" in call("update", code=1)
    monkeypatch.setattr(jupyter, "start", lambda *what: 0)
    call("lab")
    edit(clone / "work" / LESSON, "mine")
    make_workbook(clone, {LESSON: notebook("v2"), "exercises/x.ipynb": notebook("e2")})
    assert "2 file(s) have a new version" in call("lab")
    output = call("update")
    assert "00_start_here.new.ipynb" in output and "1 kept" in output and "1 file(s)" in output
    assert "2 up to date" in call("update")
    (clone / "work/exercises/x.ipynb").unlink()
    assert "--restore" in call("update")
    assert "restored" in call("update", "--restore")
    (clone / "work/.slmlab-manifest.json").write_text("{")
    assert "could not be read" in call("update")


def test_update_fills_no_foreign_folder(clone: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.ipynb").write_text("mine")
    output = call("update", str(foreign), code=1)
    assert f'`slmlab lab "{foreign}"`' in output and output.count("\n") == 1
    assert [path.name for path in foreign.iterdir()] == ["chapter.ipynb"]


def test_a_terminal_of_plain_letters_still_lists(clone: Path) -> None:
    edit(clone / LESSON, "# Größer")
    (clone / "list.py").write_text(
        "from pathlib import Path\nfrom slmlab.cli import main, workbook\n"
        "made = workbook.Workbook(Path.cwd(), checkout=True)\n"
        "workbook.find_workbook = lambda: made\nmain.app(['list'])\n"
    )
    for encoding in ("ascii", "ascii:surrogateescape"):
        done = subprocess.run(
            [sys.executable, "list.py"],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert b"Gr??er" in done.stdout


def test_system_errors_are_one_sentence(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere/x")

    monkeypatch.setattr("slmlab.cli.workspace.deliver", refuse)
    output = call("lab", code=1)
    assert output == "No space left on device: '/somewhere/x'\n"


def test_debug_shows_the_traceback(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("inner")

    monkeypatch.setattr("slmlab.cli.workspace.deliver", broken)
    assert "unforeseen KeyError" in call("lab", code=1)
    assert isinstance(runner.invoke(app, ["--debug", "lab"]).exception, KeyError)


def test_doctor_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report([Finding("a [red]", "warning", "b", "mend it")])
    monkeypatch.setattr(doctor, "doctor", lambda: report)
    output = call("doctor")
    assert "a [red]" in output and "mend it" in output
    report.append(Finding("c", "problem", "d", "e"))
    call("doctor", code=1)
    assert [each["state"] for each in json.loads(call("doctor", "--json", code=1))] == [
        "warning",
        "problem",
    ]


def exercise(name: str) -> Exercise:
    def work(x: int) -> int:
        return x + 1

    return Exercise(
        id=f"toy.{name}",
        title="Add one [exactly]",
        points=3,
        minutes=5,
        difficulty=2,
        cases=lambda seed: [Case({"x": seed})],
        reference=work,
        mistakes=tuple(Mistake(f"m{i}", f"Off by {i}.", lambda x, i=i: x - i) for i in range(3)),
        hints=("the invariant holds", "1 becomes 2", "return x + 1"),
        compare=Exact(),
        alternatives=(lambda x: 1 + x,),
    )


def test_list_and_hint() -> None:
    with registered("toy", (exercise("one"), exercise("two"))):
        record("toy.two")
        assert "the invariant holds" in call("hint", "toy.one")
        assert "1 becomes 2" in call("hint", "toy.one")
        assert "return x + 1" in call("hint", "toy.one", "--rung", "3")
        call("hint", "toy.one", "--rung", "4", code=1)
        assert "toy.one" in call("hint", "toy.on", code=1)  # the close match
        output = runner.invoke(app, ["list"]).output
    lines = [line.split() for line in output.splitlines() if line.startswith("toy.")]
    title = ["Add", "one", "[exactly]", "5", "**"]
    assert lines == [
        ["toy.one", *title, "-", "3/3"],
        ["toy.two", *title, "passed", "0/3"],
    ]
    assert "00_start_here" in output


def test_list_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wide = replace(
        exercise("arithmetic_intensity_xyz"), title="Repair this: top-p that keeps too little"
    )
    assert len(wide.id) == len("anatomy.arithmetic_intensity")
    with registered("toy", (wide,)):
        output = runner.invoke(app, ["list"]).output
    assert max(map(len, output.splitlines())) <= 80
    start = output.splitlines().index(next(x for x in output.splitlines() if wide.id in x))
    rows = [line.rstrip() for line in output.splitlines()[start:]]
    shown = [rows[0]]
    for row in rows[1:]:
        if not row.startswith(" "):
            break
        shown.append(row)
    assert len(shown) <= 2
    assert {"Repair", "little"} <= set(" ".join(shown).split())


def test_lessons_are_listed_by_their_heading(clone: Path) -> None:
    first, second = clone / LESSON, clone / "notebooks/01_x.ipynb"
    edit(first, "intro\n# The title\n# Not this one")
    second.write_text("{")
    assert lessons(workbook.Workbook(clone, checkout=True)) == [
        Lesson("00_start_here", "The title"),
        Lesson("01_x", "01_x"),
    ]


def test_generate_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    class Echo:
        def generate(self, prompt, *, stream, **settings):
            assert settings["max_new_tokens"] == 3 and settings["seed"] == 5
            for piece in ("a ", "b"):
                stream(prompt + piece)

    loaded = []

    def load(name):
        loaded.append(name)
        return Echo()

    monkeypatch.setattr("slmlab.generation.load", load)
    words = ("generate", ">", "--max-new-tokens", "3", "--seed", "5")
    assert call(*words) == ">a >b\n"
    monkeypatch.setenv("SLMLAB_MODEL", "some-folder")
    call(*words)
    assert loaded == ["tiny", "some-folder"]


def test_generate_bad_argument() -> None:
    output = call("generate", "x", "--model", "/no/such/folder", code=1)
    assert output.count("\n") == 1 and "/no/such/folder" in output


def test_installation_without_lessons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    with pytest.raises(ValueError, match="Reinstall"):
        workbook.find_workbook(tmp_path)


def record(exercise_id: str) -> None:
    ProgressFile().record_outcome(exercise_id, "passed", 1.0)


def test_progress_travels_as_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("anatomy.rms_norm")
    target = tmp_path / "export ü.json"
    assert "export ü.json" in call("progress", "--export", str(target))
    assert "exists" in call("progress", "--export", str(target), code=1)
    call("progress", "--export", str(target), "--overwrite")
    monkeypatch.setenv("SLMLAB_PROGRESS", str(tmp_path / "other machine.json"))
    call("progress", "--import", str(target))
    assert ProgressFile().read().exercise("anatomy.rms_norm").outcome == "passed"
    target.write_text("{")
    output = call("progress", "--import", str(target), code=1)
    assert output.count("\n") == 1 and "not a slmlab progress export" in output
    assert ProgressFile().read().exercise("anatomy.rms_norm").outcome == "passed"


def test_reset_asks_first() -> None:
    record("anatomy.rms_norm")
    record("anatomy.other")
    call("reset", "anatomy.rms_norm", stdin="n\n", code=1)
    call("reset", "anatomy.rms_norm", stdin="", code=1)
    assert set(ProgressFile().read().exercises) == {"anatomy.rms_norm", "anatomy.other"}
    unknown = call("reset", "anatomy.rms_nrm", stdin="y\n", code=1)
    assert "anatomy.rms_norm" in unknown and "Forget" not in unknown and unknown.count("\n") == 1
    call("reset", "anatomy.rms_norm", stdin="y\n")
    assert set(ProgressFile().read().exercises) == {"anatomy.other"}
    assert "Nothing is recorded" in call("reset", "anatomy.rms_norm", "--yes", code=1)
    call("reset", "--all", "--yes")
    assert not ProgressFile().read().exercises
