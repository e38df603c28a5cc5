"""Text that the teacher writes, for a draft to learn the contexts it will meet."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from slmlab.generation import next_token_probabilities, sample
from slmlab.kv import ContiguousCache
from slmlab.models import Decoder
from slmlab.training.batches import Rows

PROMPT_TOKENS = 32
# Batches in turn: the teacher's own distribution, and close to what it writes when greedy.
TEMPERATURES = (1.0, 0.5)


@torch.inference_mode()
def sample_batch(
    teacher: Decoder,
    prompts: Tensor,
    new_tokens: int,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Tensor:
    """Continue every prompt: (B, P) -> (B, P + new_tokens)."""
    batch, length = prompts.shape
    cache = ContiguousCache(
        teacher.config,
        batch,
        max_length=length + new_tokens,
        dtype=teacher.dtype,
        device=teacher.device,
    )
    ids = [prompts]
    step = prompts
    for _ in range(new_tokens):
        logits = teacher.lm_head(teacher.hidden(step, cache)[:, -1])
        step = sample(next_token_probabilities(logits, temperature), generator)[:, None]
        ids.append(step)
    return torch.cat(ids, dim=1)


def sampled_rows(
    teacher: Decoder, sources: dict[str, Rows], length: int, tokens: int, seed: int
) -> Rows:
    """Rows of ``length`` + 1: real beginnings of PROMPT_TOKENS tokens, the teacher's endings."""
    generator = torch.Generator(device=teacher.device).manual_seed(seed)
    batch = 64
    rounds = -(-tokens // (batch * length))
    per_source = -(-rounds * batch // len(sources))
    chosen = [
        rows[np.random.default_rng([seed, i]).permutation(len(rows))[:per_source], :PROMPT_TOKENS]
        for i, (_, rows) in enumerate(sorted(sources.items()))
    ]
    # Interleaved, so that a batch holds every source; a short source only makes fewer rows.
    width = min(len(c) for c in chosen)
    prompts = np.stack([c[:width] for c in chosen], axis=1).reshape(-1, PROMPT_TOKENS)
    written = []
    new_tokens = length + 1 - PROMPT_TOKENS
    starts = range(0, len(prompts), batch)
    for index, start in enumerate(tqdm(starts, desc="teacher writes", unit="batch")):
        block = torch.from_numpy(prompts[start : start + batch].astype(np.int64))
        temperature = TEMPERATURES[index % len(TEMPERATURES)]
        ids = sample_batch(teacher, block.to(teacher.device), new_tokens, generator, temperature)
        written.append(ids.cpu().numpy().astype(np.uint16))
    return np.concatenate(written)
