"""The references of lesson 04 against independent arithmetic, and every worked example."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig
from transformers.cache_utils import DynamicCache

from authoring.build import ROOT
from authoring.sources import Source, read_source
from slmlab.checking import check, get, make_cases, registered
from slmlab.kv.quantized_blocks import QuantizedBlocks
from slmlab.lessons.kv_cache import EXERCISES
from slmlab.lessons.kv_cache.cache_bytes import CACHE_BYTES
from slmlab.lessons.kv_cache.choose_bits import CHOOSE_BITS, PAIRS, stored_bytes
from slmlab.lessons.kv_cache.concat_repair import CONCAT_REPAIR
from slmlab.lessons.kv_cache.context_fits import CONTEXT_FITS
from slmlab.lessons.kv_cache.quantize_cache import QUANTIZE_CACHE
from slmlab.lessons.kv_cache.rewind_repair import REWIND_REPAIR
from slmlab.lessons.kv_cache.window_repair import WINDOW_REPAIR

FOUND = {
    "grow_as_found": "kv.concat_repair",
    "replay_as_found": "kv.rewind_repair",
    "windowed_as_found": "kv.window_repair",
}


@pytest.fixture(autouse=True)
def topic() -> Any:
    with registered("kv", EXERCISES):
        yield


@given(
    layers=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    head_dim=st.sampled_from((2, 4, 8)),
    tokens=st.integers(1, 7),
    batch=st.integers(1, 3),
)
def test_bytes_are_those_of_transformers_cache(
    layers: int, kv_heads: int, group: int, head_dim: int, tokens: int, batch: int
) -> None:
    cache = DynamicCache(config=LlamaConfig(num_hidden_layers=layers))
    row = torch.zeros(batch, kv_heads, tokens, head_dim, dtype=torch.float16)
    for layer in range(layers):
        cache.update(row, row, layer)
    stored: list[Any] = list(cache.layers)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in stored)
    config = {
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "windows": [None] * layers,
    }
    for answer in (CACHE_BYTES.reference, *CACHE_BYTES.alternatives):
        assert answer(config, tokens, batch, 16) == held


def test_windows_cap_by_hand() -> None:
    config = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "windows": [None, 3],
    }
    assert CACHE_BYTES.reference(config, 5, 1, 16) == 512


def test_the_estimate_by_hand() -> None:
    left = 4_000_000_000 - 3_210_000_000 * 9 // 16
    assert CONTEXT_FITS.reference() == pytest.approx(left / (4 * 2 * 28 * 8 * 128 * 2))


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), capacity=st.integers(1, 12))
def test_growing_keeps_the_rows_and_its_bound(sizes: list[int], capacity: int) -> None:
    chunks = [torch.rand(n, 2) for n in sizes]
    for answer in (CONCAT_REPAIR.reference, *CONCAT_REPAIR.alternatives):
        held, written = answer(chunks, capacity)
        assert torch.equal(held, torch.cat(chunks))
        assert sum(sizes) <= written < 3 * sum(sizes)
        assert written == sum(sizes) or sum(sizes) > capacity


operations = st.one_of(
    st.tuples(st.just("append"), st.lists(st.integers(1, 99), min_size=1, max_size=4)),
    st.tuples(st.just("truncate"), st.floats(0, 1)),
)


@given(drawn=st.lists(operations, max_size=12))
def test_positions_never_have_a_gap(drawn: list[tuple[str, Any]]) -> None:
    trace: list[tuple[str, Any]] = []
    held: list[int] = []
    for operation, what in drawn:
        value: Any = what if operation == "append" else int(what * len(held))
        held = held + value if operation == "append" else held[:value]
        trace.append((operation, value))
    for answer in (REWIND_REPAIR.reference, *REWIND_REPAIR.alternatives):
        assert answer(trace) == (held, list(range(len(held))))


@given(
    chunks=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    window=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_windowed_attention_is_one_band(chunks: list[int], window: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(sum(chunks), 4, generator=random) for _ in range(3))
    full = torch.ones(sum(chunks), sum(chunks), dtype=torch.bool)
    band = full.tril() & full.triu(1 - window)
    wanted = functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=band)[0]
    for answer in (WINDOW_REPAIR.reference, *WINDOW_REPAIR.alternatives):
        torch.testing.assert_close(answer(q, k, v, chunks, window), wanted, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 1000), bits=st.sampled_from((2, 4, 8)))
def test_quantised_as_the_package_stores_it(seed: int, bits: int) -> None:
    random = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(8, 6, generator=random) for _ in range(2))
    found = QUANTIZE_CACHE.reference(keys, values, bits)
    for x, back, per, along in zip((keys, values), found, ("channel", "token"), (0, 1)):
        # One group a token: all channels; one group a channel: all tokens.
        blocks = QuantizedBlocks(per, bits, 8, (1, 1), 6, torch.device("cpu"))
        blocks.add(x[None, None])
        step = (x.amax(along, keepdim=True) - x.amin(along, keepdim=True)) / (2**bits - 1)
        # fp16 metadata may move a value to the neighbouring code.
        assert ((back - blocks.dequantize()[0, 0]).abs() <= 1.02 * step + 5e-3).all()
        assert ((back - x).abs() <= 0.5001 * step + 1e-6).all()
        for end in (x.amin(along), x.amax(along)):
            ends = back.amin(along) if torch.equal(end, x.amin(along)) else back.amax(along)
            torch.testing.assert_close(ends, end, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_every_pair_with_less_error_breaks_the_budget(seed: int) -> None:
    for case in make_cases(CHOOSE_BITS, seed):
        q, k, v, budget = case.arguments.values()
        chosen = CHOOSE_BITS.reference(q, k, v, budget)
        within = [pair for pair in PAIRS if stored_bytes(k.shape, pair) <= budget]
        if chosen is None:
            assert not within
            continue

        def error(pair: tuple[int, int], q: Tensor = q, k: Tensor = k, v: Tensor = v) -> float:
            (keys, _), (_, values) = (QUANTIZE_CACHE.reference(k, v, bits) for bits in pair)
            both = [
                functional.scaled_dot_product_attention(q[None], a[None], b[None])
                for a, b in ((keys, values), (k, v))
            ]
            return float((both[0] - both[1]).square().sum())

        assert chosen in within and error(chosen) == min(error(pair) for pair in within)


LIKELY: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("kv.rewind_repair", "n subtracted", {"del tokens": "seen -= what; del tokens"}),
    (
        "kv.rewind_repair",
        "continued at the last position",
        {"positions[what:]": "positions[what:]; seen = positions[-1]"},
    ),
    ("kv.bytes", "newest token left out", {"min(tokens, window)": "min(tokens, window - 1)"}),
    ("kv.concat_repair", "doubled once", {"while needed >": "if needed >"}),
    (
        "kv.concat_repair",
        "too many rows moved",
        {"capacity *= 2": "capacity *= 2; written += held", "written + held": "written"},
    ),
    ("kv.choose_bits", "scores not divided", {" / math.sqrt(q.shape[1])": ""}),
    ("kv.choose_bits", "another error", {"square().sum()": "abs().max()"}),
    ("kv.choose_bits", "groups along the wrong side", {"pair[0], 0)": "pair[0], 1)"}),
    ("kv.choose_bits", "values first in the pair", {"least = pair": "least = pair[::-1]"}),
)


@pytest.mark.parametrize(("identifier", "name", "changes"), LIKELY)
@pytest.mark.parametrize("seed", [0, 7])
def test_likely_wrong_answers_get_their_own_sentence(
    identifier: str, name: str, changes: dict[str, str], seed: int
) -> None:
    """The notebook's own code with one idea changed, as a learner would write it."""
    start = "def replay_as_found" if "rewind" in identifier else f'@exercise("{identifier}")'
    (source,) = (cell for cell in _cells() if cell.startswith(start))
    for old, new in changes.items():
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "math": math}
    names["exercise"] = lambda _: lambda function: names.setdefault("answer", function)
    exec(compile(source.split("\n\n\nprint")[0], identifier, "exec"), names)
    report = check(get(identifier), names.get("answer") or names["replay_as_found"], seed)
    assert report.outcome != "passed" and report.diagnosis is not None
    assert report.diagnosis.mistake is not None and report.diagnosis.mistake.name == name


