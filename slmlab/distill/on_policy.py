"""On-policy distillation: the student writes, the teacher scores every token of it.

A student trained on given text meets, when it generates, prefixes of its own making that it never
saw. Generalised knowledge distillation (GKD, Agarwal et al. 2024, arXiv:2306.13649, algorithm 1)
takes a share lambda of the batches from the student's own samples and lets the teacher's
distributions at those positions judge them. The samples are data: no gradient flows through the
drawing of them. With reverse KL it is close to reinforcement learning with a reward at every token.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn

from slmlab.distill.batches import Batch
from slmlab.distill.continuation import continue_rows

STREAM = 2  # of the seeded random numbers


def is_on_policy(seed: int, step: int, share: float) -> bool:
    """Whether a step learns from the student's own text: a seeded coin, the same in every process."""
    return bool(np.random.default_rng([seed, STREAM, step]).random() < share)


def student_sequences(
    student: nn.Module,
    batch: Batch,
    prompt_tokens: int,
    uniforms: Tensor,
    temperature: float = 1.0,
    stop_ids: Collection[int] = (),
) -> Batch:
    """The batch with everything behind the first ``prompt_tokens`` replaced by the student's text.

    Args:
        uniforms: (B, T - prompt_tokens) numbers in [0, 1) to draw with.
        temperature: of the student's samples; GKD takes 1.

    Returns:
        A batch of the same shape; its mask is True where a prediction is of a token that the
        student wrote.

    Raises:
        ValueError: a prompt that leaves nothing to write; otherwise as `continue_rows`.
    """
    time = batch.ids.shape[1]
    if not 1 <= prompt_tokens < time:
        raise ValueError(
            f"prompt_tokens={prompt_tokens} must lie between 1 and {time - 1}: rows of {time} tokens "
            "need a beginning, and room behind it"
        )
    ids, written = continue_rows(
        student, batch.ids[:, :prompt_tokens], time - prompt_tokens, uniforms, temperature, stop_ids
    )
    unlearned = torch.zeros_like(batch.mask[:, : prompt_tokens - 1])
    mask = torch.cat((unlearned, written.to(unlearned.device)), 1)
    return Batch(ids.to(batch.ids.device), mask, batch.rows)
