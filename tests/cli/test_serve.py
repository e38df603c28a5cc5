"""`slmlab serve` up to the point where it serves; tests/serving runs the server itself."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path

import pytest
import uvicorn
from typer.testing import CliRunner

from slmlab.cli import serve
from slmlab.cli.main import app
from slmlab.cli.serve import greeting, is_loopback, listen, public_name

runner = CliRunner()


def call(*words: str, code: int = 0) -> str:
    result = runner.invoke(app, ["serve", *words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        output = call("--port", str(port), code=1)
        assert output.count("\n") == 1 and f"port {port}" in output and "--port" in output
        with pytest.raises(ValueError, match="is taken"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "x" * 300, "a..b"])
def test_a_host_that_is_not_ours(host: str) -> None:
    output = call("--host", host, "--port", "0", code=1)
    assert output.count("\n") == 1 and host in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dtype", "int3"], "--dtype int3"),
        (["--token-budget", "4"], "--max-batch 8"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_bad_arguments_are_one_sentence(words: list[str], said: str) -> None:
    output = call("--port", "0", *words, code=1)
    assert output.count("\n") == 1 and said in output


@pytest.mark.parametrize(
    "words", [["--port", "70000"], ["--num-blocks", "0"], ["--max-batch", "x"]]
)
def test_usage_errors(words: list[str]) -> None:
    call(*words, code=2)


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_other_machines_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, host: str, warned: bool
) -> None:
    served = []

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        served.append(sockets[0].getsockname())
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.Server, "run", run)
    monkeypatch.setenv("SLMLAB_MODEL", "tiny-draft")
    output = call("--host", host, "--port", "0", "--num-blocks", "4")
    assert ("no authentication" in output) == warned
    assert served[0][0] == host
    assert f":{served[0][1]}/v1 (Ctrl-C ends it)" in output and "tiny-draft is served" in output
    assert output.endswith("Stopped.\n")


def test_the_curl_line_is_one_that_a_shell_understands() -> None:
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("::1", "[::1]")):
        try:
            listener = listen(host, 0)
        except ValueError:
            assert host == "::1"  # a machine without IPv6
            continue
        with listener:
            port = listener.getsockname()[1]
            words = shlex.split(greeting("tiny", listener).splitlines()[1])
        assert words[:2] == ["curl", f"http://{shown}:{port}/v1/completions"]
        assert json.loads(words[-1])["model"] == "tiny"


def test_loopback() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("127.8.8.8")
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("fe80::1%eth0")


def test_public_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my model").mkdir()
    assert public_name(str(tmp_path / "my model")) == public_name("my model/") == "my model"
    assert public_name("tiny") == "tiny"
    assert public_name("some/hub-id") == "some/hub-id"