def test_a_named_mistake_on_paper_says_its_factor_once() -> None:
    report = check(CONTEXT_FITS, lambda: CONTEXT_FITS.reference() / 3)
    assert report.diagnosis is not None
    assert report.diagnosis.sentence.count("too few") == 1
    report = check(CONTEXT_FITS, lambda: 30_000.0)
    assert report.diagnosis is not None and "30,000 tokens are 6.2" in report.diagnosis.sentence


def _cells() -> list[str]:
    name = "authoring/04_kv_cache/exercises.py"
    notebook = read_source(Source(ROOT / name, name, "04_kv_cache", False))
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", FOUND)
def test_the_code_to_repair_runs_and_is_diagnosed_as_itself(name: str) -> None:
    (source,) = (cell for cell in _cells() if cell.startswith(f"def {name}"))
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "math": math}
    exec(compile(source, name, "exec"), names)
    report = check(get(FOUND[name]), names[name])
    assert report.outcome == "wrong" and report.diagnosis is not None
    assert report.diagnosis.mistake is not None
    assert report.diagnosis.mistake.name == "the given bug"


def test_worked_examples_of_the_statements() -> None:
    rows = [torch.ones(n, 1) for n in (2, 1, 1)]
    assert CONCAT_REPAIR.reference(rows, 2)[1] == 6
    trace = [("append", [7, 8, 9]), ("truncate", 1), ("append", [5])]
    assert REWIND_REPAIR.reference(trace) == ([7, 5], [0, 1])
    zeros, values = torch.zeros(3, 1), torch.tensor([[10.0], [20.0], [40.0]])
    assert WINDOW_REPAIR.reference(zeros, zeros, values, [1, 2], 2).tolist() == [[10], [15], [30]]
    keys, values = torch.tensor([[30.0], [33.0], [31.0]]), torch.tensor([[0.0, 1.0, 3.0]])
    assert torch.equal(QUANTIZE_CACHE.reference(keys, keys, 2)[0], keys)
    assert torch.equal(QUANTIZE_CACHE.reference(values, values, 2)[1], values)
    assert stored_bytes((4, 4), (4, 2)) == 12 + 32
