"""The references of lesson 07 against independent arithmetic, and every worked example."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor
from torch.nn import functional

from authoring.build import ROOT
from authoring.sources import Source, read_source
from slmlab.checking import check, get, make_cases, registered
from slmlab.distill import (
    depth_pruned,
    distillation_loss,
    student_from_layers,
    student_sequences,
    top_k_logits,
)
from slmlab.distill.batches import Batch
from slmlab.lessons.distillation import EXERCISES
from slmlab.lessons.distillation.choose_k import CHOOSE_K
from slmlab.lessons.distillation.gradient import GRADIENT
from slmlab.lessons.distillation.keep_layers import KEEP_LAYERS
from slmlab.lessons.distillation.on_policy import ON_POLICY
from slmlab.lessons.distillation.padding import PADDING, counted
from slmlab.lessons.distillation.soft_targets import SOFT_TARGETS
from slmlab.lessons.distillation.step_repair import STEP_REPAIR
from slmlab.lessons.distillation.stored_logits import STORED_LOGITS
from slmlab.lessons.distillation.top_k import TOP_K
from slmlab.lessons.distillation.two_modes import TWO_MODES
from slmlab.models import Decoder, ModelConfig

TEMPERATURES = pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
SOURCE = "authoring/07_distillation/exercises.py"


@pytest.fixture(autouse=True)
def topic() -> Any:
    with registered("distillation", EXERCISES):
        yield


def both(exercise: Any) -> tuple[Any, ...]:
    return (exercise.reference, *exercise.alternatives)


def two(positions: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, positions, size, generator=generator)
    return student, teacher


@TEMPERATURES
def test_soft_targets_by_scipy_and_by_torch(temperature: float) -> None:
    student, teacher = two(5, 7)
    p, q = (softmax(x.double().numpy() / temperature, axis=-1) for x in (teacher, student))
    wanted = temperature**2 * rel_entr(p, q).sum(-1).mean()
    by_torch = temperature**2 * functional.kl_div(
        (student / temperature).log_softmax(-1),
        (teacher / temperature).softmax(-1),
        reduction="batchmean",
    )
    assert float(by_torch) == pytest.approx(wanted, rel=1e-5)
    for answer in both(SOFT_TARGETS):
        assert float(answer(student, teacher, temperature)) == pytest.approx(wanted, rel=1e-5)


@TEMPERATURES
def test_gradient_by_finite_differences(temperature: float) -> None:
    student, teacher = (x.double() for x in two(3, 4))
    wanted, step = torch.zeros_like(student), 1e-5
    for at in range(student.numel()):
        moved = torch.zeros(student.numel(), dtype=torch.float64)
        moved[at] = step
        moved = moved.view_as(student)
        up, down = (
            SOFT_TARGETS.alternatives[0](student + sign * moved, teacher, temperature)
            for sign in (1, -1)
        )
        wanted.view(-1)[at] = (up - down) / (2 * step)
    for answer in both(GRADIENT):
        torch.testing.assert_close(
            answer(student, teacher, temperature), wanted, rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_over_tokens_is_the_packages_masked_loss(seed: int) -> None:
    """Per-position divergences in, and the package's own mean over the same mask."""
    for case in make_cases(PADDING, seed):
        real = case.arguments["real"]
        student, teacher = (x.view(*real.shape, 5) for x in two(real.numel(), 5, seed))
        p, q = (softmax(x.double().numpy(), axis=-1) for x in (teacher, student))
        divergence = torch.from_numpy(rel_entr(p, q).sum(-1)).float()
        wanted = distillation_loss(student, teacher, 1.0, mask=counted(real))
        for answer in both(PADDING):
            torch.testing.assert_close(answer(divergence, real), wanted)


def test_more_padding_changes_nothing() -> None:
    divergence, real = torch.rand(2, 4), torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]).bool()
    longer = functional.pad(divergence, (2, 3), value=9.0)
    for answer in both(PADDING):
        torch.testing.assert_close(
            answer(longer, functional.pad(real, (2, 3))), answer(divergence, real)
        )


@pytest.mark.parametrize("seed", range(3))
def test_the_closest_students_by_scipy(seed: int) -> None:
    for case in make_cases(TWO_MODES, seed):
        p, q = (case.arguments[name].double().numpy() for name in ("teacher", "students"))
        wanted = [int(rel_entr(p, q).sum(-1).argmin()), int(rel_entr(q, p).sum(-1).argmin())]
        for answer in both(TWO_MODES):
            assert answer(**case.arguments) == wanted
        covering, settled = q[wanted[0]], q[wanted[1]]
        top_two = p.argsort()[-2:]
        # What the statement says of the two, in numbers.
        assert (covering / p)[top_two].min() > (settled / p)[top_two].min()


