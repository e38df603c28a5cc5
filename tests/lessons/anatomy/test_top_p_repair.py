"""anatomy.top_p_repair against transformers' warpers, and by the definition of a nucleus."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from slmlab.checking import make_cases
from slmlab.lessons.anatomy.top_p_repair import TOP_P_REPAIR

NO_IDS = torch.zeros(1, 1, dtype=torch.long)


@given(
    seed=st.integers(0, 100_000),
    vocabulary=st.integers(1, 20),
    p=st.floats(0.05, 0.95),
    temperature=st.floats(0.3, 3.0),
)
def test_reference_against_transformers_and_definition(
    seed: int, vocabulary: int, p: float, temperature: float
) -> None:
    logits = 3 * torch.randn(2, vocabulary, generator=torch.Generator().manual_seed(seed))
    full = (logits / temperature).softmax(dim=-1)
    sums = full.sort(dim=-1, descending=True).values.cumsum(dim=-1)
    # Where a running sum equals p to rounding, either set is right.
    assume((sums - p).abs().min() > 1e-5)
    found = TOP_P_REPAIR.reference(logits, p, temperature)

    warped = TemperatureLogitsWarper(temperature)(NO_IDS, logits)
    wanted = TopPLogitsWarper(p)(NO_IDS, warped).softmax(dim=-1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)

    for row, probabilities in zip(found, full):
        kept = probabilities[row > 0]
        assert row.sum().item() > 0.9999
        assert kept.sum() >= p
        assert kept.sum() - kept.min() < p


def test_rounding_decides_no_case() -> None:
    for seed in range(30):
        for case in make_cases(TOP_P_REPAIR, seed):
            logits, p, temperature = case.arguments.values()
            ordered = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True).values
            assert (ordered.cumsum(dim=-1) - p).abs().min() > 5e-4
            assert (ordered[:, :-1] > ordered[:, 1:]).all()


def test_the_worked_example() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log()
    found = TOP_P_REPAIR.reference(logits, 0.7, 1.0)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.625, 0.375]]))
    assert "[0.0, 0.625, 0.375]" in TOP_P_REPAIR.hints[1]
    as_given = TOP_P_REPAIR.mistakes[0].implementation
    assert as_given(logits, 0.7, 1.0).tolist() == [[0.0, 1.0, 0.0]]
    assert as_given(logits, 0.4, 1.0).isnan().all()
