"""The references of lesson 02 against independent arithmetic, and every worked example."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from authoring.build import ROOT
from authoring.sources import Source, read_source
from slmlab.checking import Exercise, check, diagnose, get, make_cases, run
from slmlab.lessons.quantization import EXERCISES
from slmlab.lessons.quantization.absmax_int8 import ABSMAX_INT8
from slmlab.lessons.quantization.affine_int8 import AFFINE_INT8
from slmlab.lessons.quantization.choose_group import CHOOSE_GROUP
from slmlab.lessons.quantization.file_size import FILE_SIZE
from slmlab.lessons.quantization.nf4_codes import NF4_CODES
from slmlab.lessons.quantization.nf4_levels import NF4_LEVELS, TAIL
from slmlab.lessons.quantization.pack_int4 import PACK_INT4
from slmlab.lessons.quantization.unpack_repair import UNPACK_REPAIR


def _quantile(probability: float) -> float:
    """Of the standard normal, by mpmath."""
    return float(mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(probability) - 1))


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """(out, in) of ordinary size; a row may be zeros."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    value = st.floats(-8, 8, width=32).map(lambda x: 0.0 if abs(x) < 0.05 else x)
    rows_of_values = st.lists(value, min_size=columns, max_size=columns)
    return torch.tensor(draw(st.lists(rows_of_values, min_size=rows, max_size=rows)))


@st.composite
def code_matrices(draw: st.DrawFn) -> Tensor:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    row = st.lists(st.integers(-8, 7), min_size=columns, max_size=columns)
    values = draw(st.lists(row, min_size=rows, max_size=rows))
    return torch.tensor(values, dtype=torch.int8)


@given(w=weights())
def test_absmax_comes_back_within_half_a_step_and_uses_the_last_code(w: Tensor) -> None:
    for answer in (ABSMAX_INT8.reference, *ABSMAX_INT8.alternatives):
        codes, scales = answer(w)
        wide = codes.double() * scales.double()[:, None]
        assert ((wide - w).abs() <= 0.5001 * scales[:, None]).all()
        largest = codes.int().abs().amax(dim=1)
        assert largest.tolist() == [127 if row.any() else 0 for row in w]
        assert all(scale == 1 for scale, row in zip(scales, w, strict=True) if not row.any())


@given(w=weights())
def test_affine_keeps_zero_and_both_ends(w: Tensor) -> None:
    for answer in (AFFINE_INT8.reference, *AFFINE_INT8.alternatives):
        codes, scales, zero_points = answer(w)
        exact = [[Fraction(x) for x in row] for row in w.tolist()]
        for row, got, scale, zero in zip(exact, codes, scales, zero_points, strict=True):
            low, high = (f([Fraction(0), *row]) for f in (min, max))
            step = Fraction(scale.item())
            assert abs(step * 255 - (high - low)) <= (high - low) / 10**6 or high == low
            # Ends may share their rounding: a whole step is the bound, half of it without zero.
            back = [step * (int(code) - int(zero)) for code in got]
            assert all(abs(a - b) <= step * Fraction(101, 100) for a, b in zip(back, row))
            assert all(int(c) == int(zero) for c, x in zip(got, row, strict=True) if x == 0)


@given(codes=code_matrices())
def test_packing_against_bit_strings(codes: Tensor) -> None:
    wanted = []
    for row in codes.tolist():
        nibbles = [format(code & 0b1111, "04b") for code in row] + ["0000"] * (len(row) % 2)
        wanted.append([int(b + a, 2) for a, b in zip(nibbles[::2], nibbles[1::2], strict=True)])
    for pack in (PACK_INT4.reference, *PACK_INT4.alternatives):
        packed = pack(codes)
        assert packed.dtype == torch.uint8 and packed.tolist() == wanted
        for unpack in (UNPACK_REPAIR.reference, *UNPACK_REPAIR.alternatives):
            assert torch.equal(unpack(packed, codes.shape[1]), codes)


def test_levels_are_normal_quantiles_by_mpmath() -> None:
    step_up, step_down = (TAIL - 0.5) / 8, (TAIL - 0.5) / 7
    up = [_quantile(0.5 + step_up * k) for k in range(1, 9)]
    down = [-_quantile(0.5 + step_down * k) for k in range(7, 0, -1)]
    wanted = [x / up[-1] for x in (*down, 0.0, *up)]
    assert NF4_LEVELS.reference().tolist() == pytest.approx(wanted, abs=1e-6)
    # What the first mistake's sentence says.
    assert f"{up[-1]:.3f} times" in NF4_LEVELS.mistakes[0].sentence


