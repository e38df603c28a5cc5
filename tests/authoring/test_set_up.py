"""pyproject.toml, constraints.txt, Binder's files and the wheel agree with each other."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def constraints() -> list[Requirement]:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins(python: str) -> dict[str, Version]:
    """Package -> pinned version, as pip would read the file under that Python."""
    environment = {**default_environment(), "python_full_version": python}
    found: dict[str, Version] = {}
    for line in constraints():
        if line.marker is None or line.marker.evaluate(environment):  # type: ignore[arg-type]
            name = canonicalize_name(line.name)
            assert name not in found, f"{name} is pinned twice"
            [specifier] = line.specifier
            assert specifier.operator == "=="
            found[name] = Version(specifier.version)
    return found


@pytest.mark.parametrize("python", ["3.11.2", "3.11.9", "3.12.4", "3.13.1"])
def test_every_pin_is_plain_and_within_the_range(python: str) -> None:
    pinned = pins(python)
    assert not [name for name, version in pinned.items() if version.local]
    extras = PROJECT["optional-dependencies"]
    for group in (PROJECT["dependencies"], *(extras[name] for name in extras if name != "triton")):
        for line in group:
            requirement = Requirement(line)
            if requirement.name == PROJECT["name"]:  # an extra that takes in another one
                continue
            version = pinned[canonicalize_name(requirement.name)]
            assert version in requirement.specifier, f"{requirement} but {version} is pinned"


@pytest.mark.parametrize(
    ("package", "colab"), [("torch", "2.11.0"), ("transformers", "5.15.0"), ("ipywidgets", "7.7.1")]
)
def test_the_ranges_admit_colab(package: str, colab: str) -> None:
    [line] = [Requirement(x) for x in PROJECT["dependencies"] if Requirement(x).name == package]
    assert Version(colab) in line.specifier


def test_binder_gets_the_cpu_build_of_the_pinned_torch() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert re.findall(r"torch==(\S+)", text) == [f"{pins('3.12.4')['torch']}+cpu"]
    assert "-c constraints.txt" in (ROOT / "postBuild").read_text(encoding="utf-8")


def test_no_file_fixes_the_python_of_a_checkout() -> None:
    assert not (ROOT / ".python-version").exists()


@pytest.mark.parametrize("present", [True, False])
def test_the_wheel_carries_the_lessons_that_exist(tmp_path: Path, present: bool) -> None:
    root = tmp_path / "checkout"
    (root / "slmlab").mkdir(parents=True)
    (root / "slmlab" / "__init__.py").write_text("")
    for name in ("pyproject.toml", "hatch_build.py", "LICENSE"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    (root / "README.md").write_text("# slmlab\n")
    if present:
        for folder in ("notebooks", "exercises", "solutions"):
            (root / folder).mkdir()
            (root / folder / "01_topic.ipynb").write_text("{}")
            (root / folder / "notes.txt").write_text("")
        (root / "results").mkdir()
        (root / "results" / "race.json").write_text("{}")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=600)
    [wheel] = tmp_path.glob("slmlab-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if "_workbook" in name}
    names = ("notebooks/01_topic.ipynb", "exercises/01_topic.ipynb", "results/race.json")
    assert carried == ({f"slmlab/_workbook/{name}" for name in names} if present else set())
