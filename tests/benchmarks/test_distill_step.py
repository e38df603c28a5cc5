"""The race of whole steps runs, counts its arithmetic right, and refuses a way that learns otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import distill_step
from benchmarks._distill_models import (
    SMALL_STUDENT,
    SMALL_TEACHER,
    decoder,
    in_transformers,
    product_flops,
    step_flops,
)
from benchmarks._distill_rounds import Laps, Rounds, equal_results
from benchmarks._distill_trl import Trl, missing
from benchmarks._distill_ways import TEMPERATURE, Ours, PlainLoop, Way, kl_div_loss
from slmlab.models import Decoder

CONFIG = SMALL_STUDENT.config()
RIVALS = {"plain loop", "plain loop, transformers models", "trl"}
needs_trl = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def test_a_short_race(capsys: pytest.CaptureFixture[str]) -> None:
    distill_step.main(["--short"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    left_out = missing()
    assert measured["threads"] == 1 and measured["trl_left_out"] == left_out
    assert measured["aims"] == []  # they are set for the full size
    assert set(measured["ways"]) == RIVALS | {"slmlab", "slmlab, stored teacher"}
    assert set(measured["over"]) == RIVALS
    for table in ("ways", "over"):
        assert (measured[table]["trl"] is None) == (left_out is not None)
    here = {name for name, row in measured["ways"].items() if row is not None}
    for name in here:
        row = measured["ways"][name]
        assert len(row["cpu_seconds"]) == len(row["wall_seconds"]) == measured["plan"]["repeats"]
        tokens = measured["plan"]["rows"] * measured["plan"]["time"]
        assert row["tokens_per_cpu_second"] == pytest.approx(
            tokens / min(row["cpu_seconds"]), rel=0.05
        )
        # A stored teacher does fewer products.
        assert (name in measured["gemm"]["share"]) == ("stored" not in name)
    for name in here & RIVALS:
        over = measured["over"][name]
        assert 0 < over["low"] <= over["ratio"] <= over["high"] and over["n"] == 2
        assert 0 < over["wall_low"] <= over["wall_ratio"] <= over["wall_high"]
    assert set(measured["equal_results"]["differences"]) == here - {"slmlab"}
    # One epoch asks the teacher for all of it; what later ones save shows more with each.
    epochs = measured["stored_teacher"]["epochs"]
    for name in here & RIVALS:
        least = {n: min(measured["ways"][n]["cpu_seconds"]) for n in ("slmlab", name)}
        assert epochs["1"][name] == pytest.approx(least[name] / least["slmlab"], rel=0.05)
    rounded = measured["bfloat16_teacher"]
    assert set(rounded["ways"]) == {"slmlab", "trl"}
    assert (rounded["over"]["trl"] is None) == (left_out is not None)


def test_without_trl_its_rows_are_null_and_say_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distill_step, "missing", lambda: "trl is left out: not installed")
    distill_step.main(["--short"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["ways"]["trl"] is None and measured["over"]["trl"] is None
    assert measured["trl_left_out"] == "trl is left out: not installed"
    assert "trl" not in measured["gemm"]["share"] and distill_step.aims(measured) == []


@pytest.fixture(scope="module")
def pair() -> tuple[Decoder, Decoder, Tensor]:
    teacher = decoder(SMALL_TEACHER, 1, 0.2).eval().requires_grad_(False)
    student = decoder(SMALL_STUDENT, 2, 0.2)
    torch.manual_seed(3)
    return student, teacher, torch.randint(4, 2048, (2, 13))


def reversed_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_div_loss(teacher, student)


def without_temperature(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_div_loss(student * TEMPERATURE, teacher * TEMPERATURE) / TEMPERATURE**2


def summed(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_div_loss(student, teacher) * 24


def shifted(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_div_loss(student[:, 1:], teacher[:, :-1])


def same_value_without_gradient_of_half(student: Tensor, teacher: Tensor) -> Tensor:
    half = torch.cat((student[:1], student[1:].detach()))
    return kl_div_loss(half, teacher)


@pytest.mark.parametrize(
    "loss",
    [reversed_kl, without_temperature, summed, shifted, same_value_without_gradient_of_half],
)
def test_a_wrong_loss_is_refused(loss: Any, pair: tuple[Decoder, Decoder, Tensor]) -> None:
    student, teacher, rows = pair
    ways: list[Way] = [
        Ours(student, teacher, rows),
        PlainLoop("wrong", student, teacher, rows, loss),
    ]
    with pytest.raises(ValueError, match="wrong takes another step than slmlab"):
        equal_results(ways, CONFIG)


def test_another_optimizer_is_refused(pair: tuple[Decoder, Decoder, Tensor]) -> None:
    student, teacher, rows = pair
    wrong = PlainLoop("wrong", student, teacher, rows, kl_div_loss)
    wrong._optimizer = torch.optim.SGD(wrong.student.parameters(), lr=1e-3)
    with pytest.raises(ValueError, match="weights differs"):
        equal_results([Ours(student, teacher, rows), wrong], CONFIG)


@needs_trl
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_trl_takes_our_step_with_forward_kl_and_is_refused_with_reverse(
    beta: float, pair: tuple[Decoder, Decoder, Tensor]
) -> None:
    from slmlab import load

    student, teacher, rows = pair
    theirs = Trl(
        in_transformers(student), in_transformers(teacher), rows, load("tiny").tokenizer, beta
    )
    ways: list[Way] = [Ours(student, teacher, rows), theirs]
    if beta == 0:
        row = equal_results(ways, CONFIG)["differences"]["trl"]
        assert row["loss"] < 1e-5 and row["gradient"] < 1e-4 and row["weights"] < 1e-3
    else:
        with pytest.raises(ValueError, match="trl takes another step than slmlab: loss"):
            equal_results(ways, CONFIG)


@needs_trl
def test_between_trl_steps_the_others_take_as_many(pair: tuple[Decoder, Decoder, Tensor]) -> None:
    from slmlab import load

    student, teacher, rows = pair
    theirs = Trl(in_transformers(student), in_transformers(teacher), rows, load("tiny").tokenizer)
    ours = Ours(student, teacher, rows)
    rounds = Rounds([ours, theirs], 16)
    rounds.run(3, warmup=1)
    assert {name: len(laps.process) for name, laps in rounds.laps.items()} == {
        "slmlab": 3,
        "trl": 3,
    }
    assert ours._distiller.history.step == theirs._trainer.state.global_step == 4


def test_ratios_go_the_right_way(pair: tuple[Decoder, Decoder, Tensor]) -> None:
    student, teacher, rows = pair
    rounds = Rounds([Ours(student, teacher, rows)], 16)
    rounds.laps = {
        "slmlab": Laps(process=[1.0, 2.0, 1.0], wall=[2.0, 2.0, 2.0]),
        "slow": Laps(process=[3.0, 4.0, 4.0], wall=[2.0, 3.0, 4.0]),
    }
    over = rounds.over("slmlab", "slow")
    assert (over["ratio"], over["low"], over["high"], over["n"]) == (3.0, 2.0, 4.0, 3)
    assert (over["wall_ratio"], over["wall_low"], over["wall_high"]) == (1.5, 1.0, 2.0)


def test_arithmetic_is_what_torch_counts(pair: tuple[Decoder, Decoder, Tensor]) -> None:
    student, teacher, rows = pair
    ids, tokens = rows[:, :-1], rows[:, :-1].numel()
    # The counter has no formula for the CPU's fused attention, which the counts here leave out too.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        teacher(ids)
    assert counter.get_total_flops() == product_flops(teacher.config, tokens)
    with FlopCounterMode(display=False) as counter:
        student(ids).square().sum().backward()
    whole = product_flops(teacher.config, tokens) + counter.get_total_flops()
    assert whole == step_flops(teacher.config, student.config, tokens)
