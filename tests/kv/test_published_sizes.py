"""kv_bytes against published cache sizes, model by model, where the table is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slmlab.kv import kv_bytes

TABLE = Path(
    os.environ.get(
        "SLMLAB_KV_SIZES",
        Path(__file__).parents[3] / "shared" / "reference" / "kv_cache_sizes.json",
    )
)


def config(row: dict[str, Any]) -> SimpleNamespace:
    """The row in Hugging Face's field names; absent fields stay absent."""
    fields: dict[str, Any] = {
        "num_hidden_layers": row["L"],
        "num_attention_heads": row["n_heads"],
        "num_key_value_heads": row["n_kv"],
        "head_dim": row["head_dim"],
    }
    if row["window"]:
        full, local = row["L"] - row["n_local"], row["n_local"]
        fields["sliding_window"] = row["window"]
        fields["layer_types"] = ["full_attention"] * full + ["sliding_attention"] * local
    return SimpleNamespace(**fields)


@pytest.mark.skipif(not TABLE.is_file(), reason="the table of published sizes is not present")
def test_every_published_model() -> None:
    models = json.loads(TABLE.read_text(encoding="utf-8"))["models"]
    assert len(models) >= 20
    windowed = 0
    for name, row in models.items():
        shape = config(row)
        for tokens, wanted in row["fp16_bytes"].items():
            assert kv_bytes(shape, int(tokens)) == wanted, f"{name} at {tokens}"
        assert kv_bytes(shape, 512, dtype="int8") * 2 == row["fp16_bytes"]["512"]
        windowed += 0 < row["n_local"] < row["L"]
    assert windowed >= 4, "hybrid models must be among them"
