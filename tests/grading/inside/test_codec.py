"""Plain data travels as bytes and comes back the same; other bytes are refused."""

from __future__ import annotations

import json
import math
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save

from slmlab.checking.values import MAX_ITEMS, Opaque, plain
from slmlab.grading.inside.codec import Codec
from slmlab.grading.inside.layout import MAX_DEPTH, TORCH_DTYPES
from tests.grading.inside.identical import identical
from tests.grading.inside.strategies import plain_data

CODEC = Codec(Opaque)


def travelled(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


def message(tree: Any, entries: dict[str, np.ndarray] | None = None) -> bytes:
    """A message made by hand."""
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return struct.pack(">I", len(text)) + text + (save(entries) if entries else b"")


@given(plain_data)
def test_plain_data_comes_back_the_same(value: Any) -> None:
    assert identical(travelled(value), value)


@given(plain_data)
def test_what_plain_returns_can_travel(value: Any) -> None:
    assert identical(travelled(plain(value)), plain(value))


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0],
        -0.0,
        5e-324,
        -math.inf,
        complex(math.nan, -0.0),
        10**5000,
        -(2**63),
        2**63,
        "\ud83d\ude00",  # two lone surrogates, not one character
        "\U0001f600",
        "\x00\x7f",
        "x" * 100_000,
        b"\x00\xff" * 1000,
        {1: "a", "1": "b", (1, frozenset({2})): None, b"1": 1.0, None: 0},
        {2: 0, 1: 0, 3: 0},
        [[[]], (), {}, frozenset()],
        Opaque("generator"),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
        np.array(3.5, dtype=">f4"),
        np.zeros((0, 3), dtype=bool),
        torch.arange(6).reshape(2, 3).T,
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.zeros((0, 4), dtype=torch.bfloat16),
        torch.tensor(math.nan, dtype=torch.float8_e4m3fn),
        torch.tensor(1 + 2j).conj(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_values_that_are_easy_to_lose(value: Any) -> None:
    back = travelled(value)
    if isinstance(value, torch.Tensor):
        value = value.resolve_conj()
        assert back.stride() == value.stride()
    if isinstance(value, np.ndarray) and value.size:
        assert back.strides == value.strides
    assert identical(back, value)


def test_a_slice_arrives_as_its_numbers() -> None:
    wide = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(travelled(wide[:, ::2]), wide[:, ::2])
    assert torch.equal(travelled(wide[:1].expand(3, 4)), wide[:1].expand(3, 4))
    assert np.array_equal(travelled(np.arange(5)[::-1]), np.arange(5)[::-1])
    for shape, strides in (((1,), (0,)), ((1, 1), (7, 3)), ((2, 1), (1, 0)), ((1, 3), (0, 1))):
        tensor = torch.as_strided(wide, shape, strides)
        assert identical(travelled(tensor), tensor)
        steps = tuple(4 * stride for stride in strides)
        array = np.lib.stride_tricks.as_strided(wide.numpy(), shape, steps)
        assert np.array_equal(travelled(array), array)


@pytest.mark.filterwarnings("ignore")
def test_the_dtypes_of_torch_are_those_that_plain_lets_pass() -> None:
    every = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    passing = {dtype for dtype in every if isinstance(plain(_empty(dtype)), torch.Tensor)}
    assert {str(dtype).removeprefix("torch.") for dtype in passing} == set(TORCH_DTYPES)


def _empty(dtype: torch.dtype) -> Any:
    try:
        return torch.empty(2, dtype=dtype)
    except (RuntimeError, NotImplementedError):
        return None


def test_the_largest_that_plain_returns_can_travel() -> None:
    value = plain(list(range(MAX_ITEMS - 1)))
    assert not isinstance(value, Opaque) and travelled(value) == value
    texts = ["a, b [c]"] * 50_000
    assert travelled(texts) == texts


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        lambda: None,
        np.float32(1),
        np.array(["a"]),
        np.array([None]),
        np.ma.array([1.0]),
        torch.nn.Parameter(torch.zeros(2)),
        torch.zeros(2, requires_grad=True),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
        [True, type("Text", (str,), {})("a")],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="value: "):
        CODEC.encode(value)


def test_what_is_too_large_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(MAX_DEPTH + 1):
        nested = [nested]
    for value, what in ((nested, "deeper"), ([0] * 300_000, "items")):
        with pytest.raises(ValueError, match=what):
            CODEC.encode(value)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x00\x00\x00\x02[]")
