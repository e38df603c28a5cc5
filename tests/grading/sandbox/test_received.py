"""Messages that do not fit what was asked, and how a run is told."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from slmlab.checking import Case, Execution
from slmlab.checking import execution as answering
from slmlab.grading.inside.messages import Messages
from slmlab.grading.records import Limits, Request
from slmlab.grading.sandbox.attempt import Attempt
from slmlab.grading.sandbox.received import Received

MESSAGES = Messages(answering)
REQUEST = Request(("a", "b", "c"), {"t.one": (Case({"n": 1}), Case({"n": 2}))}, 0)


def start(cell: int) -> bytes:
    return MESSAGES.start(cell)


def end(cell: int, state: str = "ran") -> bytes:
    return MESSAGES.end(cell, state, "", "", 0.5)


def answer(case: int, cell: int = 0, name: str = "t.one") -> bytes:
    return MESSAGES.answer(name, cell, case, Execution(output=case), 1 << 20)


def received(*frames: bytes, skip: tuple[int, ...] = ()) -> Received:
    found = Received(REQUEST, skip)
    for frame in frames:
        found.take(frame, 10.0)
    return found


def test_two_definitions_of_one_exercise() -> None:
    found = received(
        start(0), answer(0), answer(1), answer(0), end(0), start(2), answer(0, 2), end(2)
    )
    told = [(item.cell, [e.output for e in item.executions]) for item in found.answers()["t.one"]]
    assert told == [(0, [0, 1]), (0, [0]), (2, [0])]
    assert found.executions == 4
    assert not found.complete  # cell 1 has not run
    assert received(start(0), end(0), start(2), end(2), skip=(1,)).complete
    assert received(start(0)).running_for(12.5) == 2.5
    assert found.running_for(99.0) == 0.0


@pytest.mark.parametrize(
    "frames",
    [
        (end(0),),
        (start(3),),
        (start(0), start(1)),
        (start(1), end(1), start(0)),
        (start(0), end(1)),
        (answer(0),),
        (start(0), answer(1)),
        (start(0), answer(0), answer(0, name="t.two")),
        (start(0), answer(0), answer(1), answer(2)),
        (start(1), answer(0, cell=0)),
        (start(0), answer(0), end(0), start(1), answer(1, cell=1)),
        (b"",),
        (b"\x00\x00\x00\x02{}",),
    ],
)
def test_what_does_not_fit_is_refused(frames: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError):
        received(*frames)


def test_a_skipped_cell_may_not_run() -> None:
    with pytest.raises(ValueError, match="not the next"):
        received(start(0), skip=(0,))


def test_messages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmlab.grading.sandbox.received.MAX_MESSAGES", 50)
    found = received(start(0))
    with pytest.raises(ValueError, match="more than"):
        for _ in range(50):
            found.take(answer(0), 10.0)


@pytest.mark.parametrize(
    ("status", "cpu", "killed", "wanted", "word"),
    [
        (0, 1.0, False, "exited", "code cell 1"),
        (3, 1.0, False, "exited", "exit status 3"),
        (-signal.SIGSEGV, 1.0, False, "exited", "SIGSEGV"),
        (-signal.SIGKILL, 61.0, False, "cpu", "60 s of CPU"),
        (-signal.SIGKILL, 1.0, True, "memory", "2048 MiB"),
    ],
)
def test_how_a_process_that_ended_itself_is_told(
    status: int, cpu: float, killed: bool, wanted: str, word: str
) -> None:
    ended, reason = Attempt(received(start(0)), None, "", status, cpu, 1.0, killed).ended(Limits())
    assert ended == wanted
    assert word in reason


def test_items_are_counted_over_all_answers() -> None:
    large = MESSAGES.answer("t.one", 0, 0, Execution(output=[0] * 190_000))
    found = received(start(0), large, large)
    with pytest.raises(ValueError, match="500,000 items"):
        found.take(large, 10.0)


def test_the_first_and_the_last_definitions_are_kept() -> None:
    many = [MESSAGES.answer("t.one", 0, 0, Execution(output=number)) for number in range(100)]
    kept = received(start(0), *many).answers()["t.one"]
    assert [item.executions[0].output for item in kept] == [0, *range(80, 100)]


def test_entries_that_no_array_uses_are_refused_before_they_are_read(monkeypatch) -> None:
    from safetensors.numpy import save

    def never(content: bytes) -> None:
        raise AssertionError("read")

    entries = save({str(number): np.zeros(0, np.uint8) for number in range(1000)})
    monkeypatch.setattr("slmlab.grading.inside.decoding._load", never)
    with pytest.raises(ValueError, match="entries of 0 arrays"):
        MESSAGES.codec.decode((1).to_bytes(4, "big") + b"1" + entries)
