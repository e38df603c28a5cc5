"""What Binder reads in this repository: it finds environment.yml, and postBuild guards torch."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.cold_start.lessons import LESSONS, ROOT

ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
# repo2docker takes the first of these that it finds, and environment.yml after them.
PREFERRED = (
    *("binder", ".binder", "Dockerfile", "Project.toml", "REQUIRE", "default.nix"),
    *("install.R", "DESCRIPTION", "runtime.txt"),
)

# `python -`, postBuild's check, runs with the torch of the test; everything else is written down.
PYTHON = """#!/bin/sh
if [ "$1" = - ]; then exec "$REAL_PYTHON" -; fi
echo "$@" >> calls
if [ "$FAILS" = "$2" ]; then exit 1; fi
"""
needs_bash = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("bash") is None, reason="postBuild is a bash script"
)


@dataclass(frozen=True)
class Build:
    """One run of postBuild. calls: what it asked of python after its check."""

    status: int
    said: str
    calls: list[str]


def post_build(folder: Path, torch: str, cuda: str | None, fails: str = "") -> Build:
    """Run postBuild in `folder` over a torch of that version; `python -m FAILS` fails."""
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    (folder / "torch").mkdir()
    fake = f"from torch import version\n__version__ = {torch!r}\n"
    (folder / "torch" / "__init__.py").write_text(fake)
    (folder / "torch" / "version.py").write_text(f"cuda = {cuda!r}\n")
    shutil.copy(ROOT / "constraints.txt", folder)
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "REAL_PYTHON": sys.executable,
        "FAILS": fails,
    }
    done = subprocess.run(
        ["bash", str(ROOT / "postBuild")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    calls = folder / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    return Build(done.returncode, done.stdout + done.stderr, lines)


def torch_of_binder() -> str:
    """The version of torch that environment.yml asks for."""
    [pip] = [line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict)]
    [torch] = [Requirement(line) for line in pip if not line.startswith("-")]
    assert torch.name == "torch"
    return str(torch.specifier).removeprefix("==")


def test_binder_reads_environment_yml_and_its_python_is_one_that_we_support() -> None:
    assert not [name for name in PREFERRED if (ROOT / name).exists()]
    [version] = re.findall(r"python=(\S+)", " ".join(map(str, ENVIRONMENT["dependencies"])))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"{version}.0" in SpecifierSet(project["requires-python"])
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_the_badges_open_the_first_lesson() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = LESSONS[0].relative_to(ROOT).as_posix()
    assert LESSONS[0].exists()
    assert re.findall(r"mybinder\.org/v2/\S+urlpath=lab/tree/([^\s)]+)", readme) == [first]
    assert re.findall(r"colab\.research\.google\.com/github/\S+?/blob/main/([^\s)]+)", readme) == [
        first
    ]


@needs_bash
def test_the_torch_of_environment_yml_is_kept_and_slmlab_installed(tmp_path: Path) -> None:
    build = post_build(tmp_path, torch_of_binder(), cuda=None)
    assert build.status == 0, build.said
    assert build.calls[0].startswith("-m pip install ")
    assert " -c constraints.txt" in build.calls[0] and " -e ." in build.calls[0]


@needs_bash
@pytest.mark.parametrize(
    ("torch", "cuda"),
    [
        pytest.param("2.0.1+cpu", None, id="another version"),
        pytest.param(torch_of_binder().split("+")[0], "12.8", id="the CUDA build"),
    ],
)
def test_another_torch_ends_the_build_before_anything_is_installed(
    tmp_path: Path, torch: str, cuda: str | None
) -> None:
    build = post_build(tmp_path, torch, cuda)
    assert build.status != 0 and build.calls == []
    assert torch in build.said and torch_of_binder() in build.said


@needs_bash
def test_a_failed_installation_ends_the_build(tmp_path: Path) -> None:
    build = post_build(tmp_path, torch_of_binder(), cuda=None, fails="pip")
    assert build.status != 0
    assert [call.split()[1] for call in build.calls] == ["pip"]
