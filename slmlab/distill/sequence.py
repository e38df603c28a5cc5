"""Sequence-level distillation: the student learns the text that its teacher writes.

Kim and Rush 2016 (arXiv:1606.07947, section 3.2) replace the teacher's distribution over whole
sequences by its mode, found by beam search, and train the student on that with the plain hard-label
loss. Here the teacher continues the beginning of every row, greedily (a beam of one) or by sampling.
No logits are needed, so a teacher behind an interface that returns text is enough.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from slmlab.distill.batches import uniforms
from slmlab.distill.continuation import continue_rows
from slmlab.models.fields import check_whole

STREAM = 1  # of the seeded random numbers
BLOCK_ROWS = 32  # written at once, always the same together


def teacher_sequences(
    teacher: nn.Module,
    prompts: Tensor,
    new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop_ids: Collection[int] = (),
) -> tuple[Tensor, Tensor]:
    """What the teacher writes behind each prompt.

    Args:
        prompts: (N, P) int64.
        temperature: 0 is greedy, the mode as far as a beam of one finds it; above it a sample.
        seed: of the samples.
        stop_ids: end a row; see `continue_rows`.

    Returns:
        ids: (N, P + new_tokens) int64, on the CPU.
        mask: (N, P + new_tokens - 1) bool, True where a prediction is of a token that the teacher
            wrote. The two are what `Distiller` takes as rows and mask.

    Raises:
        ValueError, TypeError: as `continue_rows`; a negative temperature.
    """
    check_whole("new_tokens", new_tokens)
    if temperature < 0:
        raise ValueError(f"temperature={temperature} must be 0 (greedy) or positive")
    ids, masks = [], []
    for number, block in enumerate(prompts.split(BLOCK_ROWS)):
        numbers = None
        if temperature > 0:
            numbers = uniforms(seed, STREAM, number, len(block), new_tokens)
        text, written = continue_rows(teacher, block, new_tokens, numbers, temperature, stop_ids)
        unlearned = torch.zeros(len(block), prompts.shape[1] - 1, dtype=torch.bool)
        ids.append(text.cpu())
        masks.append(torch.cat((unlearned, written.cpu()), 1))
    return torch.cat(ids), torch.cat(masks)
