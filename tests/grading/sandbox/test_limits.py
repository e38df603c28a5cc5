"""What ends a submission, and what it keeps then."""

from __future__ import annotations

import dataclasses

import pytest

from slmlab.checking import Case
from slmlab.grading.records import Limits
from slmlab.grading.sandbox import Sandbox, cgroup, processes
from tests.grading.sandbox.asking import ask, run
from tests.grading.sandbox.conftest import LIMITS, opened

DOUBLE = """
    from slmlab import exercise
    @exercise("t.double")
    def double(n):
        {before}
        return 2 * n
"""
CASES = {"t.double": tuple(Case({"n": n}) for n in (1, 2, 3))}
PIPE = """
    import os, stat, struct
    for pipe in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                break
        except OSError:
            pass
"""


def limits(**changes: float) -> Limits:
    return dataclasses.replace(LIMITS, **changes)  # type: ignore[arg-type]


def outputs(transcript, name: str = "t.double") -> list[list[object]]:
    return [[e.output for e in item.executions] for item in transcript.answers.get(name, ())]


def test_answers_come_back(sandbox: Sandbox) -> None:
    transcript = run(sandbox, DOUBLE.format(before=""), "x = 1", cases=CASES)
    assert transcript.ended == "finished" and transcript.reason == ""
    assert outputs(transcript) == [[2, 4, 6]]
    assert transcript.answers["t.double"][0].cell == 0
    assert [(cell.cell, cell.status) for cell in transcript.cells] == [(0, "ran"), (1, "ran")]
    assert transcript.cpu_seconds > 0 and transcript.peak_mb > 0


def test_a_slow_cell_is_skipped(usual: Sandbox) -> None:
    transcript = run(
        usual,
        "while True: pass",
        DOUBLE.format(before=""),
        cases=CASES,
        limits=limits(cell_seconds=0.3),
    )
    assert [cell.status for cell in transcript.cells] == ["timeout", "ran"]
    assert outputs(transcript) == [[2, 4, 6]]


def test_a_cell_that_blocks_signals_is_killed_and_left_out(usual: Sandbox) -> None:
    stubborn = """
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        while True: pass
    """
    transcript = run(
        usual,
        DOUBLE.format(before=""),
        stubborn,
        "print('later')",
        cases=CASES,
        limits=limits(cell_seconds=0.3),
    )
    assert transcript.ended == "finished", transcript
    assert [cell.status for cell in transcript.cells] == ["ran", "timeout", "ran"]
    assert transcript.cells[2].printed == "later\n"
    assert outputs(transcript) == [[2, 4, 6]]


def test_the_submission_has_a_time_too(usual: Sandbox) -> None:
    transcript = run(
        usual,
        DOUBLE.format(before=""),
        *["import time; time.sleep(60)"] * 8,
        cases=CASES,
        limits=limits(cell_seconds=0.4, submission_seconds=1.5),
    )
    assert transcript.ended == "time"
    assert outputs(transcript) == [[2, 4, 6]]
    assert transcript.cells[0].status == "ran" and len(transcript.cells) < 9


@pytest.mark.parametrize(
    "burn",
    ["while True: pass", "import os\n[os.fork() for _ in range(2)]\nwhile True: pass"],
    ids=["one process", "several"],
)
def test_cpu_time_of_all_processes(usual: Sandbox, burn: str) -> None:
    transcript = run(usual, "x = 1", burn, limits=limits(cpu_seconds=0.6))
    assert (transcript.ended, [cell.cell for cell in transcript.cells]) == ("cpu", [0])
    assert "CPU" in transcript.reason


def test_one_process_gets_a_memory_error(sandbox: Sandbox) -> None:
    transcript = run(sandbox, "x = bytearray(b'1') * (1 << 30)", "print(len(globals()) > 0)")
    assert transcript.ended == "finished"
    assert [cell.status for cell in transcript.cells] == ["raised", "ran"]
    assert transcript.cells[0].message.startswith("MemoryError")