def test_the_table_of_the_package_cannot_be_changed_through_an_answer() -> None:
    NF4_LEVELS.reference().zero_()
    assert NF4_LEVELS.reference()[-1] == 1


@given(seed=st.integers(0, 10_000), groups=st.integers(1, 3), size=st.sampled_from((1, 2, 8)))
def test_no_other_level_is_nearer(seed: int, groups: int, size: int) -> None:
    w = torch.randn(3, groups * size, generator=torch.Generator().manual_seed(seed))
    w[0, :size] = 0
    levels = NF4_LEVELS.reference()
    for answer in (NF4_CODES.reference, *NF4_CODES.alternatives):
        codes, absmax = answer(w, levels, size)
        assert absmax.shape == (3, groups)
        each = absmax.repeat_interleave(size, dim=1)
        distance = (levels[codes.long()] * each - w).abs()
        every = (levels * each[..., None] - w[..., None]).abs().amin(dim=-1)
        assert (distance <= every + 1e-6).all()
        assert levels[codes[0, :size].long()].eq(0).all()


def test_the_file_size_by_counting_things() -> None:
    groups = 106_200_000 // 16
    bits = 106_200_000 * 4 + groups * 16 + groups * 4 + 28_300_000 * 16
    assert FILE_SIZE.reference() == pytest.approx(bits / 8 / 1e6, rel=1e-3)


@pytest.mark.parametrize(
    ("factor", "outcome"), [(1.0, "passed"), (0.991, "passed"), (1.009, "passed"), (1.011, "wrong")]
)
def test_one_percent(factor: float, outcome: str) -> None:
    assert check(FILE_SIZE, lambda: factor * FILE_SIZE.reference()).outcome == outcome


@pytest.mark.parametrize("answer", [0, -126.3, math.nan, math.inf, "126", True, [126.3], None])
def test_no_number_never_passes(answer: Any) -> None:
    assert check(FILE_SIZE, lambda: answer).outcome == "wrong"


def test_a_wrong_size_is_not_told_the_right_one() -> None:
    for answer in (90.0, *(mistake.implementation() for mistake in FILE_SIZE.mistakes)):
        report = check(FILE_SIZE, lambda answer=answer: answer)
        assert report.diagnosis is not None and report.diagnosis.counterexample is not None
        told = report.diagnosis.sentence + report.diagnosis.counterexample.sentence
        assert "126" not in told


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1e6, "That is in bytes"),
        (8e6, "That is in bits"),
        (1e-3, "That is in GB"),
        (1.5, "1.5 times"),
    ],
)
def test_another_unit_is_named_and_nothing_else_is_asked(factor: float, words: str) -> None:
    report = check(FILE_SIZE, lambda: factor * FILE_SIZE.reference())
    assert report.diagnosis is not None and words in report.diagnosis.sentence
    assert ("which term is off?" in report.diagnosis.sentence) is (factor == 1.5)


def test_a_named_mistake_asks_its_own_question_only() -> None:
    for mistake in FILE_SIZE.mistakes:
        report = check(FILE_SIZE, mistake.implementation)
        assert report.diagnosis is not None and report.diagnosis.sentence.count("?") == 1
        assert report.diagnosis.counterexample is not None
        assert report.diagnosis.counterexample.sentence.startswith("Your answer: ")


def _cut(w: Tensor) -> tuple[Tensor, Tensor]:
    amax = w.abs().amax(dim=1)
    scales = torch.where(amax > 0, amax / 127, 1.0)
    return (w / scales[:, None]).to(torch.int8), scales