@given(seed=st.integers(0, 10_000), k=st.integers(1, 5))
@settings(max_examples=30)
def test_top_k_by_scipy_and_between_its_bounds(seed: int, k: int) -> None:
    student, teacher = two(3, 6, seed)
    temperature = 2.0
    p, q = (softmax(x.double().numpy() / temperature, axis=-1) for x in (teacher, student))
    wanted = 0.0
    for row in range(3):
        order = teacher[row].argsort(descending=True).tolist()
        buckets = [
            [*(x[row, order[:k]]), x[row, order[k:]].sum()]  # k tokens, then all others
            for x in (p, q)
        ]
        wanted += rel_entr(*buckets).sum() / 3 * temperature**2
    whole = float(distillation_loss(student, teacher, temperature))
    for answer in both(TOP_K):
        found = float(answer(student, teacher, k, temperature))
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-5)
        assert -1e-6 <= found <= whole + 1e-5


def test_the_size_on_disk_is_that_of_a_saved_file(tmp_path: Any) -> None:
    sizes = []
    for positions in (64, 128):
        logits = torch.randn(positions, 2048).half()
        top_k_logits(logits, 16).save(tmp_path / "kept.safetensors")
        sizes.append((tmp_path / "kept.safetensors").stat().st_size)
    a_position = (sizes[1] - sizes[0]) / 64  # the header falls out
    assert STORED_LOGITS.reference() == pytest.approx(a_position * 120e6 / 1e9, rel=5e-3)
    assert 98_304 / a_position == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_choices_of_k_by_counting(seed: int) -> None:
    sizes = []
    for case in make_cases(CHOOSE_K, seed):
        logits, temperature, most_lost, most_bytes = case.arguments.values()
        p = softmax(logits.double().numpy() / temperature, axis=-1)
        right = []
        for k in range(1, p.shape[1] + 1):
            lost = sum(sum(sorted(row)[: p.shape[1] - k]) for row in p) / len(p)
            if lost <= most_lost and 6 * k + 4 <= most_bytes:
                right.append(k)
        for answer in both(CHOOSE_K):
            assert answer(*case.arguments.values()) in (right or [0])
        for k in range(p.shape[1] + 2):
            said = CHOOSE_K.compare.problem(case.arguments, None, k)
            assert (said is None) == (k in (right or [0]))
        sizes.append(len(right))
    assert 0 in sizes and 1 in sizes and max(sizes) > 1


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_layers_kept_are_those_that_the_package_keeps(keep: int) -> None:
    torch.manual_seed(keep)
    teacher = Decoder(ModelConfig("llama", 12, 8, 12, 4, 2, 1, 4, 64)).eval()
    ids = torch.randint(0, 12, (4, 16))
    increase = []
    for left_out in range(4):
        others = [layer for layer in range(4) if layer != left_out]
        increase.append(_loss(_with(teacher, others), ids) - _loss(teacher, ids))
    pruned = depth_pruned(teacher, keep, ids, importance="loss")
    for answer in both(KEEP_LAYERS):
        kept = [teacher.layers[at] for at in answer(increase, keep)]
        for ours, theirs in zip(kept, pruned.layers, strict=True):
            for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                assert torch.equal(mine, other)


def _with(teacher: Decoder, keep: list[int]) -> Decoder:
    short: Decoder = student_from_layers(teacher, keep)
    return short


def _loss(model: Decoder, ids: Tensor) -> float:
    with torch.no_grad():
        logits = model(ids)[:, :-1].flatten(0, 1)
    return float(functional.cross_entropy(logits, ids[:, 1:].flatten()))


@pytest.mark.parametrize("seed", range(4))
def test_the_marks_are_those_of_a_student_that_writes(seed: int) -> None:
    torch.manual_seed(seed)
    student = Decoder(ModelConfig("llama", 6, 8, 12, 1, 2, 1, 4, 64)).eval()
    ids = torch.randint(0, 6, (6, 9))
    given_mask = torch.ones(6, 8, dtype=torch.bool)
    batch = Batch(ids, given_mask, torch.arange(6))
    stop, prompt = 3, 3
    ids[0, 1] = stop
    text = student_sequences(student, batch, prompt, torch.rand(6, 6), stop_ids=(stop,))
    for answer in both(ON_POLICY):
        assert torch.equal(answer(text.ids, prompt, stop), text.mask)
    assert 0 < int(text.mask.sum()) < text.mask[:, prompt - 1 :].numel()


