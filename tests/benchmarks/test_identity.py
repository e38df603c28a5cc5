"""When two engines count as saying the same."""

from __future__ import annotations

import pytest
import torch

from benchmarks import _identity
from benchmarks._engines import Slmlab, Transformers
from benchmarks._identity import first_difference, logit_difference, same_tokens

PROMPTS = [[300, 301, 302], [900, 40, 77, 1200]]


class Changed:
    """slmlab's own tokens; one of them may be another, and the list may be cut."""

    name = "changed"

    def __init__(self, ours: Slmlab, at: int | None = None, known: int = 100) -> None:
        self.ours, self.at, self.known = ours, at, known

    def complete(self, prompt: list[int], new_tokens: int) -> list[int]:
        return self.tokens(prompt, new_tokens)

    def tokens(self, prompt: list[int], new_tokens: int) -> list[int]:
        tokens = self.ours.tokens(prompt, new_tokens)
        if self.at is not None:
            tokens[self.at] += 1
        return tokens[: self.known]


@pytest.fixture(scope="module")
def ours() -> Slmlab:
    return Slmlab("tiny", torch.float32)


def test_first_difference() -> None:
    assert first_difference([1, 2, 3], [1, 2, 3, 4]) is None
    assert first_difference([1, 2, 3], [1, 7, 3]) == 1
    assert first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([1], []) == 0


def test_transformers_says_the_same(ours: Slmlab) -> None:
    found = same_tokens(ours, [Transformers("tiny", torch.float32)], PROMPTS, 8)
    assert found.engines == ("slmlab", "transformers") and found.prompts == 2
    assert found.of == 16 and 8 <= found.tokens <= 16


def test_a_difference_is_no_detail(ours: Slmlab) -> None:
    for at in (0, 3):
        with pytest.raises(ValueError, match=f"changed differs from slmlab at new token {at}"):
            same_tokens(ours, [Changed(ours), Changed(ours, at=at)], PROMPTS, 6)


def test_a_near_tie_is_excused_and_counted(ours: Slmlab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_identity, "NEAR_TIE", 1e9)
    found = same_tokens(ours, [Changed(ours, at=4)], PROMPTS, 6)
    assert (found.near_ties, found.tokens, found.of) == (2, 8, 12)


def test_too_little_to_compare_is_no_identity(ours: Slmlab) -> None:
    assert same_tokens(ours, [Changed(ours, known=3)], PROMPTS, 6).tokens == 6
    with pytest.raises(ValueError, match="only 4 of 12 tokens"):
        same_tokens(ours, [Changed(ours, known=2)], PROMPTS, 6)


def test_logits_in_16_bits() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        half, theirs = Slmlab("tiny", dtype), Transformers("tiny", dtype)
        assert logit_difference(half, theirs, PROMPTS[0]) < 0.05
        half.model.norm.weight.mul_(1.1)
        with pytest.raises(ValueError, match="logits in torch"):
            logit_difference(half, theirs, PROMPTS[0])
