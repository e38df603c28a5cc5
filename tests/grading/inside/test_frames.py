"""Messages on a pipe: whole, in order, bounded, and with a clear end."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.grading.inside.frames import FrameError, FrameReader, TooMuchOutput, send


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_messages_come_in_order_and_whole(messages: list[bytes]) -> None:
    reading, writing = os.pipe()
    for message in messages:
        send(writing, message)
    os.close(writing)
    reader = FrameReader(reading, 300)
    assert [reader.read() for _ in messages] == messages
    assert reader.read() is None and reader.read() is None
    os.close(reading)


def test_a_message_larger_than_the_pipe(pipe: tuple[int, int]) -> None:
    content = bytes(range(256)) * 8000
    os.set_blocking(pipe[1], False)
    writer = threading.Thread(target=send, args=(pipe[1], content))
    writer.start()
    assert FrameReader(pipe[0], len(content)).read(30) == content
    writer.join()


def test_bytes_that_trickle_are_kept_over_a_timeout(pipe: tuple[int, int]) -> None:
    reader = FrameReader(pipe[0], 100)
    for part in (b"\0\0", b"\0\5ab", b"cd"):
        os.write(pipe[1], part)
        with pytest.raises(TimeoutError):
            reader.read(0)
    os.write(pipe[1], b"e" + struct.pack(">I", 0))
    assert (reader.read(0), reader.read(0)) == (b"abcde", b"")


def test_a_signal_does_not_disturb_reading(pipe: tuple[int, int]) -> None:
    rung: list[int] = []

    def ring(number: int, frame: object) -> None:
        rung.append(number)
        if len(rung) == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            send(pipe[1], b"now")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        assert FrameReader(pipe[0], 100).read(30) == b"now"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], struct.pack(">I", 101))
    with pytest.raises(TooMuchOutput):
        FrameReader(pipe[0], 100).read(0)


def test_all_messages_together_are_bounded(pipe: tuple[int, int]) -> None:
    reader = FrameReader(pipe[0], 100, max_total=40)
    for _ in range(3):
        send(pipe[1], b"x" * 10)
    with pytest.raises(TooMuchOutput):
        for _ in range(3):
            reader.read(0)


def test_an_end_inside_a_message(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"\0\0\0\5ab")
    os.close(pipe[1])
    with pytest.raises(FrameError, match="inside"):
        FrameReader(pipe[0], 100).read()


def test_nobody_reads_any_more(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        send(pipe[1], b"x")