@pytest.mark.parametrize("seed", range(3))
def test_the_step_by_scipy(seed: int) -> None:
    for case in make_cases(STEP_REPAIR, seed):
        student, teacher, labels, alpha, temperature = case.arguments.values()
        soft, hard = [], []
        for row, at in (labels[:, 1:] != -100).nonzero().tolist():
            z, guide = student[row, at].double().numpy(), teacher[row, at].double().numpy()
            p, q = softmax(guide / temperature), softmax(z / temperature)
            soft.append(rel_entr(p, q).sum() * temperature**2)
            hard.append(-log_softmax(z)[labels[row, at + 1]])
        wanted = alpha * sum(soft) / len(soft) + (1 - alpha) * sum(hard) / len(hard)
        for answer in both(STEP_REPAIR):
            assert float(answer(*case.arguments.values())) == pytest.approx(wanted, rel=1e-4)


def test_the_property_that_finds_the_bug() -> None:
    same, _ = two(8, 5)
    same, labels = same.view(2, 4, 5), torch.tensor([[0, 1, 2, 3], [1, 1, 0, -100]])
    for answer in both(STEP_REPAIR):
        assert float(answer(same, same, labels, 1.0, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(as_found()(same, same, labels, 1.0, 2.0)) > 0.1


def test_worked_examples_of_the_statements() -> None:
    student, teacher = torch.zeros(1, 3), torch.tensor([[4.0, 0.0, 0.0]])
    assert (teacher / 2).softmax(-1)[0].tolist() == pytest.approx([0.787, 0.107, 0.107], abs=6e-4)
    loss = float(SOFT_TARGETS.reference(student, teacher, 2.0))
    assert loss == pytest.approx(1.73, abs=5e-3) and loss / 4 == pytest.approx(0.433, abs=5e-4)
    found = GRADIENT.reference(student, teacher, 2.0)[0].tolist()
    assert found == pytest.approx([-0.907, 0.454, 0.454], abs=6e-4)
    real = torch.tensor([[True, True, False]])
    assert float(PADDING.reference(torch.tensor([[0.5, 1.0, 2.0]]), real)) == pytest.approx(0.5)
    target = torch.tensor([0.55, 0.02, 0.43])
    rows = torch.tensor([[0.4, 0.3, 0.3], [0.90, 0.05, 0.05]])
    assert TWO_MODES.reference(target, rows) == [0, 1]
    forward = [float(rel_entr(target.numpy(), row.numpy()).sum()) for row in rows]
    reverse = [float(rel_entr(row.numpy(), target.numpy()).sum()) for row in rows]
    assert forward == pytest.approx([0.28, 0.64], abs=6e-3)
    assert reverse == pytest.approx([0.58, 0.38], abs=6e-3)
    ours, theirs = torch.tensor([[0.5, 0.1, 0.4]]).log(), torch.tensor([[0.7, 0.2, 0.1]]).log()
    assert float(TOP_K.reference(ours, theirs, 1, 1.0)) == pytest.approx(0.082, abs=5e-4)
    assert float(distillation_loss(ours, theirs, 1.0)) == pytest.approx(0.236, abs=5e-4)
    assert STORED_LOGITS.reference() == pytest.approx(12.0)
    sample = torch.tensor([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1]]).log()
    assert CHOOSE_K.reference(sample, 1.0, 0.15, 16) == 2
    assert CHOOSE_K.reference(sample, 1.0, 0.15, 15) == 0
    assert KEEP_LAYERS.reference([2.0, 0.1, 0.7], 2) == [0, 2]
    marks = ON_POLICY.reference(torch.tensor([[5, 7, 9, 0, 0]]), 2, 0)
    assert marks.tolist() == [[False, True, True, False]]


def as_found() -> Any:
    notebook = read_source(Source(ROOT / SOURCE, SOURCE, "07_distillation", False))
    (source,) = (c.source for c in notebook.cells if c.source.startswith("def step_loss_as_found"))
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "math": math}
    exec(compile(source, "step_loss_as_found", "exec"), names)
    return names["step_loss_as_found"]


@pytest.mark.parametrize("seed", range(3))
def test_the_code_to_repair_runs_and_is_diagnosed_as_itself(seed: int) -> None:
    report = check(get("distillation.step_repair"), as_found(), seed)
    assert report.outcome == "wrong" and report.diagnosis is not None
    assert report.diagnosis.mistake is not None
    assert report.diagnosis.mistake.name == "the given bug"
