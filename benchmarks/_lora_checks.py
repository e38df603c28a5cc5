"""What must hold of adapters before their results mean anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks._lora_ways import merged, tiny_in_transformers, with_lora

TOLERANCE = 1e-4  # times max(1, the largest logit), as for every other implementation


def check_adapters(texts: Sequence[Tensor], seed: int = 0) -> dict[str, float]:
    """Largest differences of logits over max(1, the largest logit); texts: ids (T,) int64 each.

    fresh: new adapters against tiny in the same library, exactly 0 as B is 0. merged: adapters with
    random weights in B, kept apart by peft, against a Decoder with them merged.
    Raises ValueError where fresh is not 0 or merged exceeds TOLERANCE.
    """
    plain = tiny_in_transformers()
    before = _logits(plain, texts)
    adapted = with_lora(plain, seed)
    adapted.eval()
    fresh = _difference(_logits(adapted, texts), before)
    if fresh != 0:
        raise ValueError(f"fresh adapters change tiny's logits by {fresh:.2g}: B must start at 0")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    apart = _logits(adapted, texts)
    moved = _difference(apart, before)
    together = _difference(_logits(merged(adapted), texts), apart)
    if not together <= TOLERANCE < moved:
        raise ValueError(
            f"merged adapters differ from separate ones by {together:.2g} (they move tiny's logits "
            f"by {moved:.2g}): at most {TOLERANCE:g} is rounding"
        )
    return {"fresh": fresh, "merged": together, "moved": moved}


def _logits(model: Any, texts: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        found = [model(ids[None]) for ids in texts]
    return [getattr(logits, "logits", logits) for logits in found]


def _difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    return max(
        float((a - b).abs().max() / max(1.0, float(b.abs().max())))
        for a, b in zip(ours, theirs, strict=True)
    )
