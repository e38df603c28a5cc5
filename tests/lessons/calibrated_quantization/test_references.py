"""The references of lesson 03 by what must hold, and against other ways to the same answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from authoring.build import ROOT
from authoring.sources import find_sources, read_source
from slmlab.checking import Exercise, check, get, make_cases
from slmlab.lessons.calibrated_quantization.allocate_bits import (
    ALLOCATE_BITS,
    average_bits,
    best_error,
    near_the_best,
)
from slmlab.lessons.calibrated_quantization.awq_search import AWQ_SEARCH
from slmlab.lessons.calibrated_quantization.gptq_column import GPTQ_COLUMN
from slmlab.lessons.calibrated_quantization.gptq_memory import (
    GPTQ_MEMORY,
    IN_BYTES,
    IN_GIBIBYTES,
    within_tolerance,
)
from slmlab.lessons.calibrated_quantization.honest_clip import HONEST_CLIP
from slmlab.lessons.calibrated_quantization.salient_channels import SALIENT_CHANNELS
from slmlab.lessons.calibrated_quantization.smoothquant_fold import SMOOTHQUANT_FOLD
from slmlab.quant.gptq import gptq_quantize

seeds = st.integers(0, 10_000)


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(seed=seeds, channels=st.integers(1, 40), share=st.floats(0.01, 1.0))
def test_no_channel_left_out_is_louder_than_one_kept(
    seed: int, channels: int, share: float
) -> None:
    x = torch.randn(5, channels, generator=_random(seed))
    mask = SALIENT_CHANNELS.reference(x, torch.ones(1, channels), share)
    assert int(mask.sum()) == math.ceil(share * channels)
    loudness = x.abs().sum(dim=0)
    if not bool(mask.all()):
        assert float(loudness[mask].min()) >= float(loudness[~mask].max())


@given(seed=seeds)
def test_where_every_weight_is_a_level_no_exponent_of_zero_errs(seed: int) -> None:
    codes = torch.randint(-3, 4, (4, 6), generator=_random(seed)).float()
    codes[:, 0] = 3.0  # the largest level is used, so the step is 0.5 exactly
    x = torch.randn(8, 6, generator=_random(seed + 1))
    found = AWQ_SEARCH.reference(x, 0.5 * codes, [0.0, 0.5], 3)
    assert float(found["errors"][0]) < 1e-9
    assert found["alpha"] == 0.0


@given(seed=seeds)
def test_no_case_speaks_for_shrinking_loud_channels(seed: int) -> None:
    (inverse,) = (m for m in AWQ_SEARCH.mistakes if m.name == "inverse swapped")
    for case in make_cases(AWQ_SEARCH, seed):
        right = AWQ_SEARCH.reference(**case.arguments)["errors"]
        wrong = inverse.implementation(**case.arguments)["errors"]
        scaled = torch.tensor(case.arguments["alphas"]) > 0
        assert bool((wrong[scaled] > right[scaled]).all())


def test_a_signed_mean_has_one_sentence_with_and_without_abs_after_it() -> None:
    def mask(scores: Tensor, share: float) -> Tensor:
        loud = scores.argsort(descending=True)[: math.ceil(share * len(scores))]
        return torch.isin(torch.arange(len(scores)), loud)

    for signed in (lambda x: x.mean(dim=0), lambda x: x.mean(dim=0).abs()):
        report = check(SALIENT_CHANNELS, lambda x, w, share, signed=signed: mask(signed(x), share))
        assert report.diagnosis is not None and report.diagnosis.mistake is not None
        assert report.diagnosis.mistake.name == "sign kept"


@pytest.mark.parametrize("exercise", [ALLOCATE_BITS, AWQ_SEARCH], ids=lambda e: e.id)
def test_a_learner_can_retrace_every_counterexample(exercise: Exercise) -> None:
    for mistake in exercise.mistakes:
        report = check(exercise, mistake.implementation)
        assert report.diagnosis is not None and report.diagnosis.counterexample is not None
        assert "..." not in report.diagnosis.counterexample.sentence


@pytest.mark.parametrize("maximum", ["x_max", "w_max"])
def test_the_fold_asks_for_both_guards(maximum: str) -> None:
    def half_guarded(
        gain: Tensor, weights: list[Tensor], x_max: Tensor, alpha: float
    ) -> dict[str, Any]:
        w_max = torch.cat(weights).abs().amax(dim=0)
        scale = x_max**alpha / w_max ** (1 - alpha)
        scale[{"x_max": x_max, "w_max": w_max}[maximum] == 0] = 1.0
        return {"gain": gain / scale, "weights": [weight * scale for weight in weights]}

    report = check(SMOOTHQUANT_FOLD, half_guarded)
    assert report.outcome == "wrong" and report.diagnosis is not None
    found = report.diagnosis.mistake
    assert (found.name if found else None) == (
        "unused channel not guarded" if maximum == "x_max" else None
    )


@settings(max_examples=25)
@given(seed=seeds)
def test_column_after_column_is_the_packages_gptq(seed: int) -> None:
    x = torch.randn(40, 6, generator=_random(seed)) + torch.randn(
        40, 1, generator=_random(seed + 1)
    )
    w = torch.randn(3, 6, generator=_random(seed + 2))
    hessian = x.T @ x / len(x)
    # Its clamping is out of the way where no code comes near the last one: int8.
    whole = gptq_quantize(w, hessian, "int8", damping=0.1, act_order=False)
    scales = whole.scales.float()[:, 0]
    ours = w
    for column in range(6):
        ours = GPTQ_COLUMN.reference(ours, x, scales, column, 0.1)
    torch.testing.assert_close(ours, whole.dequantize(), rtol=0, atol=float(scales.max()) * 1.01)


@given(seed=seeds, column=st.integers(0, 3))
def test_no_small_move_of_the_later_columns_helps(seed: int, column: int) -> None:
    x = torch.randn(30, 5, generator=_random(seed))
    w, scales = torch.randn(1, 5, generator=_random(seed + 1)), torch.tensor([0.4])
    updated = GPTQ_COLUMN.reference(w, x, scales, column, 0.0)
    delta = updated - w
    assert torch.equal(delta[:, :column], torch.zeros(1, column))
    gradient = delta @ (x.T @ x / 30)
    assert float(gradient[:, column + 1 :].abs().max()) < 1e-4


@given(seed=seeds, alpha=st.floats(0.1, 0.9))
def test_smoothing_keeps_what_every_reader_computes(seed: int, alpha: float) -> None:
    random = _random(seed)
    gain, x = torch.rand(6, generator=random) + 0.1, torch.randn(9, 6, generator=random)
    weights = [torch.randn(rows, 6, generator=random) for rows in (2, 5, 3)]
    folded = SMOOTHQUANT_FOLD.reference(gain, weights, (x * gain).abs().amax(0), alpha)
    for before, after in zip(weights, folded["weights"], strict=True):
        wanted, got = (x * gain) @ before.T, (x * folded["gain"]) @ after.T
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_plans_keep_the_budget_and_come_near_the_best(seed: int) -> None:
    for case in make_cases(ALLOCATE_BITS, seed):
        for choose in (ALLOCATE_BITS.reference, *ALLOCATE_BITS.alternatives):
            plan = choose(**case.arguments)
            assert average_bits(case.arguments["sizes"], plan) <= case.arguments["budget"] + 1e-9
            assert near_the_best(case.arguments, plan) is None


def test_the_best_plan_is_that_of_all_plans() -> None:
    case = make_cases(ALLOCATE_BITS, 0)[-1].arguments
    plan = ALLOCATE_BITS.alternatives[0](**case)
    errors = sum(case["errors"][n][case["choices"].index(b)] for n, b in plan.items())
    assert best_error(case) == pytest.approx(errors)
    assert near_the_best(case, dict.fromkeys(case["sizes"], 8)) is not None
    assert near_the_best(case, {}) is not None


@given(seed=seeds)
def test_the_ratio_does_not_depend_on_the_evaluation_text(seed: int) -> None:
    random = _random(seed)
    w, x = torch.randn(3, 8, generator=random), torch.randn(6, 8, generator=random)
    others = [torch.randn(6, 8, generator=random) for _ in range(2)]
    first, second = (HONEST_CLIP.reference(w, x, other, [1.0, 0.8, 0.6], 3) for other in others)
    assert first["ratio"] == second["ratio"]
    assert first["error"] != second["error"]


def test_the_memory_of_gptq_is_that_of_real_tensors() -> None:
    with torch.device("meta"):
        layer = [nn.Linear(4096, 4096, bias=False, dtype=torch.float16) for _ in range(4)]
        layer += [nn.Linear(4096, 11008, bias=False, dtype=torch.float16) for _ in range(3)]
        states = torch.empty(128, 2048, 4096, dtype=torch.float16)
        hessian = torch.empty(11008, 11008)
    total = sum(m.weight.nbytes for m in layer) + states.nbytes + hessian.nbytes
    assert GPTQ_MEMORY.reference() == pytest.approx(total / 1e9)
    assert within_tolerance({}, total / 1e9 * 1.015) is None
    one_matrix_of_the_mlp = 4096 * 11008 * 2
    assert within_tolerance({}, (total - one_matrix_of_the_mlp) / 1e9) is not None
    assert within_tolerance({}, total / 2**30) == IN_GIBIBYTES
    assert within_tolerance({}, total) == IN_BYTES


def test_the_worked_examples() -> None:
    x = torch.tensor([[3.0, 1.0, 0.0], [-3.0, 2.0, 0.0]])
    assert SALIENT_CHANNELS.reference(x, x, 0.4).tolist() == [True, True, False]
    x, w = torch.tensor([[3.0, 1.0, 1.0]]), torch.tensor([[0.4, 1.0, -0.7]])
    assert float(AWQ_SEARCH.reference(x, w, [1.0], 3)["errors"][0]) == pytest.approx(0.09, rel=1e-4)
    # Inputs whose second moment, damped with 0.25, is [[2, 1], [1, 2]].
    root = torch.linalg.cholesky(torch.tensor([[1.6, 1.0], [1.0, 1.6]]) * 2).T
    found = GPTQ_COLUMN.reference(
        torch.tensor([[0.7, 0.4]]), root.contiguous(), torch.tensor([0.5]), 0, 0.25
    )
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5]]), rtol=0, atol=1e-5)
    folded = SMOOTHQUANT_FOLD.reference(
        torch.ones(1), [torch.tensor([[1.0]]), torch.tensor([[4.0]])], torch.tensor([16.0]), 0.5
    )
    assert folded["gain"].item() == pytest.approx(0.5)
    assert [w.item() for w in folded["weights"]] == pytest.approx([2.0, 8.0])
    plan = ALLOCATE_BITS.reference(
        {"a": 100, "b": 300}, {"a": [0.4, 0.02], "b": [0.01, 0.001]}, [2, 4], 2.5
    )
    assert plan == {"a": 4, "b": 2}


@pytest.mark.parametrize(
    ("function", "identifier", "mistake"),
    [
        ("smoothquant_as_found", "calibration.smoothquant_fold", "the given bug"),
        ("clip_as_found", "calibration.honest_clip", "calibrated on the evaluation text"),
    ],
)
def test_the_code_to_repair_runs_and_is_diagnosed_as_itself(
    function: str, identifier: str, mistake: str
) -> None:
    (source,) = (
        s for s in find_sources(ROOT) if s.topic == "03_calibrated_quantization" and not s.is_lesson
    )
    cells = read_source(source).cells
    (code,) = (c.source for c in cells if c.source.startswith(f"def {function}"))
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "math": math}
    exec(compile(code, function, "exec"), names)
    report = check(get(identifier), names[function])
    assert report.outcome == "wrong" and report.diagnosis is not None
    assert report.diagnosis.mistake is not None
    assert report.diagnosis.mistake.name == mistake
