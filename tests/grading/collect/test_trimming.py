"""Dropping outputs on the way: against the json module, in pieces of every size."""

import hashlib
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.grading.collect import trimming
from slmlab.grading.collect.trimming import TooLarge, without_outputs

DROPPED = ("outputs", "attachments", "widgets")

texts = st.text(st.sampled_from('ab"\\[]{},:é🙂\n '), max_size=6) | st.sampled_from(DROPPED)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def by_json(value: Any) -> Any:
    """The value as the json module reads it, with every dropped key emptied afterwards."""
    if isinstance(value, list):
        return [by_json(item) for item in value]
    if isinstance(value, dict):
        return {key: [] if key in DROPPED else by_json(item) for key, item in value.items()}
    return value


@given(values, st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_what_is_left_is_what_json_reads(
    value: Any, piece: int, ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trimming, "PIECE", piece)
        trimmed = without_outputs(io.BytesIO(data))
    assert json.loads(trimmed.data) == by_json(value)
    assert trimmed.sha256 == hashlib.sha256(data).hexdigest()
    assert trimmed.size == len(data)


@given(st.binary(max_size=60), st.integers(1, 9))
def test_bytes_without_a_dropped_key_come_back_whole(data: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trimming, "PIECE", piece)
        assert without_outputs(io.BytesIO(data)).data == data


@given(values, st.data())
def test_what_is_cut_short_is_no_json(value: Any, data: st.DataObject) -> None:
    whole = json.dumps({"cells": [], "outputs": value}).encode()
    end = data.draw(st.integers(0, len(whole) - 1))
    left = without_outputs(io.BytesIO(whole[:end])).data
    with pytest.raises(ValueError):
        json.loads(left)


def test_a_spelled_out_key_only_counts_towards_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = rb'{"out\u0070uts": [1], "x" : "outputs", "outputs" : {"a": "]"} , "y": 1}'
    left = json.loads(without_outputs(io.BytesIO(data)).data)
    assert left == {"outputs": [], "x": "outputs", "y": 1}
    monkeypatch.setattr(trimming, "MAX_KEPT", 40)
    with pytest.raises(TooLarge, match="besides its outputs"):
        without_outputs(io.BytesIO(data))


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "PIECE", 10)
    with pytest.raises(TooLarge, match="is too large"):
        without_outputs(io.BytesIO(b'{"outputs": ["' + b"x" * 100), 50)
    monkeypatch.setattr(trimming, "MAX_BRACKETS", 100)
    for many in (b"[" * 200, b"[]," * 200):
        with pytest.raises(TooLarge, match="more than 100 brackets"):
            without_outputs(io.BytesIO(b'{"outputs": [' + many))
