"""Which exercises a submission names, and in which order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.grading.collect import flags_of
from slmlab.grading.collect.named import ids_named
from slmlab.grading.records import Cell, Submission
from tests.grading.collect.handing_in import cell


def submission(*sources: str) -> Submission:
    cells = tuple(Cell("hw.ipynb", place, source) for place, source in enumerate(sources))
    return Submission("anna", "anna/hw.ipynb", cells, "")


@pytest.mark.parametrize(
    ("source", "ids"),
    [
        ('@exercise("kv.bytes")\ndef f(): ...', ["kv.bytes"]),
        ("@slmlab.exercise('kv.bytes')\ndef f(): ...", ["kv.bytes"]),
        ('@exercise( id = "kv.bytes" )\ndef f(): ...', ["kv.bytes"]),
        ('if True:\n    @exercise("kv.bytes")\n    def f(): ...', ["kv.bytes"]),
        ('f = exercise("kv.bytes")(g)', ["kv.bytes"]),
        ('@exercise("a.b")\ndef f(): ...\n@exercise("a.c")\ndef g(): ...', ["a.b", "a.c"]),
        ('# @exercise("kv.bytes")', []),
        ('@exercise("not an id")', []),
        ('@exercise("kv.bytes\n")', []),
        ("@exercise(name)", []),
        ('@my_exercise("kv.bytes")', []),
        ('hint("kv.bytes")', []),
        ("", []),
    ],
)
def test_ids(source: str, ids: list[str]) -> None:
    assert ids_named([Cell("hw.ipynb", 0, source)]) == ids


def test_flags() -> None:
    wanted = ("a.one", "a.two", "a.three", "a.four")
    given_in = submission(
        cell("a.one"), cell("a.four"), cell("a.two"), "x = 1", cell("other.id"), cell("a.two")
    )
    flags = flags_of(given_in, wanted)
    assert flags == {"a.three": ("missing",), "a.two": ("duplicated",), "a.four": ("moved",)} or (
        flags == {"a.three": ("missing",), "a.two": ("moved", "duplicated")}
    )
    assert flags_of(submission(*map(cell, wanted)), wanted) == {}
    assert flags_of(submission(), ["a.one"]) == {"a.one": ("missing",)}
    with pytest.raises(TypeError, match="wanted_ids"):
        flags_of(given_in, "a.one")


IDS = [f"a.n{number}" for number in range(6)]


@given(st.permutations(IDS))
def test_what_is_not_flagged_as_moved_is_in_order_and_as_much_as_possible(order: list[str]) -> None:
    flags = flags_of(submission(*map(cell, order)), IDS)
    assert set(flags.values()) <= {("moved",)}
    stayed = [name for name in order if name not in flags]
    assert stayed == sorted(stayed)
    longest = max(
        len(some)
        for size in range(len(order) + 1)
        for some in itertools.combinations(order, size)
        if list(some) == sorted(some)
    )
    assert len(stayed) == longest
