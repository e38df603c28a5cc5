"""What the benchmark writes is what the lesson's table reads."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

import slmlab
from benchmarks import quantization_table
from slmlab.measure import Roofline
from slmlab.measure.tasks import TaskScore
from slmlab.quant import model_bytes, parse_scheme, quantize_model
from slmlab.widgets.quantization_table import BENCHMARK, load_table


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
        "rows": quantization_table.with_rates(rows),
    }
    machine = {"cpu": "core"}
    record = {"benchmark": BENCHMARK, "commit": "c" * 40, "machine": machine, "measured": measured}
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps(record))
    table = load_table(tmp_path)
    assert table is not None and all(name in table.text_table() for name in names)
    assert table.row("float32")["kl_nats"] == 0
    four = table.row("int4-g32")
    assert four["kl_nats"] > 0 and four["bits_per_weight"] == 4.5
    # The checkpoint is the tensors and a header of a few kilobytes.
    stored = model_bytes(quantize_model(half, "int4-g32"))
    assert stored < four["file_bytes"] < stored + 20_000
    assert table.row("float16")["file_bytes"] == model_bytes(half)