def _rounded_over_both(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = w.amin(dim=1).clamp(max=0), w.amax(dim=1).clamp(min=0)
    scales = torch.where(high > low, (high - low) / 255, 1.0)
    codes = ((w - low[:, None]) / scales[:, None]).round() - 128
    zero_points = -128 - (low / scales).round()
    return codes.clamp(-128, 127).to(torch.int8), scales, zero_points.to(torch.int8)


def _not_widened(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = w.amin(dim=1), w.amax(dim=1)
    scales = torch.where(high > low, (high - low) / 255, 1.0)
    zero_points = (-128 - (low / scales).round()).clamp(-128, 127)
    codes = ((w / scales[:, None]).round() + zero_points[:, None]).clamp(-128, 127)
    return codes.to(torch.int8), scales, zero_points.to(torch.int8)


def _every_second_column(w: Tensor, levels: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    groups = w.shape[1] // group_size
    absmax = torch.stack([w[:, g::groups].abs().amax(dim=1) for g in range(groups)], dim=1)
    x = w / absmax.clamp(min=1e-20).repeat(1, group_size)
    return (x[..., None] - levels).abs().argmin(dim=-1).to(torch.int8), absmax


@pytest.mark.parametrize(
    ("exercise", "answer", "name", "numbers"),
    [
        (ABSMAX_INT8, _cut, "cut instead of rounded", 2),
        (AFFINE_INT8, _rounded_over_both, "rounded once", 3),
        (AFFINE_INT8, _not_widened, "range without zero", 2),
        (NF4_CODES, _every_second_column, "groups with a stride", 4),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_likely_mistake_is_shown_on_a_few_weights(
    exercise: Exercise, answer: Any, name: str, numbers: int
) -> None:
    for seed in range(6):
        found = diagnose(exercise, run(exercise, answer, seed))
        assert found is not None and found.mistake is not None and found.mistake.name == name
        assert found.counterexample is not None
        given = dict(found.counterexample.given)["w"]
        assert given.startswith("[[") and given.count(",") < numbers


def test_every_choice_within_the_budget_and_near_the_best_passes() -> None:
    for seed in range(5):
        for case in make_cases(CHOOSE_GROUP, seed):
            sizes = case.arguments["group_sizes"]
            problem = CHOOSE_GROUP.compare.problem
            wanted = CHOOSE_GROUP.reference(**case.arguments)
            offered = (*sizes, None)
            accepted = [s for s in offered if problem(case.arguments, wanted, s) is None]
            assert accepted == [wanted]


def test_a_choice_that_is_not_offered_is_refused() -> None:
    for answer in (3, 4.0, True, "4"):
        problem = CHOOSE_GROUP.compare.problem
        case = make_cases(CHOOSE_GROUP, 0)[0]
        assert problem(case.arguments, 4, answer) is not None


def test_the_worked_examples_of_the_hints() -> None:
    codes, scales = ABSMAX_INT8.reference(torch.tensor([[2.0, -1.0, 0.5]]))
    assert codes.tolist() == [[127, -64, 32]] and f"{scales[0]:.6f}" in ABSMAX_INT8.hints[1]
    assert f"{-64 * scales[0]:.4f}" in ABSMAX_INT8.hints[1]
    affine = AFFINE_INT8.reference(torch.tensor([[-0.5, 0.0, 2.0]]))
    assert affine[0].tolist() == [[-128, -77, 127]] and affine[2].tolist() == [-77]
    assert f"{affine[1][0]:.7f}" in AFFINE_INT8.hints[1]
    packed = PACK_INT4.reference(torch.tensor([[3, -1, 2]], dtype=torch.int8))
    assert str(packed.tolist()[0]) in PACK_INT4.hints[1]
    found = UNPACK_REPAIR.mistakes[0].implementation(packed, 3).tolist()[0]
    assert f"{found}." in UNPACK_REPAIR.hints[1]
    small = [-_quantile(0.9), 0.0, _quantile(0.7), _quantile(0.9)]
    assert str([round(x / small[-1], 4) for x in small]) in NF4_LEVELS.hints[1]
    small_file = (1e6 * (2 + 18 / 50) + 16e4) / 8e6
    assert f"{small_file:.3f} MB" in FILE_SIZE.hints[1]
    row = torch.tensor([[3.0, 1.3, 0.2, 0.1]])
    assert CHOOSE_GROUP.reference(row, [4, 2], 5) == 4
    assert CHOOSE_GROUP.reference(row, [4, 2], 6) == 2
    assert CHOOSE_GROUP.reference(row, [4, 2], 3) is None


def test_the_code_to_repair_is_diagnosed_as_itself() -> None:
    name = "authoring/02_quantization/exercises.py"
    source = Source(ROOT / name, name, "02_quantization", False)
    cells = [c.source for c in read_source(source).cells if "def unpack_as_found" in c.source]
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor}
    exec(compile(cells[0], "unpack_as_found", "exec"), names)
    report = check(get("quantization.unpack_repair"), names["unpack_as_found"])
    assert report.diagnosis is not None and report.diagnosis.mistake is not None
    assert report.diagnosis.mistake.name == "the given bug"


def test_eight_exercises_of_about_eighty_minutes() -> None:
    assert len(EXERCISES) == 8 and sum(e.minutes for e in EXERCISES) == 79
