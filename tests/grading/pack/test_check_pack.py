"""The template is green; with each thing broken it is red, in the right place."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import slmlab
from slmlab.checking import registry
from slmlab.cli.main import app
from slmlab.grading.pack import check_pack, new_pack, open_pack
from slmlab.grading.pack.checks import COLUMNS, Findings
from slmlab.grading.pack.handout import read_handout

MEAN, CLIP = "my_drills.running_mean", "my_drills.clip_norm"
SEEDS = (0,)


def check(root: Path) -> Findings:
    with open_pack(root) as pack:
        return check_pack(pack, SEEDS)


def red(findings: Findings) -> dict[str, set[str]]:
    """Exercise id -> the columns in which something is wrong; "" for the pack as a whole."""
    found = {
        row.exercise.id: {column for column in COLUMNS if row.problems[column]}
        for row in findings.rows
    }
    found = {name: columns for name, columns in found.items() if columns}
    return found | ({"": set()} if findings.problems else {})


def words(findings: Findings) -> str:
    rows = [text for row in findings.rows for texts in row.problems.values() for text in texts]
    return "\n".join([*rows, *findings.problems])


def test_the_template_holds(pack: Path, own_progress: Path) -> None:
    before = (list(sys.path), registry.topics(), dict(vars(slmlab)))
    with open_pack(pack) as opened:
        assert (opened.name, opened.version) == ("my-drills", "0.1.0")
        assert [item.id for item in opened.exercises] == [MEAN, CLIP]
        assert registry.get(MEAN) is opened.exercises[0]
        findings = check_pack(opened)
    assert findings.holds and red(findings) == {} and findings.problems == ()
    after = (list(sys.path), registry.topics(), dict(vars(slmlab)))
    assert after == before, "the check leaves something behind"
    assert not any(name.startswith("my_drills") for name in sys.modules)
    assert not own_progress.exists(), "a check is not a learner's attempt"


BROKEN = {
    "a mistake that passes": (
        ("running_mean.py", "    return values.cumsum(0)\n", "    return reference(values)\n"),
        {MEAN: {"mistakes"}},
        "does not fail",
    ),
    "a mistake that looks like another": (
        ("running_mean.py", "    return values.cumsum(0)\n", "    return _whole_length(values)\n"),
        {MEAN: {"mistakes"}},
        "cannot be told apart",
    ),
    "a wrong alternative": (
        ("running_mean.py", "values[: end + 1].mean()", "values[:end].sum()"),
        {MEAN: {"solution"}},
        "'_in_a_loop' does not pass",
    ),
    "a reference that fails": (
        (
            "running_mean.py",
            "    return values.cumsum(0) / torch",
            "    return values.cumsums(0) / torch",
        ),
        {MEAN: {"blank", "solution", "mistakes", "handout"}},
        "cumsums",
    ),
    "cases that change": (
        ("running_mean.py", "torch.Generator().manual_seed(seed)", "None"),
        {MEAN: {"spec"}},
        "cases differ",
    ),
    "the same hint twice": (
        (
            "running_mean.py",
            '"return cumulative sums / (1, 2, ..., n)"',
            '"[2, 4, 9]: sums 2, 6, 15, counts 1, 2, 3, means 2, 3, 5."',
        ),
        {MEAN: {"spec"}},
        "two hints are the same",
    ),
    "an id that the pack lacks": (
        ("handout.py", '"my_drills.running_mean")', '"my_drills.runing_mean")'),
        {MEAN: {"handout"}, "": set()},
        "there is no exercise 'my_drills.runing_mean'",
    ),
    "two cells for one exercise": (
        ("handout.py", '"my_drills.clip_norm")', '"my_drills.running_mean")'),
        {"": set()},
        "two cells name my_drills.running_mean",
    ),
    "a solution without marks": (
        (
            "handout.py",
            "    ### BEGIN SOLUTION\n    counts = torch.arange(1, len(values) + 1)\n"
            "    return torch.cumsum(values, dim=0) / counts\n    ### END SOLUTION\n",
            "    counts = torch.arange(1, len(values) + 1)\n"
            "    return torch.cumsum(values, dim=0) / counts\n",
        ),
        {MEAN: {"handout"}},
        "the blank reports passed, not unattempted",
    ),
    "a blank that answers": (
        (
            "handout.py",
            "    ### BEGIN SOLUTION\n    counts",
            "    return values\n    ### BEGIN SOLUTION\n    counts",
        ),
        {MEAN: {"handout", "solution"}},
        "the blank reports wrong",
    ),
    "a wrong solution": (
        ("handout.py", "dim=0) / counts", "dim=0)"),
        {MEAN: {"solution"}},
        "the solution reports wrong",
    ),
    "a solution that stands in the text too": (
        (
            "handout.py",
            "# - **In**: `values`, float32 `(n,)`.",
            "#     counts = torch.arange(1, len(values) + 1)\n"
            "#     return torch.cumsum(values, dim=0) / counts",
        ),
        {MEAN: {"handout"}},
        "stands in another cell",
    ),
    "no end mark": (
        ("handout.py", "/ counts\n    ### END SOLUTION\n", "/ counts\n"),
        {"": set()},
        "nbgrader refuses it",
    ),
    "a cell that fails": (
        ("handout.py", "import torch\n", "import torch\n1 / 0\n"),
        {MEAN: {"handout"}, CLIP: {"handout"}, "": set()},
        "ZeroDivisionError",
    ),
    "a name that shadows the decorator": (
        (
            "handout.py",
            "from slmlab import exercise, hint, progress\n",
            "from slmlab import hint, progress\n",
        ),
        {MEAN: {"handout"}, CLIP: {"handout"}, "": set()},
        "defines no function",
    ),
    "a module that fails": (
        ("__init__.py", "from .clip_norm import CLIP_NORM", "raise RuntimeError('no')"),
        {"": set()},
        "RuntimeError: no",
    ),
    "a list of exercises": (
        ("__init__.py", "= (RUNNING_MEAN, CLIP_NORM)", "= [RUNNING_MEAN, CLIP_NORM]"),
        {"": set()},
        "must be a tuple",
    ),
    "an id of another topic": (
        ("clip_norm.py", 'id="my_drills.clip_norm"', 'id="drills.clip_norm"'),
        {"": set()},
        "must begin with",
    ),
    "a topic that is taken": (
        ("pyproject.toml", 'my_drills = "my_drills:EXERCISES"', 'kv = "my_drills:EXERCISES"'),
        {"": set()},
        "offered by slmlab already",
    ),
    "no exercises": (
        ("__init__.py", "= (RUNNING_MEAN, CLIP_NORM)", "= ()"),
        {"": set()},
        "there is no exercise",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_with_one_thing_broken_it_is_red(pack: Path, kind: str) -> None:
    (file, old, new), wanted, sentence = BROKEN[kind]
    (path,) = [path for path in pack.rglob("*") if path.name == file]
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, "the template has changed"
    path.write_text(text.replace(old, new), encoding="utf-8")
    findings = check(pack)
    assert not findings.holds
    assert sentence in words(findings), words(findings)
    assert red(findings) == wanted, words(findings)


def test_a_pack_without_a_handout(pack: Path) -> None:
    (pack / "handout.py").unlink()
    findings = check(pack)
    assert findings.problems == (
        "The pack has no handout: write handout.py or handout.ipynb beside it.",
    )


def test_a_handout_that_is_a_blank_notebook_is_as_good(pack: Path, tmp_path: Path) -> None:
    blank = read_handout(pack / "handout.py").blank
    (pack / "handout.py").unlink()
    content = {"cells": blank, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (pack / "handout.ipynb").write_text(json.dumps(content))
    assert check(pack).holds
    (pack / "handout.ipynb").write_text("no notebook")
    assert "is no notebook of nbformat 4" in words(check(pack))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not toml", "names no exercises"),
        ("[project]\nname = 'x'\n", "names no exercises"),
        (None, "is no pack"),
    ],
)
def test_a_folder_that_is_no_pack(pack: Path, text: str | None, sentence: str) -> None:
    file = pack / "pyproject.toml"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(ValueError, match=sentence), open_pack(pack):
        pass


def test_names() -> None:
    with pytest.raises(ValueError, match="There is no pack 'nosuchpack'"), open_pack("nosuchpack"):
        pass
    with pytest.raises(ValueError, match="There is no pack 'numpy'"), open_pack("numpy"):
        pass
    with open_pack("slmlab") as by_name, open_pack("start") as by_topic:
        assert by_name == by_topic
        assert by_name.exercises == registry.all_exercises()


@pytest.mark.parametrize("name", ["kv", "json", "class", "数", "1st"])
def test_a_name_that_cannot_be_a_pack(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="DIR"):
        new_pack(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_new_pack_replaces_nothing(pack: Path) -> None:
    with pytest.raises(ValueError, match="is not empty"):
        new_pack(pack)


def test_the_command(pack: Path, tmp_path: Path) -> None:
    def call(*arguments: str, code: int) -> str:
        result = CliRunner().invoke(app, ["check-pack", *arguments])
        assert result.exit_code == code, result.output
        return result.output

    shown = call(str(pack), code=0)
    assert "my-drills 0.1.0: 2 exercises" in shown and "The pack holds." in shown
    row = next(line for line in shown.splitlines() if line.startswith(CLIP))
    assert row.split()[1:] == ["3", "ok", "ok", "ok", "3", "ok", "ok"]
    handout = pack / "handout.py"
    handout.write_text(handout.read_text().replace("/ counts", "* counts"))
    shown = call(str(pack), code=1)
    assert f"{MEAN}, solution: handout.py: the solution reports wrong, not passed" in shown
    assert "does not hold" in shown
    assert "There is no pack" in call("nosuch", code=1)
    assert "give a pack" in call(code=2)
    assert str(tmp_path / "other" / "handout.py") in call("--new", str(tmp_path / "other"), code=0)


@pytest.fixture
def as_installed(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What an editable install leaves in site-packages; gives the folder of the metadata."""
    info = tmp_path / "site" / "my_drills-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-drills\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[slmlab.exercises]\nmy_drills = my_drills:EXERCISES\n")
    origin = {"dir_info": {"editable": True}, "url": pack.as_uri()}
    (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(pack))
    monkeypatch.syspath_prepend(str(info.parent))
    yield info
    registry._loaded.pop("my_drills", None)
    for name in [name for name in sys.modules if name.startswith("my_drills")]:
        del sys.modules[name]