BOMB = """
    import os, time
    for _ in range(5):
        if os.fork() == 0:
            x = bytearray(b'1') * (80 << 20)
            time.sleep(60)
    time.sleep(60)
"""


def test_memory_of_several_processes(sandbox: Sandbox) -> None:
    transcript = run(sandbox, "x = 1", BOMB)
    assert (transcript.ended, [cell.cell for cell in transcript.cells]) == ("memory", [0])


def test_memory_is_watched_without_a_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup.ControlGroup, "create", lambda: None)
    with opened() as sandbox:
        assert sandbox.description["cgroup"] is False
        assert run(sandbox, BOMB).ended == "memory"
        # Pages that a fork shares are not counted once a process.
        shared = "x = bytearray(b'1') * (100 << 20)\n" + "\n".join(
            ["import os, time", "[os.fork() or (time.sleep(1), os._exit(0)) for _ in range(5)]"]
        )
        assert run(sandbox, shared + "\ntime.sleep(0.5)").ended == "finished"


def test_fork_bomb(sandbox: Sandbox) -> None:
    code = """
        import time
        made = 0
        try:
            while made < 500:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
                made += 1
        except OSError as error:
            print(json.dumps([made, errno.errorcode[error.errno]]))
    """
    assert ask(sandbox, code) == [LIMITS.processes - 1, "EAGAIN"]


def test_open_files(usual: Sandbox) -> None:
    code = """
        held = []
        try:
            while len(held) < 5000:
                held.append(open("/dev/null"))
        except OSError as error:
            print(json.dumps([len(held) < 64, errno.errorcode[error.errno]]))
    """
    assert ask(usual, code) == [True, "EMFILE"]


def test_a_daemon_ends_with_its_submission(sandbox: Sandbox) -> None:
    assert sandbox._server is not None
    before = {process.pid for process in processes.tree(sandbox._server.pid)}
    daemon = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in range(0, 64):
                    try: os.close(number)
                    except OSError: pass
                time.sleep(600)
            os._exit(0)
        os.wait()
    """
    assert run(sandbox, daemon).ended == "finished"
    assert {process.pid for process in processes.tree(sandbox._server.pid)} == before


def test_a_process_that_ends_itself_keeps_what_it_returned(sandbox: Sandbox) -> None:
    transcript = run(
        sandbox,
        DOUBLE.format(before="import os; n < 3 or os._exit(3)"),
        "print('never')",
        cases=CASES,
    )
    assert transcript.ended == "exited" and "exit status 3" in transcript.reason
    assert outputs(transcript) == [[2, 4]]
    assert transcript.cells == ()


@pytest.mark.parametrize(
    ("message", "ended"),
    [
        ("b'\\xff' * 8", "output"),  # the length of 4 GB
        ("struct.pack('>I', 9) + b'not data!'", "protocol"),
        ("struct.pack('>I', 0) * 3", "protocol"),
        ("b''.join(struct.pack('>I', 1 << 20) + bytes(1 << 20) for _ in range(3))", "protocol"),
        ("struct.pack('>I', 1 << 21) + bytes(1 << 21)", "output"),
    ],
)
def test_what_is_no_message_ends_it(usual: Sandbox, message: str, ended: str) -> None:
    write = f"""
rest = {message}
while rest:
    rest = rest[os.write(pipe, rest):]
import time; time.sleep(60)
"""
    transcript = run(usual, DOUBLE.format(before=""), PIPE, write, cases=CASES)
    assert transcript.ended == ended, transcript
    assert outputs(transcript) == [[2, 4, 6]]


def test_a_message_cut_short_by_the_end_is_no_fault_of_its_own(usual: Sandbox) -> None:
    transcript = run(usual, PIPE, "os.write(pipe, struct.pack('>I', 99) + b'half'); os._exit(0)")
    assert transcript.ended == "exited"


def test_a_closed_pipe_is_not_the_end_of_its_time(usual: Sandbox) -> None:
    transcript = run(usual, PIPE, "os.close(pipe)", limits=limits(submission_seconds=3))
    assert transcript.ended == "exited"
