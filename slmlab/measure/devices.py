"""Bandwidth and peak rates of devices that run small language models, each with its source.

The figures are published ones, most of them vendors' peaks: ceilings, not measurements. What
this machine reaches is `Roofline.measure()`.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Device:
    """One row of the table. None means that the source gives no figure.

    bandwidth_gb_s: memory read bandwidth, 10**9 bytes a second.
    fp32_tflop_s, fp16_tflop_s: dense peak, 10**12 FLOP a second (a multiply-add is two).
    int8_top_s: dense peak, 10**12 integer operations a second; npu_int8_top_s: the same of a
    separate neural processor. sustained_bandwidth_gb_s: measured by the source.
    llama2_7b_q4_0_tokens_s: decode rate that llama.cpp measured there (discussion 4167).
    source: where the figures stand. caveat: what to know before using them.
    """

    name: str
    source: str
    bandwidth_gb_s: float | None = None
    fp32_tflop_s: float | None = None
    fp16_tflop_s: float | None = None
    int8_top_s: float | None = None
    npu_int8_top_s: float | None = None
    sustained_bandwidth_gb_s: float | None = None
    llama2_7b_q4_0_tokens_s: float | None = None
    caveat: str = ""

    def peak_gflop_s(self, dtype: str) -> float | None:
        """Dense peak for products computed in "float32" or 16 bit, 10**9 FLOP a second.

        A device without a 16-bit figure counts at its fp32 peak (a low estimate); one without
        any gives None.
        """
        tera = self.fp32_tflop_s
        if dtype != "float32" and self.fp16_tflop_s is not None:
            tera = self.fp16_tflop_s
        return None if tera is None else tera * 1000.0

    def ridge_flop_per_byte(self, dtype: str = "float16") -> float | None:
        """FLOP a byte where memory and arithmetic take equally long; None where unknown."""
        peak = self.peak_gflop_s(dtype)
        if peak is None or self.bandwidth_gb_s is None:
            return None
        return peak / self.bandwidth_gb_s


@cache
def _table() -> dict[str, Device]:
    text = files("slmlab.measure").joinpath("devices.json").read_text(encoding="utf-8")
    rows = [Device(**row) for row in json.loads(text)["devices"]]
    return {row.name.casefold(): row for row in rows}


def devices() -> list[Device]:
    """All rows, in the order of the table: small boards first, data-centre GPUs last."""
    return list(_table().values())


def device(name: str) -> Device:
    """The row called ``name`` (case does not matter).

    Raises ValueError for an unknown name, with the closest ones; TypeError where it is no str.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__}")
    table = _table()
    wanted = " ".join(name.split()).casefold()
    if wanted in table:
        return table[wanted]
    close = difflib.get_close_matches(wanted, table, n=3, cutoff=0.4)
    close += [key for key in table if wanted and wanted in key and key not in close]
    near = ", ".join(table[key].name for key in close[:4])
    hint = f"did you mean {near}?" if near else "devices() lists all names"
    raise ValueError(f"device {name!r} is not in the table: {hint}")
