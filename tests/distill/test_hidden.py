"""Hidden-state matching."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.distill.hidden import HiddenStateLoss, uniform_layer_map


@given(student=st.integers(1, 12), more=st.integers(0, 12))
def test_the_uniform_map_rises_from_embeddings_to_the_last_state(student, more):
    mapped = uniform_layer_map(student, student + more)
    assert list(mapped) == list(range(student + 1))
    values = list(mapped.values())
    assert values[0] == 0 and values[-1] == student + more
    steps = {b - a for a, b in pairwise(values)}
    assert max(steps) - min(steps) <= 1 and min(steps) >= 1


def test_tinyberts_map():
    assert uniform_layer_map(4, 12) == {0: 0, 1: 3, 2: 6, 3: 9, 4: 12}


def test_the_value_is_the_mean_square_over_layers_positions_and_channels():
    torch.manual_seed(0)
    match = HiddenStateLoss(3, 5, {0: 0, 2: 1})
    student = [torch.randn(2, 4, 3) for _ in range(3)]
    teacher = [torch.randn(2, 4, 5) for _ in range(2)]
    mask = torch.tensor([[True, False, True, True], [False, False, True, False]])
    total = 0.0
    for (ours, theirs), projector in zip({0: 0, 2: 1}.items(), match.projectors.children()):
        squares = (
            student[ours] @ projector.get_parameter("weight").detach().T - teacher[theirs]
        ) ** 2
        total += float(squares[mask].sum()) / (4 * 5)
    assert float(match(student, teacher, mask).detach()) == pytest.approx(total / 2, rel=1e-6)


def test_equal_widths_start_as_the_identity_and_no_gradient_reaches_the_teacher():
    match = HiddenStateLoss(4, 4, {0: 0, 1: 1})
    states = [torch.randn(1, 3, 4, requires_grad=True) for _ in range(2)]
    teacher = [s.detach().clone().requires_grad_() for s in states]
    loss = match(states, teacher)
    assert loss.item() == 0.0
    loss.backward()
    assert all(t.grad is None for t in teacher) and states[0].grad is not None


def test_projectors_are_seeded():
    one, same, other = (HiddenStateLoss(3, 5, {1: 1}, seed) for seed in (1, 1, 2))
    weights = [m.get_parameter("projectors.0.weight") for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="empty"):
        HiddenStateLoss(3, 3, {})
    with pytest.raises(ValueError, match="layer_map key"):
        HiddenStateLoss(3, 3, {-1: 0})
    match = HiddenStateLoss(3, 3, {2: 0})
    with pytest.raises(ValueError, match="counted from 0"):
        match([torch.zeros(1, 2, 3)] * 2, [torch.zeros(1, 2, 3)])
    with pytest.raises(ValueError, match="positions"):
        match([torch.zeros(1, 2, 3)] * 3, [torch.zeros(1, 5, 3)])
