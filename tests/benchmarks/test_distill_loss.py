"""The race of losses runs, compares what it times, and measures memory that is really held."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from benchmarks import distill_loss
from slmlab.distill import DIVERGENCES


def test_a_short_race(capsys: pytest.CaptureFixture[str]) -> None:
    distill_loss.main(["--short"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["threads"] == 1 and "step" not in measured
    loss = measured["loss"]
    assert loss["logits_mb"] == round(loss["positions"] * loss["vocabulary"] * 4 / 1e6, 1)
    assert set(loss["divergences"]) == set(DIVERGENCES)
    for row in loss["divergences"].values():
        assert row["value_difference"] < 1e-5 and row["gradient_difference"] < 1e-4
        assert row["low"] <= row["speedup"] <= row["high"] and row["n"] == 1
        # The gradient is as large as the logits: no way holds less.
        assert loss["logits_mb"] * 0.99 < row["peak_mb"]
        assert row["peak_share"] == pytest.approx(row["peak_mb"] / row["plain_peak_mb"], abs=0.01)


def test_peak_bytes_counts_what_is_held_together_and_not_what_was_given_back() -> None:
    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(1_000_000)

    def together() -> list[Tensor]:
        return [torch.empty(1_000_000) for _ in range(3)]

    assert distill_loss.peak_bytes(one_after_the_other) == pytest.approx(4e6, rel=0.01)
    assert distill_loss.peak_bytes(together) == pytest.approx(12e6, rel=0.01)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_plain_loss_is_the_definition(divergence: str) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 11).double()
    t, beta = distill_loss.TEMPERATURE, distill_loss.BETA
    q, p = (student / t).softmax(-1), (teacher / t).softmax(-1)
    m = beta * p + (1 - beta) * q

    def kl(of: Tensor, to: Tensor) -> Tensor:
        return (of * (of / to).log()).sum(-1)

    wanted = {
        "forward_kl": kl(p, q),
        "reverse_kl": kl(q, p),
        "jsd": beta * kl(p, m) + (1 - beta) * kl(q, m),
    }[divergence]
    found = distill_loss.plain(student, teacher, divergence)
    assert float(found) == pytest.approx(float(wanted.mean() * t**2), rel=1e-10)
