"""Small random pairs, a text with a pattern to learn, and a counter of allocated bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig

from slmlab.models import Decoder, ModelConfig

VOCABULARY = 40


def sizes(layers: int = 2, width: int = 32, tied: bool = True) -> dict[str, Any]:
    return dict(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )


def decoder(seed: int = 0, layers: int = 2, width: int = 32, tied: bool = True) -> Decoder:
    """Trainable, random. Untied, it prefers some tokens to others, and not the last one seen."""
    torch.manual_seed(seed)
    made = Decoder(ModelConfig.from_hf(LlamaConfig(**sizes(layers, width, tied))))
    with torch.no_grad():
        made.embed_tokens.weight.mul_(0.1)
        if not tied:
            made.lm_head.weight.mul_(3.0)
    return made


def llama(seed: int = 0, layers: int = 2, width: int = 32, tied: bool = True) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(**sizes(layers, width, tied))
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        made.get_input_embeddings().weight.mul_(5.0)
        if not tied:
            made.lm_head.weight.mul_(25.0)
    return made


def rows(count: int = 24, time: int = 17, seed: int = 0) -> Tensor:
    """(count, time) int64 in which each token is the one before plus seven."""
    start = torch.randint(VOCABULARY, (count, 1), generator=torch.Generator().manual_seed(seed))
    return (start + 7 * torch.arange(time)) % VOCABULARY


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that ``work`` had allocated at a time, by torch's own allocator's report."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda event: event[0]):
        held += change
        peak = max(peak, held)
    return peak
