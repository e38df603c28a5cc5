"""How often a draft's greedy guess is the token that its teacher writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from slmlab.generation import generate_tokens

if TYPE_CHECKING:
    from slmlab.generation import LanguageModel


@dataclass(frozen=True)
class Acceptance:
    """Guesses that greedy speculative decoding would accept, of those it would check."""

    accepted: int
    proposed: int
    prompts: int

    @property
    def rate(self) -> float:
        """Share accepted, 0 .. 1."""
        return self.accepted / self.proposed

    @property
    def standard_error(self) -> float:
        """Of the rate, as a binomial share; guesses of one text are not quite independent."""
        return math.sqrt(self.rate * (1 - self.rate) / self.proposed)


@torch.inference_mode()
def greedy_acceptance(
    draft: LanguageModel,
    teacher: LanguageModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int = 64,
) -> Acceptance:
    """Let the teacher continue every prompt greedily and ask the draft for each of its tokens.

    The draft sees the teacher's own text, as it does when its wrong guesses are replaced
    (Leviathan et al. 2023, arXiv:2211.17192), so a position counts as accepted where the two
    argmaxes agree. A text ends after ``new_tokens`` or with the end token, which counts.
    Raises ValueError where there is no prompt, and as `generate_tokens`.
    """
    if not prompts:
        raise ValueError("prompts is empty: give at least one prompt")
    stop_ids = teacher.model.config.eos_token_ids
    accepted = proposed = 0
    for prompt in prompts:
        ids = list(prompt)
        written = list(
            generate_tokens(teacher.model, ids, max_new_tokens=new_tokens, stop_ids=stop_ids)
        )
        if len(written) < new_tokens and stop_ids:
            written.append(stop_ids[0])
        inputs = torch.tensor([ids + written[:-1]], device=draft.model.device)
        guesses = draft.model(inputs)[0, len(ids) - 1 :].argmax(dim=-1).tolist()
        accepted += sum(a == b for a, b in zip(guesses, written, strict=True))
        proposed += len(written)
    return Acceptance(accepted, proposed, len(prompts))
