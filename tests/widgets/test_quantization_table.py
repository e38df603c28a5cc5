"""What the benchmark writes is what the lesson's table reads."""

from __future__ import annotations

import itertools
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.text import Text

import slmlab
from benchmarks import quantization_table
from slmlab.kv import kv_bytes
from slmlab.measure import Roofline
from slmlab.measure.tasks import TaskScore
from slmlab.quant import model_bytes, parse_scheme, quantize_model
from slmlab.widgets.quantization_table import BENCHMARK, Table, load_table, speed_plot


def test_rates_are_ratios_to_one_base() -> None:
    rows: list[dict[str, Any]] = [
        {
            "speed_over_float32": ratio,
            "speed_over_float32_quartiles": [ratio / 2, ratio * 2],
            "float32_step_seconds": seconds,
        }
        for ratio, seconds in ((1.0, 0.004), (2.0, 0.002))
    ]
    slow, fast = quantization_table.with_rates(rows)
    assert (slow["tokens_per_second_measured"], fast["tokens_per_second_measured"]) == (500, 1000)
    assert (fast["tokens_per_second_low"], fast["tokens_per_second_high"]) == (500, 2000)
    assert "float32_step_seconds" not in slow


def test_schemes_are_known_and_start_with_the_base() -> None:
    assert quantization_table.SCHEMES[0] == "float32"
    assert [parse_scheme(name).name for name in quantization_table.SCHEMES]


def test_rows_hold_what_the_table_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answered(lm: Any, task: str, limit: int) -> TaskScore:
        return TaskScore(task, 1, limit, ())

    monkeypatch.setattr(quantization_table, "exact_match", answered)
    lm = slmlab.load("tiny-draft")
    half = slmlab.load("tiny-draft", dtype=torch.float16).model
    roof = Roofline(28.0, 27.0, 20.0, 5, "sum", 18.0, 95.0, 90.0, 80.0, 5, "float32", 2**27, 2.0, 1)
    options = Namespace(repeats=4, tasks=3)
    names = ("float32", "float16", "int4-g32")
    rows = [quantization_table.row(lm, half, list(range(40)), n, roof, options) for n in names]
    measured = {
        "model": "tiny-draft",
        "text": "prose",
        "text_tokens": 40,
        "bandwidth_gb_s": roof.bandwidth_gb_s,
        "rows": quantization_table.with_rates(rows),
    }
    machine = {"cpu": "core"}
    record = {"benchmark": BENCHMARK, "commit": "c" * 40, "machine": machine, "measured": measured}
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps(record))
    table = load_table(tmp_path)
    assert table is not None and all(name in table.text_table() for name in names)
    assert table.row("float32")["kl_nats"] == 0
    # Of all weights, the head among them, and of the cache a token takes each byte once.
    cached = kv_bytes(lm.model.config, quantization_table.CONTEXT, dtype="float32")
    wanted = model_bytes(lm.model) + cached
    assert table.bytes_read("float32") == pytest.approx(wanted, rel=1e-3)
    four = table.row("int4-g32")
    assert four["kl_nats"] > 0 and four["bits_per_weight"] == 4.5
    # The checkpoint is the tensors and a header of a few kilobytes.
    stored = model_bytes(quantize_model(half, "int4-g32"))
    assert stored < four["file_bytes"] < stored + 20_000
    assert table.row("float16")["file_bytes"] == model_bytes(half)


def _record() -> dict[str, Any]:
    def row(scheme: str, size: int, rate: float) -> dict[str, Any]:
        return {
            "scheme": scheme,
            "bits_per_weight": 4.5,
            "file_bytes": size,
            "kl_nats": 0.01,
            "argmax_flip_share": 0.08,
            "perplexity": 20.0,
            "tool_calls_right": 7,
            "tool_calls_n": 9,
            "tokens_per_second_predicted": 4 * rate,
            "tokens_per_second_measured": rate,
            "tokens_per_second_low": 0.9 * rate,
            "tokens_per_second_high": 1.1 * rate,
        }

    measured = {
        "model": "tiny",
        "text": "prose",
        "text_tokens": 2048,
        "bandwidth_gb_s": 12.0,
        "rows": [row("float32", 40_000_000, 300.0), row("int4-g32", 7_000_000, 600.0)],
    }
    machine = {"cpu": "a core"}
    return {"benchmark": BENCHMARK, "commit": "abc" * 13, "machine": machine, "measured": measured}


def test_the_table_is_read_and_shown(tmp_path) -> None:
    assert load_table(tmp_path) is None
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps(_record()))
    table = load_table(tmp_path)
    assert isinstance(table, Table)
    text = table.text_table()
    for part in ("int4-g32", "7/9", "8.0%", "commit abcabca", "2,048 tokens of prose", "2,400"):
        assert part in text
    # 12 GB/s over a ceiling of 1,200 and of 2,400 tokens a second.
    assert (table.bytes_read("float32"), table.bytes_read("int4-g32")) == (10e6, 5e6)
    assert "10.00" in text and "12.0 GB/s" in text
    assert speed_plot(table).alt == "int4-g32 decodes fastest: 2.0 times the speed of float32"
    with pytest.raises(ValueError, match=r"has float32, int4-g32"):
        table.row("int8")


@pytest.mark.parametrize("text", ["{", "{}", f'{{"benchmark": "{BENCHMARK}", "measured": {{}}}}'])
def test_a_damaged_table_is_refused(tmp_path, text: str) -> None:
    (tmp_path / f"{BENCHMARK}.json").write_text(text)
    with pytest.raises(ValueError, match="make it anew"):
        load_table(tmp_path)


def test_every_dot_of_the_speed_plot_is_named_apart_from_the_others(tmp_path) -> None:
    record = _record()
    sizes = (4.5, 5.7, 6.3, 6.4, 6.5, 6.6, 6.9, 6.9, 6.9, 7.0, 11.1)
    first = record["measured"]["rows"][0]
    for place, size in enumerate(sizes):
        rates = {f"tokens_per_second_{k}": 541.0 + place for k in ("measured", "low", "high")}
        row = first | {"scheme": f"int4-g{place}-asym", "file_bytes": size * 1e6} | rates
        record["measured"]["rows"].append(row)
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps(record))
    table = load_table(tmp_path)
    assert table is not None
    figure = speed_plot(table)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = [text for text in axes.texts if text.get_text() in {r["scheme"] for r in table.rows}]
    assert len(names) == len(table.rows)
    boxes = [Text.get_window_extent(name) for name in names]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent()
    lowest = axes.transData.transform((5, min(r["tokens_per_second_low"] for r in table.rows)))[1]
    assert all(frame.y0 <= box.y0 and box.y1 < lowest for box in boxes)
    # Those of int4-g32 begin at 540 tokens a second.
    assert figure.alt.endswith("the quartiles of 11 more overlap")
