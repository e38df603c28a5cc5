from __future__ import annotations

import math

import pytest

from slmlab.measure import device, devices

# Ridge points published with the table (reference file hardware_roofline.json of the project),
# FLOP a byte: fp16 peak over bandwidth where an fp16 peak is given, else fp32.
PUBLISHED_RIDGE = {
    "Apple M1": 38.1,
    "Apple M1 Pro": 26.0,
    "Apple M1 Max": 26.0,
    "Apple M2": 36.0,
    "Apple M2 Pro": 34.0,
    "Apple M2 Max": 33.7,
    "Apple M2 Ultra": 34.0,
    "Apple M3": 41.0,
    "Apple M3 Pro": 49.3,
    "Apple M4": 38.3,
    "Apple M4 Pro": 33.7,
    "Apple M4 Max (40)": 33.7,
    "NVIDIA T4": 203.1,
    "NVIDIA L4": 403.3,
    "NVIDIA A100 SXM 80GB": 156.0,
    "NVIDIA A100 PCIe 80GB": 160.8,
    "NVIDIA H100 SXM": 295.2,
    "NVIDIA H100 PCIe": 378.0,
}


def test_every_row_is_sane():
    rows = devices()
    assert len(rows) == len({row.name for row in rows}) == 28
    for row in rows:
        assert row.source and row.source != "same", row.name
        figures = (
            row.bandwidth_gb_s,
            row.fp32_tflop_s,
            row.fp16_tflop_s,
            row.int8_top_s,
            row.npu_int8_top_s,
            row.sustained_bandwidth_gb_s,
        )
        assert any(figure is not None for figure in figures), row.name
        assert all(f is None or (math.isfinite(f) and f > 0) for f in figures), row.name
        if row.sustained_bandwidth_gb_s and row.bandwidth_gb_s:
            assert row.sustained_bandwidth_gb_s < row.bandwidth_gb_s
        if row.fp16_tflop_s and row.int8_top_s:
            assert row.int8_top_s == pytest.approx(2 * row.fp16_tflop_s, rel=0.01)
    without = {row.name for row in rows if row.bandwidth_gb_s is None}
    assert without == {"Intel Core Ultra 1 (Meteor Lake) NPU", "AMD Ryzen 7040 NPU"}


def test_ridge_points_recomputed():
    for name, ridge in PUBLISHED_RIDGE.items():
        assert device(name).ridge_flop_per_byte() == pytest.approx(ridge, abs=0.06), name
    assert device("NVIDIA A100 SXM 80GB").ridge_flop_per_byte("float32") == pytest.approx(9.75)
    assert device("Apple M3 Max (40)").ridge_flop_per_byte() is None


def test_sparse_figures_are_not_taken_for_dense_ones():
    assert device("Jetson Orin Nano 8GB Super").int8_top_s == 33.5
    assert device("Jetson Orin Nano 8GB (original)").int8_top_s == 20


def test_lookup():
    assert device(" apple  m1 ").name == "Apple M1"
    with pytest.raises(ValueError, match="NVIDIA H100"):
        device("NVIDIA H100 SXM5")
    with pytest.raises(ValueError, match="Raspberry Pi 5"):
        device("raspberry")
    with pytest.raises(ValueError, match=r"devices\(\) lists"):
        device("zzzzqqqq")
    with pytest.raises(TypeError, match="name must be a str"):
        device(5)  # type: ignore[arg-type]
