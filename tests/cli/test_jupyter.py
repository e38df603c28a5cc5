"""`slmlab lab`: what reaches JupyterLab, and one real server."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.cli import jupyter
from slmlab.cli.workbook import FIRST_LESSON
from tests.cli.trees import make_workbook, notebook

words = st.lists(st.text(min_size=1, max_size=8), max_size=5)


@given(words)
def test_options_pass_through_unchanged(rest: list[str]) -> None:
    arguments = ["--no-browser", *rest]
    assert jupyter.split_lab_arguments(arguments) == (None, arguments)
    assert jupyter.split_lab_arguments(["--", *arguments]) == (None, arguments)
    assert jupyter.split_lab_arguments(["a dir", *arguments]) == ("a dir", arguments)
    assert jupyter.split_lab_arguments(["a dir", "--", *arguments]) == ("a dir", arguments)


def test_no_arguments() -> None:
    assert jupyter.split_lab_arguments([]) == (None, [])
    assert jupyter.split_lab_arguments(["--"]) == (None, [])


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / FIRST_LESSON).parent.mkdir()
    (tmp_path / FIRST_LESSON).write_bytes(notebook("x"))
    return tmp_path


def test_root_is_told_about_allow_root(work: Path) -> None:
    command, notes = jupyter.jupyter_command(work, ["--port", "1"], root_user=True)
    assert command.count("--allow-root") == 1 and len(notes) == 1 and "root" in notes[0]
    assert command[-2:] == ["--port", "1"]
    for own in ("--allow-root", "--ServerApp.allow_root=True"):
        command, notes = jupyter.jupyter_command(work, [own], root_user=True)
        assert sum("allow" in word for word in command) == 1 and not notes


def test_an_ordinary_user_gets_nothing_added(work: Path) -> None:
    command, notes = jupyter.jupyter_command(work, [], root_user=False)
    assert command[1:] == [
        "-P",
        "-m",
        "jupyterlab",
        "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb",
    ]
    assert not notes


@pytest.mark.parametrize("own", ["--notebook-dir=/x", "--ServerApp.root_dir=/x"])
def test_the_learners_own_root_folder_wins(work: Path, own: str) -> None:
    command, _ = jupyter.jupyter_command(work, [own], root_user=False)
    assert not any("default_url" in word for word in command)


def test_a_deleted_first_lesson_is_not_opened(work: Path) -> None:
    (work / FIRST_LESSON).unlink()
    command, _ = jupyter.jupyter_command(work, [], root_user=False)
    assert not any("default_url" in word for word in command)


def test_one_thread_unless_chosen() -> None:
    environment, notes = jupyter.lab_environment({"A": "b"})
    assert (environment["A"], environment["OMP_NUM_THREADS"], len(notes)) == ("b", "1", 1)
    environment, notes = jupyter.lab_environment({"OMP_NUM_THREADS": "4"})
    assert environment["OMP_NUM_THREADS"] == "4" and not notes


def test_the_learner_is_not_asked_about_news_and_own_settings_come_first() -> None:
    environment, _ = jupyter.lab_environment({"JUPYTER_CONFIG_PATH": "mine"})
    mine, ours = environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    config = json.loads((Path(ours) / "labconfig" / "page_config.json").read_text())
    assert mine == "mine"
    assert config["disabledExtensions"]["@jupyterlab/apputils-extension:announcements"] is True


def test_without_jupyterlab_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install jupyterlab"):
        jupyter.require_jupyterlab()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def get_json(port: int, path: str) -> dict:
    url = f"http://127.0.0.1:{port}/api/{urllib.parse.quote(path)}?token=lesson"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.mark.skipif(
    importlib.util.find_spec("jupyterlab") is None, reason="JupyterLab is not installed"
)
def test_the_real_server_answers_on_lesson_00(tmp_path: Path) -> None:
    # The package runs from a copy of its command line beside a tiny workbook, as in a clone.
    root = tmp_path / "a clone ü"
    package = Path(jupyter.__file__).parents[1]
    (root / "slmlab/cli").mkdir(parents=True)
    (root / "slmlab/__init__.py").write_bytes((package / "__init__.py").read_bytes())
    for source in (package / "cli").glob("*.py"):
        (root / "slmlab/cli" / source.name).write_bytes(source.read_bytes())
    make_workbook(root, {FIRST_LESSON: notebook("1 + 1"), "exercises/a.ipynb": notebook("...")})
    home = tmp_path / "home"
    home.mkdir()
    dropped = ("JUPYTER", "IPYTHON", "XDG", "OMP_NUM", "COV", "PYTEST", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    environment |= {"HOME": str(home), "PYTHONPATH": str(root)}
    port = free_port()
    log = tmp_path / "log"
    command = [sys.executable, "-m", "slmlab.cli", "lab", "--no-browser"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--IdentityProvider.token=lesson"],
            cwd=root,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                status = get_json(port, "status")
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        assert status["kernels"] == 0
        lesson = get_json(port, f"contents/{FIRST_LESSON}")
        assert lesson["content"]["cells"][0]["source"] == "1 + 1"
        assert get_json(port, "contents/exercises/a.ipynb")["type"] == "notebook"
        assert (root / "work" / FIRST_LESSON).exists()
        assert f"/lab/tree/{FIRST_LESSON}" in log.read_text()
    finally:
        # exec: the process that was started IS the server, so a signal reaches it directly
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
    with pytest.raises(urllib.error.URLError):
        get_json(port, "status")
    assert "OMP_NUM_THREADS=1" in log.read_text()
    if os.geteuid() == 0:
        assert "--allow-root" in log.read_text()