@example(struct.pack(">I", 8) + b"NaN     ")
@example(pickle.dumps([1]))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        CODEC.decode(content)


@given(plain_data, st.data())
def test_a_changed_message_is_data_or_a_value_error(value: Any, data: st.DataObject) -> None:
    content = bytearray(CODEC.encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(place, min(len(content), place + 8)))
        content[place:end] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"[", b'["z",', b"9" * 9])
        )
    try:
        found = CODEC.decode(bytes(content))
    except ValueError:
        return
    assert identical(travelled(found), found)


U8 = np.zeros(4, np.uint8)
ONE = {"0": U8}


@pytest.mark.parametrize(
    ("tree", "entries"),
    [
        ([], None),
        ([1], None),
        (["?"], None),
        (["l", {}], None),
        ({"a": 1}, None),
        (["d", 1], None),
        (["d", 1, 2, 1, 3], None),
        (["d", ["l"], 2], None),
        (["z", 1, 1], None),
        (["z", ["n", "<f4", [1], []]], ONE),
        (["i", "12x"], None),
        (["i", "--1"], None),
        (["i", 3], None),
        (["i", "1_0"], None),
        (2**70, None),
        (["f", "00"], None),
        (["c", 1, 2], None),
        (["s", 5], {"text": U8}),
        (["s", -1], {"text": U8}),
        (["s", True], {"text": U8}),
        (["s", 4], {"text": np.full(4, 255, np.uint8)}),
        (["b", 3], {"text": U8}),
        (["o", 1], None),
        (["o", ["l"]], None),
        (None, ONE),
        (["l", ["n", "<f4", [1], []]], {"0": U8, "1": U8}),
        (["n", "<f4", [1], []], {"1": U8}),
        (["n", "<f4", [1], []], {"0": U8.reshape(2, 2)}),
        (["n", "<f4", [1], []], {"0": np.zeros(1, np.float32)}),
        (["n", "<f4", [2], []], ONE),
        (["n", "<f4", [-1, -1], []], ONE),
        (["n", "<f4", [1.0], []], ONE),
        (["n", "<f4", [True], []], ONE),
        (["n", "<f4", [1], [1]], ONE),
        (["n", "<f4", [1, 1], [0, 0]], ONE),
        (["n", "<f4", [1] * 65, []], ONE),
        (["n", "|O8", [1], []], {"0": np.zeros(8, np.uint8)}),
        (["n", "<U1", [1], []], ONE),
        (["n", "<M8", [1], []], {"0": np.zeros(8, np.uint8)}),
        (["n", "<f3", [1], []], ONE),
        (["n", 5, [1], []], ONE),
        (["n", "<f4", 1, []], ONE),
        (["n", "|b1", [4], []], {"0": np.full(4, 2, np.uint8)}),
        (["n", "<f4", [0, 2**62, 2**62], []], {"0": np.zeros(0, np.uint8)}),
        (["p", "<f4", [1], []], ONE),
        (["p", "qint8", [4], []], ONE),
        (["p", "load", [4], []], ONE),
        (["p", "bool", [4], []], {"0": np.full(4, 2, np.uint8)}),
        (["p", "float32", [0, 2**62, 2**62], []], {"0": np.zeros(0, np.uint8)}),
        (b"[" * 100_000 + b"]" * 100_000, None),
        (b'["l"' + b",[]" * 2_000_000 + b"]", None),
        (b'["l"' + b",1" * 300_000 + b"]", None),
        (b"Infinity", None),
        (b"1 2", None),
        (b"9" * 5000, None),
        ('"\xe9"'.encode(), None),
    ],
)
def test_what_encode_never_writes_is_refused(tree: Any, entries: Any) -> None:
    with pytest.raises(ValueError):
        CODEC.decode(message(tree, entries))


def test_keys_made_to_collide_are_refused_before_they_cost_time() -> None:
    # hash(k * (2**61 - 1)) is 0 for every k: a dict of them takes quadratic time to build.
    collide = [part for k in range(10_000) for part in (["i", f"{k * (2**61 - 1):x}"], 0)]
    with pytest.raises(ValueError, match="hash"):
        CODEC.decode(message(["d", *collide]))


def test_bytes_that_are_no_safetensors_file_are_refused() -> None:
    whole = CODEC.encode(np.arange(3.0))
    for content in (whole[:-1], whole + b"\0", whole[:4] + b"\0" * 8 + whole[12:]):
        with pytest.raises(ValueError):
            CODEC.decode(content)
