"""`slmlab doctor`: each check tells ok from warning from problem, and never breaks itself."""

import json
import sys
from pathlib import Path

import pytest

from slmlab.cli import doctor, machine
from slmlab.cli.findings import Finding, Report


def test_python_versions() -> None:
    assert doctor.check_python((3, 11, 0)).state == "ok"
    old = doctor.check_python((3, 10, 14))
    assert old.state == "problem" and "3.11" in old.mend


def test_packages_against_ranges() -> None:
    found = doctor.check_packages(
        [
            "pytest>=1",
            "pytest>=1000",
            "a-package-that-nobody-has>=1",
            'left-out; extra == "dev"',
            'left-out; sys_platform == "nowhere"',
        ]
    )
    assert [(each.name, each.state) for each in found] == [
        ("pytest", "ok"),
        ("pytest", "warning"),
        ("a-package-that-nobody-has", "problem"),
    ]
    assert 'pip install "pytest>=1000"' in found[1].mend
    assert f"{pytest.__version__}, outside" in found[1].found


@pytest.mark.parametrize(("gigabytes", "state"), [(0.3, "problem"), (1.0, "warning"), (1.6, "ok")])
def test_memory_levels(gigabytes: float, state: str) -> None:
    finding = doctor.check_memory(int(gigabytes * 1e9))
    assert finding.state == state and f"{gigabytes:.1f} GB" in finding.found
    assert bool(finding.mend) == (state != "ok")


def test_memory_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("2000\n")
    (tmp_path / "memory.current").write_text("1500\n")
    assert machine.cgroup_available_bytes(tmp_path) == 500
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 400\n")
    assert machine.cgroup_available_bytes(tmp_path) == 900
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.cgroup_available_bytes(tmp_path) is None
    assert machine.cgroup_available_bytes(tmp_path / "absent") is None


def test_memory_of_an_older_container(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("3000")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1000")
    assert machine.cgroup_available_bytes(tmp_path) == 2000
    (tmp_path / "memory/memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert machine.cgroup_available_bytes(tmp_path) is None


def test_cpu_quota_of_a_container(tmp_path: Path) -> None:
    unlimited = machine.usable_cores(tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machine.usable_cores(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cores(tmp_path) == unlimited >= 1


def test_two_threads_on_two_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(doctor, "usable_cores", lambda: 2.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    finding = doctor.check_threads()
    assert finding.state == "warning" and "OMP_NUM_THREADS=1" in finding.mend
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert doctor.check_threads().state == "ok"


def test_progress_file(tmp_path: Path) -> None:
    wanted = tmp_path / "not yet/there/progress.json"
    assert doctor.check_progress_file(wanted).state == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    blocked = doctor.check_progress_file(tmp_path / "file/progress.json")
    assert blocked.state == "problem" and "SLMLAB_PROGRESS" in blocked.mend
    assert doctor.check_progress_file(tmp_path).state == "problem"
    (tmp_path / "damaged.json").write_bytes(b"{\xff")
    assert doctor.check_progress_file(tmp_path / "damaged.json").state == "warning"
    assert (tmp_path / "damaged.json").read_bytes() == b"{\xff"


def test_a_model_that_does_not_load_is_a_problem(tmp_path: Path) -> None:
    finding = doctor.check_model(str(tmp_path))
    assert finding.state == "problem" and finding.mend


def test_widgets_that_do_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_widgets().state == "ok"
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    finding = doctor.check_widgets()
    assert finding.state == "problem" and "pip install ipywidgets" in finding.mend


def test_colab_needs_no_jupyterlab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.check_jupyterlab().state == "problem"
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    assert doctor.check_jupyterlab().state == "ok"


def test_the_doctor_survives_a_check_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(doctor, "check_cpu", broken)
    monkeypatch.setattr(doctor, "check_model", lambda: Finding("model", "ok", "fine"))
    report = doctor.doctor()
    (finding,) = (each for each in report if each.name == "CPU")
    assert finding.state == "problem" and "illegal instruction" in finding.found
    names = {each.name for each in report}
    assert {"Python", "memory", "disk", "threads", "model", "widgets", "JupyterLab"} <= names


def test_report_in_every_form() -> None:
    report = Report([Finding("a", "ok", "1 < 2"), Finding("b", "warning", "x", "do <y>")])
    assert report.healthy and "0 problem(s), 1 warning(s)" in report.summary()
    assert "1 &lt; 2" in report._repr_html_() and "do &lt;y&gt;" in report._repr_html_()
    assert "1 < 2" in repr(report) and "do <y>" in repr(report)
    assert json.loads(report.to_json())[1] == {
        "name": "b",
        "state": "warning",
        "found": "x",
        "mend": "do <y>",
    }
    report.append(Finding("c", "problem", "z", "w"))
    assert not report.healthy
