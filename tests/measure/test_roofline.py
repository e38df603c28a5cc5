from __future__ import annotations

import pytest
import torch

from slmlab.measure import Roofline, last_level_cache_bytes


@pytest.fixture(scope="module")
def measured() -> Roofline:
    return Roofline.measure(seconds=0.3)


def test_fields_agree_with_each_other(measured):
    assert measured.bandwidth_n >= 2 and measured.gemm_n >= 2
    assert 0 < measured.bandwidth_min_gb_s <= measured.bandwidth_median_gb_s
    assert measured.bandwidth_median_gb_s <= measured.bandwidth_gb_s
    assert 0 < measured.gemv_gb_s <= measured.bandwidth_gb_s
    assert 0 < measured.gemm_min_gflop_s <= measured.gemm_median_gflop_s <= measured.gemm_gflop_s
    assert measured.bandwidth_method in ("sum", "integer sum", "dot", "gemv")
    assert measured.dtype == "float32"


def test_the_buffer_cannot_sit_in_the_cache(measured):
    cache = last_level_cache_bytes()
    assert measured.buffer_bytes >= 128 * 2**20
    if cache is not None and cache <= 128 * 2**20:
        assert measured.buffer_bytes >= 4 * cache


def test_ridge_and_attainable(measured):
    ridge = measured.ridge_flop_per_byte
    assert measured.attainable(0) == 0
    assert measured.attainable(ridge / 2) == pytest.approx(measured.gemm_gflop_s / 2)
    assert measured.attainable(ridge * 2) == measured.gemm_gflop_s
    assert measured.attainable(1.0) == pytest.approx(
        min(measured.bandwidth_gb_s, measured.gemm_gflop_s)
    )
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="intensity"):
            measured.attainable(wrong)


def test_one_thread_and_the_count_comes_back(monkeypatch):
    seen: list[int] = []
    real = torch.mm

    def spy(*args, **options):
        seen.append(torch.get_num_threads())
        return real(*args, **options)

    monkeypatch.setattr(torch, "mm", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        result = Roofline.measure(seconds=0.2, dtype=torch.bfloat16)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert result.dtype == "bfloat16"
    assert set(seen) == {1}
    assert len(seen) == result.gemm_n + 1


def test_bad_arguments_are_named():
    for seconds in (0.0, -1.0, 100.0):
        with pytest.raises(ValueError, match="seconds"):
            Roofline.measure(seconds=seconds)
    with pytest.raises(TypeError, match="seconds"):
        Roofline.measure(seconds="2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dtype"):
        Roofline.measure(dtype=torch.int8)