def test_an_installed_pack_is_found_by_its_name_and_topic(as_installed: Path, pack: Path) -> None:
    for name in ("my-drills", "my_drills"):
        with open_pack(name) as opened:
            assert (opened.name, opened.version) == ("my-drills", "0.1.0")
            assert [item.id for item in opened.exercises] == [MEAN, CLIP]
            assert opened.handouts == (pack / "handout.py",)
            assert check_pack(opened, SEEDS).holds
    (as_installed / "direct_url.json").unlink()
    with open_pack("my-drills") as opened:
        assert opened.handouts == (), "an ordinary install has what is in its package"
    (pack / "my_drills" / "handout.py").write_text((pack / "handout.py").read_text())
    with open_pack("my-drills") as opened:
        assert opened.handouts == (pack / "my_drills" / "handout.py",)


@pytest.mark.slow
def test_an_editable_install_is_found_by_its_name(pack: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--prefix", str(prefix)]
    subprocess.run([*pip, *options, "--editable", str(pack)], check=True)
    (site,) = prefix.rglob("site-packages")
    places = os.pathsep.join([str(site), str(pack)])
    done = subprocess.run(
        [sys.executable, "-m", "slmlab.cli", "check-pack", "my-drills"],
        env=os.environ | {"PYTHONPATH": places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The pack holds." in done.stdout
