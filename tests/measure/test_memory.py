from __future__ import annotations

import time

import pytest

from slmlab.measure import current_rss, peak_memory
from slmlab.measure.memory import _kernel_peak_bytes, _reset_kernel_peak

MIB = 2**20


def spike() -> str:
    """Touches 96 MiB and gives them back before it returns."""
    block = bytearray(b"x") * (96 * MIB)
    time.sleep(0.05)
    assert len(block) == 96 * MIB
    return "done"


@pytest.mark.parametrize("method", ["kernel", "sampled"])
def test_a_peak_that_is_gone_at_the_end_is_seen(method):
    if method == "kernel" and not _reset_kernel_peak():
        pytest.skip("no writable /proc/self/clear_refs here")
    before = current_rss()
    use = peak_memory(spike, method=method)
    assert use.value == "done"
    assert use.method == method
    assert 90 * MIB <= use.added_bytes <= 130 * MIB
    assert use.peak_bytes == use.before_bytes + use.added_bytes
    assert use.before_bytes == pytest.approx(before, abs=8 * MIB)
    assert current_rss() < use.peak_bytes - 60 * MIB


def test_an_earlier_peak_is_forgotten():
    spike()
    assert peak_memory(lambda: None).added_bytes < 30 * MIB


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="function must be callable"):
        peak_memory(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method must be"):
        peak_memory(spike, method="exact")


def test_errors_pass_through():
    def fail() -> None:
        raise KeyError("inner")

    for method in ("auto", "sampled"):
        with pytest.raises(KeyError, match="inner"):
            peak_memory(fail, method=method)


def test_the_kernel_peak_is_at_least_what_is_resident():
    peak = _kernel_peak_bytes()
    assert peak is None or peak >= current_rss() - 8 * MIB
