"""Lessons 00 and 01 run under nbval with the ipywidgets that Colab ships, and install only there."""

import ast
import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cold_start.lessons import LESSONS, ROOT

COLAB = Path(os.environ.get("SLMLAB_COLAB_PACKAGES") or Path(sys.prefix) / "colab")
PINS = Path(__file__).with_name("colab.txt")

pytestmark = pytest.mark.skipif(
    not COLAB.is_dir(), reason=f"no {COLAB}: `make pytest` installs Colab's ipywidgets there"
)

# How many controls of the anatomy explorer a learner can move.
CONTROLS = {"01_anatomy_and_roofline": 5}

# set_state is what a message of the browser leads to.
MOVE_EVERY_CONTROL = """
import ipywidgets


def held(*kinds):
    return [one for one in ipywidgets.Widget.widgets.values() if isinstance(one, kinds)]


moved = held(ipywidgets.Dropdown, ipywidgets.SelectionSlider)
for control in moved:
    before = [text.value for text in held(ipywidgets.HTML)]
    control.set_state({"index": (control.index + 1) % len(control.options)})
    assert [text.value for text in held(ipywidgets.HTML)] != before, control.description
print(ipywidgets.__version__, len(moved))
"""

AS_ON_COLAB = """
import types

sys.modules["google.colab"] = types.ModuleType("google.colab")
"""

# Stands before the real pip on the path: one line for each call.
RECORDING_PIP = """
import os
import sys

with open(os.environ["PIP_RECORD"], "a") as record:
    print(*sys.argv[1:], file=record)
"""


@dataclass(frozen=True)
class Run:
    """One run of pytest over the lessons. pip: the arguments of each call of pip, in order."""

    process: subprocess.CompletedProcess[str]
    report: ElementTree.Element
    cells: int
    pip: list[str]


def pins() -> dict[str, str]:
    """Package -> version in colab.txt."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found}


def install_block(lesson: NotebookNode) -> str:
    """The statement of `lesson` that installs the package on Colab."""
    source = next(cell.source for cell in lesson.cells if cell.cell_type == "code")
    blocks = [ast.get_source_segment(source, node) or "" for node in ast.parse(source).body]
    [block] = [block for block in blocks if "google.colab" in block]
    return block


def with_probes(path: Path) -> NotebookNode:
    """The lesson at `path`, and after it two cells: the widgets moved, the install block again."""
    lesson = nbformat.read(path, as_version=4)
    shown = f"{pins()['ipywidgets']} {CONTROLS.get(path.stem, 0)}\n"
    # A count, because nbval compares only what was run.
    widgets = new_code_cell(
        MOVE_EVERY_CONTROL, execution_count=1, outputs=[new_output("stream", text=shown)]
    )
    install = new_code_cell(
        AS_ON_COLAB + install_block(lesson), metadata={"tags": ["nbval-ignore-output"]}
    )
    lesson.cells += [widgets, install]
    return lesson


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("colab")
    (folder / "before" / "pip").mkdir(parents=True)
    (folder / "before" / "pip" / "__init__.py").touch()
    (folder / "before" / "pip" / "__main__.py").write_text(RECORDING_PIP)
    cells = 0
    for path in LESSONS:
        lesson = with_probes(path)
        cells += sum(cell.cell_type == "code" for cell in lesson.cells)
        nbformat.write(lesson, folder / path.name)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder / "before"), str(COLAB)])
    environment["PIP_RECORD"] = str(folder / "record")
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml"),
        # The hooks of the root's conftest.py would not reach notebooks outside of the repository.
        *("-p", "conftest", "-p", "no:cacheprovider", f"--junitxml={folder / 'report.xml'}"),
        *(str(folder / path.name) for path in LESSONS),
    ]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800
    )
    report, record = folder / "report.xml", folder / "record"
    assert report.exists(), process.stdout + process.stderr
    calls = record.read_text().splitlines() if record.exists() else []
    return Run(process, ElementTree.parse(report).getroot(), cells, calls)


def test_the_folder_holds_the_versions_that_are_pinned() -> None:
    installed = importlib.metadata.distributions(path=[str(COLAB)])
    assert {canonicalize_name(one.name): one.version for one in installed} == pins()
    assert pins()["ipywidgets"].startswith("7.7.")


def test_every_cell_passes_and_every_control_moves(run: Run) -> None:
    [suite] = run.report.iter("testsuite")
    counts = {name: int(suite.attrib[name]) for name in ("failures", "errors", "skipped", "tests")}
    expected = {"failures": 0, "errors": 0, "skipped": 0, "tests": run.cells}
    assert counts == expected, run.process.stdout[-5000:]
    assert run.process.returncode == 0


def test_a_lesson_installs_on_colab_alone_and_leaves_colabs_packages_there(run: Run) -> None:
    # One call for each lesson, by its last cell. The first one, which is the same, made none.
    assert len(run.pip) == len(LESSONS)
    for call in run.pip:
        words = call.split()
        assert words[0] == "install" and "--no-deps" in words
        assert [word for word in words[1:] if not word.startswith("-")] == [
            "git+https://github.com/slmlab/slmlab"
        ]
