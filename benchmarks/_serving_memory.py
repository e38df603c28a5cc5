"""How much of the key-value memory holds nothing, and what a shared prompt saves.

Waste is, summed over all steps and running requests, the share of reserved slots without a token:
what figure 2 of Kwon et al. 2023 (arXiv:2309.06180) plots. Ours is counted by the real Engine. The
reservations are those of the paper's Orca baselines on the same requests, computed: a request that
generates its answer's i-th token holds its prompt and i tokens in a reservation that never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks._serving_engines import BLOCK_SIZE, Ours
from benchmarks._serving_rounds import percentiles
from benchmarks._serving_trace import Asked, distinct_ids
from slmlab.generation import LanguageModel
from slmlab.models import Decoder, ModelConfig
from slmlab.serving import Engine

# Published: 20.4 to 38.2% of the existing systems' KV memory holds tokens (section 1).
PUBLISHED_RESERVED_WASTE = (0.618, 0.796)
VOCABULARY = 64


def shape_only(lm: LanguageModel, positions: int) -> LanguageModel:
    """A random model of one layer with ``positions`` and VOCABULARY: waste depends on the
    requests' lengths, not on weights, and a large model would only take longer."""
    small = Decoder(ModelConfig("llama", VOCABULARY, 32, 32, 1, 2, 1, 16, positions))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in small.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.1, generator=generator)
    return LanguageModel(small.eval().requires_grad_(False), lm.tokenizer)


def measured_waste(
    lm: LanguageModel, trace: Sequence[Asked], at_once: int, block_size: int
) -> dict[str, Any]:
    """Waste of the Engine on a trace, beside that of reservations for the model's positions.

    Raises ValueError where the Engine preempted: what it reserved is then not the trace's.
    """
    stats = Ours(lm, at_once, block_size).run(trace).stats
    if stats["preemptions"]:
        raise ValueError(f"the engine preempted {stats['preemptions']} times: enlarge its pool")
    positions = lm.model.config.max_position_embeddings
    return {
        "requests": len(trace),
        "mean_prompt": round(sum(len(asked.prompt) for asked in trace) / len(trace), 1),
        "mean_new": round(sum(asked.new_tokens for asked in trace) / len(trace), 1),
        "positions": positions,
        "block_size": block_size,
        "steps": stats["steps"],
        "paged": round(stats["waste"], 4),
        "reserve_to_maximum": reserved_waste(trace, lambda asked: positions),
        "reserve_power_of_two": reserved_waste(
            trace, lambda a: min(len(a.prompt) + _power_of_two(a.new_tokens), positions)
        ),
        "reserve_exact_length": reserved_waste(trace, lambda asked: asked.tokens),
    }


def reserved_waste(trace: Sequence[Asked], slots: Callable[[Asked], int]) -> float:
    """Waste where a request holds ``slots(request)`` from its first token to its last."""
    held = reserved = 0
    for asked in trace:
        steps = asked.new_tokens
        held += steps * len(asked.prompt) + steps * (steps - 1) // 2
        reserved += steps * slots(asked)
    return round(1 - held / reserved, 4)


def padded_waste(trace: Sequence[Asked], at_once: int) -> float:
    """Waste of left-padded batches that run to their longest answer; a finished row holds
    nothing that is still wanted."""
    held = slots = 0
    for first in range(0, len(trace), at_once):
        batch = trace[first : first + at_once]
        width = max(len(asked.prompt) for asked in batch)
        for step in range(max(asked.new_tokens for asked in batch)):
            slots += len(batch) * (width + step)
            held += sum(len(a.prompt) + step for a in batch if step < a.new_tokens)
    return round(1 - held / slots, 4)


def shared_prompt(lm: LanguageModel, shared: int, own: int, requests: int) -> dict[str, Any]:
    """One request after another with the same ``shared`` tokens and ``own`` of its own.

    prefill_cut: of the prompt tokens that the second request and later ones have, the share that
    was not computed. own=0 sends the very same prompt; its last token is computed all the same.
    Each generates one token, so that all an engine computes is prefill. ttft_ms: of those
    requests, alternately with and without sharing.
    """
    vocabulary = lm.model.config.vocab_size
    beginning = distinct_ids(vocabulary, shared, seed=1)
    computed: dict[bool, list[int]] = {True: [], False: []}
    ttft: dict[bool, list[float]] = {True: [], False: []}
    engines = {
        sharing: Engine(
            lm,
            num_blocks=2 * -(-(shared + own) // BLOCK_SIZE),
            block_size=BLOCK_SIZE,
            max_batch=1,
            prefix_sharing=sharing,
        )
        for sharing in (True, False)
    }
    for number in range(requests):
        prompt = beginning + distinct_ids(vocabulary, own, seed=2 + number)
        answers = []
        for sharing, engine in engines.items():
            before = engine.stats["computed_tokens"]
            request = engine.submit(prompt, max_new_tokens=1)
            done = engine.run()[request]
            computed[sharing].append(engine.stats["computed_tokens"] - before)
            answers.append(done.tokens)
            if number and done.ttft is not None:
                ttft[sharing].append(done.ttft)
        if answers[0] != answers[1]:
            raise ValueError(f"sharing a prefix changed the answer: {answers}")
    later, all_of_them = sum(computed[True][1:]), sum(computed[False][1:])
    pairs = sorted(off / on for off, on in zip(ttft[False], ttft[True], strict=True))
    return {
        "shared": shared,
        "own": own,
        "later_requests": requests - 1,
        "computed_first": computed[True][0],
        "computed_later": later / (requests - 1),
        "computed_later_without_sharing": all_of_them / (requests - 1),
        "prefill_cut": round(1 - later / all_of_them, 4),
        "ttft_ms": {
            "sharing": percentiles(ttft[True]),
            "without": percentiles(ttft[False]),
            "ratio_low": round(pairs[0], 1),
            "ratio_high": round(pairs[-1], 1),
        },
    }


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
